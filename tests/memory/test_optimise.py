"""Optimising: less memory and fewer bytes, the same answers, and nothing to do the second time."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import warpmem
from jobs_lives import NOW, opened
from warpmem import Memory
from warpmem.config import Optimisation
from warpmem.errors import DiskFull, InputError, StoreCorrupt
from warpmem.ops.clock import FixedClock
from warpmem.storage import disk


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


def fill(memory: Memory, users: int = 3) -> None:
    """Owners of whose rows a quarter is gone, loaded."""
    for user in range(users):
        ids = [memory.add(f"fact {n} of {user}", user_id=f"u{user}").id for n in range(200)]  # type: ignore[union-attr]
        memory.search("fact", user_id=f"u{user}")
        for made in ids[::4]:
            memory.delete(made)


def answers(memory: Memory) -> list[Any]:
    return [
        [(hit.item.id, hit.score) for hit in memory.search("fact 7", user_id=f"u{user}", k=200)]
        for user in range(3)
    ]


def test_it_gives_back_and_saves_and_does_nothing_twice(tmp_path: Path, clock: FixedClock) -> None:
    options: dict[str, Any] = {"optimisation": Optimisation(changes=1), "checkpoint_rows": 100}
    with opened(tmp_path / "store", clock, **options) as memory:
        fill(memory)
        before, dead = answers(memory), memory._current.now.index.stats()["dead"]
        (report,) = memory.run_jobs()
        assert report.job == "optimise" and report.finished and report.owners == 3
        assert report.done.pop("tables written") > 0
        assert report.done == {"rows given back": dead, "indexes saved": 1} and dead >= 150
        assert memory._current.now.index.stats()["dead"] == 0 and answers(memory) == before
        assert memory.run_jobs()[0].done == {}
    with opened(tmp_path / "store", clock, **options) as memory:
        assert "3 owners from the checkpoint" in memory._current.now.index.restored  # type: ignore[attr-defined]
        assert answers(memory) == before
        assert memory.run_jobs()[0].done == {}
    assert warpmem.verify(tmp_path / "store").ok


def test_the_index_is_saved_where_closing_would_save_it(tmp_path: Path, clock: FixedClock) -> None:
    """It was saved after one change of a row, and in a store whose configuration says never."""
    for rows, saved in ((0, 0), (501, 0), (500, 1)):
        path, options = tmp_path / str(rows), Optimisation(changes=10_000)
        with opened(path, clock, optimisation=options, checkpoint_rows=rows) as memory:
            fill(memory, users=2)  # 200 rows added and 50 removed each
            assert memory.run_jobs()[0].done.get("indexes saved", 0) == saved


def test_it_leaves_the_disk_the_room_that_erasing_needs(
    tmp_path: Path, clock: FixedClock, monkeypatch: Any
) -> None:
    """Writing everything anew was allowed what lies below the low-water mark, as an erasure is."""
    options: dict[str, Any] = {"optimisation": Optimisation(changes=1), "checkpoint_rows": 0}
    with opened(tmp_path / "store", clock, min_free_bytes=4 << 20, **options) as memory:
        made = memory.add("a canary", user_id="u")
        monkeypatch.setattr(disk, "free_bytes", lambda path: 2 << 20)
        with pytest.raises(DiskFull):
            memory.run_jobs()
        assert memory.erase([made.id]).files > 0
        monkeypatch.undo()
        memory.add("a fact", user_id="u")
        assert memory.run_jobs()[0].done["tables written"] > 0


def test_the_storage_waits_for_enough_changes(tmp_path: Path, clock: FixedClock) -> None:
    with opened(tmp_path / "store", clock, optimisation=Optimisation(changes=100)) as memory:
        for n in range(99):
            memory.add(f"fact {n}", user_id="u")
        assert "tables written" not in memory.run_jobs()[0].done
        memory.update(next(iter(memory.list(user_id="u"))).id, text="the hundredth change")
        assert memory.run_jobs()[0].done["tables written"] > 0
        for n in range(99):
            memory.add(f"more {n}", user_id="u")
        assert "tables written" not in memory.run_jobs()[0].done


def test_writers_go_on_meanwhile(tmp_path: Path, clock: FixedClock) -> None:
    options: dict[str, Any] = {"optimisation": Optimisation(changes=1), "memtable_bytes": 1 << 20}
    with opened(tmp_path / "store", clock, **options) as memory:
        for n in range(100):
            memory.add(f"fact {n} " * 20, user_id="u", key="the same")
        stop, added = threading.Event(), []

        def write() -> None:
            while not stop.is_set():
                added.append(memory.add(f"meanwhile {len(added)}", user_id="u"))

        writer = threading.Thread(target=write)
        writer.start()
        try:
            while not added:
                time.sleep(0.001)
            memory.run_jobs()
        finally:
            stop.set()
            writer.join()
        assert memory.count(user_id="u") == 1 + len(added)
    assert warpmem.verify(tmp_path / "store").ok


def test_without_rows_or_a_disk_there_is_nothing_to_do(clock: FixedClock) -> None:
    with opened(None, clock, optimisation=Optimisation(changes=1), backend="numpy") as memory:
        assert memory.run_jobs()[0].done == {}
        fill(memory, users=1)
        assert memory.run_jobs()[0].done == {} and memory.count(user_id="u0") == 150


def test_refusals(clock: FixedClock) -> None:
    for options in ({"changes": 0}, {"changes": "many"}, {"more": 1}):
        with pytest.raises(InputError):
            opened(None, clock, optimisation=options)
    with opened(None, clock, optimisation=Optimisation()) as memory:
        memory._log.transact(lambda transaction: transaction.keep(b"compacted", b"\xc1"))
        with pytest.raises(StoreCorrupt, match="compaction"):
            memory.run_jobs()
        assert memory.run_jobs(["forget"], seconds=timedelta(hours=1))[0].finished
