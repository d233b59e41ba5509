"""A store that puts summaries in the place of events until its process is killed; what must hold then."""

from __future__ import annotations

import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import warpmem
from durability.harness import run_kills
from durability.memories import MEMTABLE_BYTES
from jobs_lives import NOW, fill, live, opened
from warpmem import Memory
from warpmem.ops.clock import FixedClock

USERS = ("ann", "bob", "cem")
_DAYS = 120
"""The last of them are old enough."""
_LONGEST = 0.2


def _open(path: str | Path) -> Memory:
    return opened(Path(path), FixedClock(NOW), memtable_bytes=MEMTABLE_BYTES)


def child(path: str, seed: int, acknowledge: Callable[[bytes], None]) -> None:
    """Consolidates, from where the last one was killed."""
    with _open(path) as memory:
        acknowledge(b"opened")
        memory.run_jobs(["consolidate"])
        acknowledge(b"done")
        signal.pause()


def contents(memory: Memory) -> list[tuple[Any, ...]]:
    """All that may be seen but the summaries' own ids and when they were made."""
    return sorted(
        (user, item.kind, item.text, item.sources, item.valid_from, repr(item.metadata), item.trust)
        for user in USERS
        for item in live(memory, user)
    )


def check_whole(memory: Memory, events: frozenset[str]) -> bool:
    """Each event is there or stood for by one summary, and by one alone. Whether some are either."""
    items = [item for user in USERS for item in live(memory, user)]
    summed = [source for item in items if item.kind == "summary" for source in item.sources]
    there = [item.id for item in items if item.kind != "summary"]
    assert sorted(summed + there) == sorted(events), "an event was lost, or is there twice"
    for source in random.Random(len(summed)).sample(summed, min(9, len(summed))):
        reason = memory.history(source)[-1].reason
        assert reason is not None and reason.startswith("summarised in ")
        assert memory.get(reason.removeprefix("summarised in ")) is not None
    return bool(summed) and bool(there)


def _resumed(path: Path, folder: Path) -> list[tuple[Any, ...]]:
    """What a copy of a store holds when the run has gone on to its end."""
    copy = folder / "resumed"
    shutil.copytree(path, copy)
    try:
        with _open(copy) as memory:
            (report,) = memory.run_jobs(["consolidate"])
            assert report.finished
            assert memory.run_jobs(["consolidate"])[0].done == {}, "a run left something to do"
            found = contents(memory)
        assert warpmem.verify(copy).ok
    finally:
        shutil.rmtree(copy)
    return found


def run_consolidation_kills(folder: Path, *, kills: int, seed: int) -> Counter[str]:
    """Kill `kills` children at random moments of a run. After each, nothing is lost or by halves, and a copy
    goes on to the contents of a run that nobody disturbed; the store itself goes on to the next kill, and
    begins anew when it is done. Returns how many kills fell "midway", and how many runs were "finished"."""
    fresh = folder / "fresh"
    with _open(fresh) as memory:
        for user in USERS:
            fill(memory, random.Random(f"{user} {seed}"), _DAYS, user)
        events = frozenset(item.id for user in USERS for item in live(memory, user))
    whole = _resumed(fresh, folder)
    assert len(whole) < len(events) / 5
    shutil.copytree(fresh, folder / "store-0")
    found: Counter[str] = Counter()

    def check(path: str, acknowledged: Sequence[bytes]) -> None:
        with _open(path) as memory:
            found["midway"] += check_whole(memory, events)
            done = contents(memory) == whole
        assert warpmem.verify(path).ok
        assert _resumed(Path(path), folder) == whole, "a run that went on ended elsewhere"
        if done:
            found["finished"] += 1
            shutil.rmtree(path)
            shutil.copytree(fresh, path)

    run_kills(
        "durability.consolidations:child", check, folder, kills=kills, seed=seed, fresh_every=kills,
        longest=_LONGEST, at_work=0.9,
    )  # fmt: skip
    assert found["midway"] > kills // 10, f"only {found['midway']} of {kills} kills hit a run: {found}"
    return found
