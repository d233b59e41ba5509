"""Consolidation of a store whose index is on a device: clustered there, and the same whoever does it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import pytest

from durability.harness import run_script
from emulated_cuda import emulated
from jobs_lives import NOW, fill, live, opened
from tiered_pools import healthy_device
from warpmem.index import clustering
from warpmem.index.cpu import CpuBackend
from warpmem.index.cuda_backend import CudaBackend
from warpmem.ops.clock import FixedClock
from warpmem.ops.devices import scheduler_of

SCHEDULER = scheduler_of("cuda:0")
"""Kept, or its counts would begin anew with each store."""

ZEROING = 3
"""Calls behind the last results, which overwrite what is left."""


class Run(NamedTuple):
    """What became of a long life, and what the device did for that: means that it made, turns it was had for,
    calls of it, bytes that it holds still."""

    summaries: list[tuple[Any, ...]]
    means: int
    turns: int
    calls: int
    held: int


@pytest.fixture(autouse=True)
def healed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(clustering, "LEAST_WORK", 0)
    with healthy_device():
        yield


def counts() -> tuple[int, ...]:
    turns = SCHEDULER.stats()["served"]["background"]
    return emulated().launches(b"kmeans_mean"), turns, emulated().calls(), emulated().allocated()


def consolidated(
    backend: Any, monkeypatch: pytest.MonkeyPatch, before: Callable[[], object] = lambda: None
) -> Run:
    """before: called when the store is filled."""
    monkeypatch.setattr("warpmem.compose.choose", lambda *ignored: (backend, "a test"))
    with opened(None, FixedClock(NOW)) as memory:
        fill(memory, random.Random(1), 60)
        at = counts()
        before()
        (report,) = memory.run_jobs(["consolidate"])
        emulated().heal()
        assert report.finished and report.done["summaries"] > 3
        summaries = sorted((item.text, item.valid_from, len(item.sources)) for item in live(memory))
        return Run(summaries, *(now - then for now, then in zip(counts(), at, strict=True)))


def on_device() -> CudaBackend:
    return CudaBackend(module=emulated().module, vram_bytes=1 << 26)


def test_old_events_are_clustered_where_the_index_is(monkeypatch: pytest.MonkeyPatch) -> None:
    host = consolidated(CpuBackend(), monkeypatch)
    assert (host.means, host.turns, host.calls, host.held) == (0, 0, 0, 0)
    device = consolidated(on_device(), monkeypatch)
    assert device.summaries == host.summaries
    assert device.means >= 2 and device.turns >= 2 and device.held == 0  # of two months
    monkeypatch.setattr(clustering, "LEAST_WORK", 1 << 25)
    assert consolidated(on_device(), monkeypatch) == host  # so few are the host's


def test_a_device_that_fails_changes_no_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    host = consolidated(CpuBackend(), monkeypatch)
    device = consolidated(on_device(), monkeypatch)
    once = consolidated(on_device(), monkeypatch, lambda: emulated().fail_allocation(0))
    assert once.summaries == host.summaries and once.held == 0
    assert 0 < once.means < device.means  # one month's clusters are the host's
    for calls in range(0, device.calls - ZEROING, 7):
        run = consolidated(on_device(), monkeypatch, partial(emulated().fail_from, calls))
        assert run.summaries == host.summaries and run.held == 0
        assert run.turns >= 2 and run.calls < device.calls


LEFT_AT_WORK = """
import random
import sys
import time
from datetime import timedelta
from pathlib import Path

import warpmem.compose
import warpmem.jobs.runner as runner
from emulated_cuda import Emulated
from jobs_lives import NOW, START, opened
from warpmem import NewItem
from warpmem.config import Consolidation
from warpmem.index import clustering
from warpmem.index.cuda_backend import CudaBackend
from warpmem.ops.clock import FixedClock
from warpmem.ops.devices import scheduler_of

clustering.LEAST_WORK = 0
backend = CudaBackend(module=Emulated(Path(sys.argv[1])).module, vram_bytes=1 << 26)
warpmem.compose.choose = lambda *ignored: (backend, "a test")
repeat = runner._repeat
runner._repeat = lambda found, closing, pause: repeat(found, closing, 0.5)
memory = opened(None, FixedClock(NOW), jobs_minutes=1, consolidation=Consolidation(lines_per_summary=2))
items = [
    NewItem(text=f"code {random.random()}", kind="event", valid_from=START + timedelta(minutes=n))
    for n in range(1500)
]
memory.add(items, user_id="ann")
turns = scheduler_of("cuda:0").stats
while turns()["served"]["background"] < 3:
    time.sleep(0.01)
print("at work")
"""


def test_an_interpreter_ends_while_its_jobs_are_at_work_on_a_device() -> None:
    """The thread's next turn came when the interpreter was gone, and the process was aborted."""
    run_script(LEFT_AT_WORK, emulated()._library._name)


def test_a_store_is_closed_while_its_device_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waited for all turns of the k-means, each behind whatever else the device had to do."""
    monkeypatch.setattr("warpmem.compose.choose", lambda *ignored: (on_device(), "a test"))
    taken, turn = [0], SCHEDULER.turn

    def noted(lane: str, **arguments: Any) -> Any:
        taken[0] += 1
        return turn(lane, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(SCHEDULER, "turn", noted)
    with opened(None, FixedClock(NOW)) as memory:
        fill(memory, random.Random(1), 1000)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(memory.run_jobs, ["consolidate"])
            while taken[0] < 2:
                assert not running.done(), running.result()
                time.sleep(0.001)
            memory.close()
            at = taken[0]
            (report,) = running.result(timeout=60)
            assert not report.finished and taken[0] == at <= 12
