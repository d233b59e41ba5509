"""Consolidating a year of events: how many items are left, whether what was planted is still found, and
that time and memory grow with the events (gated). WARPMEM_BENCH_OWNERS (20): people; growth is measured up to
twice as many. WARPMEM_BENCH_OUT: a folder for jobs.json and, with matplotlib, a plot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lives import START, Said, life

import warpmem
from warpmem import NewItem, Scope
from warpmem.config import Consolidation
from warpmem.ops.clock import FixedClock

OWNERS = int(os.environ.get("WARPMEM_BENCH_OWNERS", "20"))
DAYS, PER_DAY, EVERY, K = 365, 6, 9, 10
SIZES = (OWNERS // 4, OWNERS // 2, OWNERS, 3 * OWNERS // 2, 2 * OWNERS)
MIN_SHRINK, MAX_DROP, MAX_GROWTH = 10.0, 0.02, 1.5
NOW = START + timedelta(days=DAYS + 90)


def opened(path: Path) -> warpmem.Memory:
    return warpmem.open(path, clock=FixedClock(NOW), durability="os", consolidation=Consolidation())


def fill(memory: warpmem.Memory, owner: int) -> list[tuple[str, str]]:
    """Store a life; returns (id, question) of what will be asked."""
    said: list[Said] = life(owner, DAYS, PER_DAY, EVERY)
    items = [NewItem(text=one.text, kind="event", valid_from=one.at) for one in said]
    results = memory.add_many(items, user_id=f"u{owner}")
    return [(added.id, one.question) for added, one in zip(results, said, strict=True) if one.question]


def recall(memory: warpmem.Memory, asked: dict[int, list[tuple[str, str]]], mode: Any) -> float:
    """The share of what was planted that is among the K best, itself or as a source."""
    found = total = 0
    for owner, questions in asked.items():
        for item_id, question in questions:
            hits = memory.search(question, user_id=f"u{owner}", k=K, mode=mode)
            found += any(item_id == hit.item.id or item_id in hit.item.sources for hit in hits)
            total += 1
    return found / total


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[warpmem.Memory, dict[int, Any]]]:
    with opened(tmp_path_factory.mktemp("lives") / "store") as memory:
        yield memory, {owner: fill(memory, owner) for owner in range(OWNERS)}


def test_a_year_of_events(
    lived: tuple[warpmem.Memory, dict[int, Any]], report: Callable[[str], None]
) -> None:
    memory, asked = lived
    before = memory.stats().items
    recalls = {mode: [recall(memory, asked, mode)] for mode in ("dense", "hybrid")}
    began = time.perf_counter()
    (done,) = memory.run_jobs()
    seconds = time.perf_counter() - began
    after = memory.stats().items
    for mode, values in recalls.items():
        values.append(recall(memory, asked, mode))
        report(f"{mode}: recall@{K} of what was planted {values[0]:.3f} before, {values[1]:.3f} after")
    report(f"{OWNERS} owners: {before:,} items -> {after:,} ({before / after:.1f}x) in {seconds:.1f} s")
    assert done.finished and before >= MIN_SHRINK * after
    for found, left in recalls.values():
        assert left >= found - MAX_DROP


def run_of(owners: int) -> dict[str, float]:
    """Seconds and peak bytes of consolidating so many owners, in a process of its own."""
    done = subprocess.run([sys.executable, __file__, str(owners)], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_time_and_memory_grow_with_the_events(report: Callable[[str], None]) -> None:
    runs = {owners: run_of(owners) for owners in SIZES}
    for run in runs.values():
        report(
            f"{run['events']:,.0f} events: {run['seconds']:.2f} s ({run['processor']:.2f} s of processors), "
            f"{run['grown'] / 2**20:.1f} MiB more"
        )
    first, last = runs[SIZES[0]], runs[SIZES[-1]]
    out = os.environ.get("WARPMEM_BENCH_OUT")
    if out:
        Path(out, "jobs.json").write_text(json.dumps(runs, indent=1))
        _plot(runs, Path(out, "jobs.png"))
    per_event = [run["processor"] / run["events"] for run in (first, last)]
    assert per_event[1] <= MAX_GROWTH * per_event[0], "the time for an event grows with their number"
    share = last["events"] / first["events"]
    assert last["grown"] <= MAX_GROWTH * share * max(first["grown"], 8 << 20)


def _plot(runs: dict[int, dict[str, float]], path: Path) -> None:
    try:
        from matplotlib import pyplot
    except ImportError:
        return
    figure, (time_axis, memory_axis) = pyplot.subplots(1, 2, figsize=(9, 3.6))
    events = [run["events"] for run in runs.values()]
    for axis, name, scale, label in (
        (time_axis, "seconds", 1.0, "as a clock tells"), (time_axis, "processor", 1.0, "of processors"),
        (memory_axis, "grown", 2.0**20, "at the peak"),
    ):  # fmt: skip
        values = [run[name] / scale for run in runs.values()]
        (drawn,) = axis.plot(events, values, "o", label=label)
        axis.plot(events, np.polyval(np.polyfit(events, values, 1), events), "--", color=drawn.get_color())
    for axis, label in ((time_axis, "seconds"), (memory_axis, "MiB more than an empty store")):
        axis.set(xlabel="events", ylabel=label, xlim=(0, None), ylim=(0, None))
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.legend()
        axis.grid(alpha=0.3)
    figure.suptitle("consolidation of a year, by number of events; dashed: straight lines")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def _peak() -> int:
    """Most bytes that this program had so far. The kernel's ru_maxrss begins with those of its parent."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def main(owners: int) -> None:
    """Consolidate in this process and print what it took."""
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder) / "store") as memory:
        memory.search("warm up", user_id="u0")
        before = _peak()
        for owner in range(owners):
            fill(memory, owner)
        events = memory.stats().items
        began, spent = time.perf_counter(), time.process_time()
        memory.run_jobs()
        seconds, processor = time.perf_counter() - began, time.process_time() - spent
        peak = _peak()
        assert memory.count(scope=Scope(user_id="u0")) < events
    found = {"events": events, "seconds": seconds, "processor": processor, "grown": peak - before}
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
