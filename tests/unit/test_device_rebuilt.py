"""A device that failed answers again, on the emulator: by itself after a pause, or when it is told to. The
bits are those of the host all the time."""

from __future__ import annotations

import logging
import os
import threading
import time as real_time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from durability.harness import run_script
from emulated_cuda import emulated
from tiered_pools import DIM, Pair, healthy_device, rows
from virtual_time import VirtualTime, eventually, threads
from warpmem.errors import BackendUnavailable
from warpmem.index.cuda_backend import CudaBackend
from warpmem.index.device_recovery import DeviceRecovery
from warpmem.ops.devices import scheduler_of

REBUILD = "warpmem-rebuild"
ALL = [0, 1, 2]


@pytest.fixture(autouse=True)
def healed() -> Iterator[None]:
    with healthy_device():
        yield


@pytest.fixture
def time() -> VirtualTime:
    return VirtualTime()


def watched(time: VirtualTime) -> Pair:
    """A pair whose device is tried again, in virtual time."""
    pair = Pair()
    pair.tiered._recovery = DeviceRecovery(clock=time.clock, wait=time.wait)
    pair.tiered._recovery.join(pair.tiered)
    pair.tiered.pause = 1.0
    for i in ALL:
        pair.add(i, rows(100, i))
    return pair


def failed(time: VirtualTime) -> Pair:
    """The same, with lists on the device, once that failed."""
    pair = watched(time)
    pair.tiered.warm(ALL, wait=True)
    emulated().fail_from(0)
    pair.check(ALL)
    return pair


# ------------------------------------------------------------------------------------------- by itself


def test_a_device_that_failed_answers_again_within_the_pause(
    time: VirtualTime, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "warpmem")
    pair = watched(time)
    pair.tiered.warm(ALL, wait=True)
    assert pair.check(ALL)["device_lists"] == 3
    assert (pair.tiered.tiers()["failures"], pair.tiered.tiers()["rebuilds"]) == (0, 0)
    for round, pauses in enumerate(([1.0, 2.0], [1.0, 2.0, 4.0, 8.0]), 1):  # soon again: the pause goes on
        emulated().fail_from(2)
        plan = pair.check(ALL)
        assert plan["device_failed"] is True and "told to fail" in plan["device_failure"]
        eventually(lambda pauses=pauses: time.pauses == pauses[:-1])  # type: ignore[misc]
        time.advance(pauses[-2])
        eventually(lambda pauses=pauses: time.pauses == pauses)  # type: ignore[misc]
        pair.add(1, rows(5, 8))
        assert "told to fail" in pair.check(ALL)["device_failure"]
        emulated().heal()
        assert "told to fail" in pair.check(ALL)["device_failure"]
        time.advance(pauses[-1])
        eventually(lambda: not threads(REBUILD))
        assert pair.check(ALL)["device_failure"] is None  # and the lists are on their way
        pair.tiered.settle()
        assert pair.check(ALL)["device_lists"] == 3
        tiers = pair.tiered.tiers()
        assert (tiers["failures"], tiers["rebuilds"]) == (round, round)
    assert [vars(record)["event"] for record in caplog.records] == ["device_failed", "device_rebuilt"] * 2


def test_a_device_that_failed_when_the_pool_was_made(time: VirtualTime) -> None:
    emulated().fail_from(1)
    pair = watched(time)
    emulated().heal()
    assert pair.check(ALL)["device_lists"] == 0 and pair.tiered.device is None
    time.advance(1.0)
    eventually(lambda: not threads(REBUILD))
    pair.tiered.warm(ALL, wait=True)
    assert pair.check(ALL)["device_lists"] == 3 and pair.tiered.device == 0
    pair.drop(1)
    assert pair.tiered.tiers()["lists"] == 2


@pytest.mark.parametrize("after", range(12))
def test_a_device_that_fails_while_it_is_rebuilt(time: VirtualTime, after: int) -> None:
    pair = failed(time)
    emulated().fail_from(after)
    time.advance(1.0)
    eventually(lambda: len(time.pauses) == 2 or not threads(REBUILD))
    pair.check(ALL)
    emulated().heal()
    if pair.tiered.failure is not None:
        assert pair.tiered.rebuild()
    pair.tiered.warm(ALL, wait=True)
    assert pair.check(ALL)["device_lists"] == 3
    pair.tiered.close()


def test_no_search_waits_for_it(time: VirtualTime) -> None:
    """Somebody has the device: what tries it again waits for a turn, searches do not."""
    pair = failed(time)
    emulated().heal()
    scheduler = scheduler_of("cuda:0")
    with scheduler.turn("interactive"):
        time.advance(1.0)
        eventually(lambda: scheduler.stats()["waiting"]["background"] == 1)
        for seed in range(5):
            assert "told to fail" in pair.check(ALL, seed=seed)["device_failure"]
        pair.add(0, rows(3, 1))
    eventually(lambda: pair.tiered.failure is None)
    eventually(lambda: not threads(REBUILD))


def test_closing_while_it_waits_for_a_turn(time: VirtualTime) -> None:
    pair = failed(time)
    scheduler = scheduler_of("cuda:0")
    with scheduler.turn("interactive"):
        time.advance(1.0)
        eventually(lambda: scheduler.stats()["waiting"]["background"] == 1)
        pair.tiered.close()
        assert not threads(REBUILD)
    assert "told to fail" in pair.check(ALL)["device_failure"]
    emulated().heal()
    assert pair.tiered.rebuild()


def test_closing_while_a_load_waits_for_a_turn() -> None:
    """Which a try waits for: it gives up at once, and nothing is tried later."""
    pair = Pair(rebuild_ms=1)
    for i in ALL:
        pair.add(i, rows(100, i))
    pair.tiered.warm([0], wait=True)
    scheduler = scheduler_of("cuda:0")
    with scheduler.turn("interactive"):
        pair.check([1, 2])
        eventually(lambda: scheduler.stats()["waiting"]["background"] == 1)
        emulated().fail_from(0)
        assert pair.check([0])["device_failed"] is True
        eventually(lambda: pair.tiered._recovery._trying is not None)
        began = real_time.monotonic()
        pair.tiered.close()
        assert real_time.monotonic() - began < 4 and not threads(REBUILD)
        emulated().heal()
    pair.tiered.settle()
    assert "told to fail" in pair.check(ALL)["device_failure"]


def test_whoever_tells_it_to_be_rebuilt_waits_for_no_turn(time: VirtualTime) -> None:
    """As a try by itself does meanwhile."""
    pair = failed(time)
    emulated().heal()
    scheduler = scheduler_of("cuda:0")
    answered: list[bool] = []
    with scheduler.turn("interactive"):
        time.advance(1.0)
        eventually(lambda: scheduler.stats()["waiting"]["background"] == 1)
        told = threading.Thread(target=lambda: answered.append(pair.tiered.rebuild()))
        told.start()
        told.join(20)
        assert answered == [True]
        assert pair.check(ALL)["device_failure"] is None
    eventually(lambda: not threads(REBUILD))
    assert pair.tiered.tiers()["rebuilds"] == 1


def test_a_fork_rebuilds_nothing_whatever_its_parent_does(
    time: VirtualTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = failed(time)
    emulated().heal()
    parent, answered = os.getpid(), list[bool]()
    with pair.tiered._rebuilding, monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: parent + 1)
        told = threading.Thread(target=lambda: answered.append(pair.tiered.rebuild()), daemon=True)
        told.start()
        told.join(20)
        assert answered == [False]
    assert pair.tiered.rebuild()
    eventually(lambda: not threads(REBUILD))


def test_searches_and_changes_beside_a_device_that_comes_and_goes() -> None:
    """Faults and rebuilds at any moment, in real time: every answer has the host's bits, and in the end the
    device gives them."""
    pair = Pair(rebuild_ms=1)
    for i in ALL:
        pair.add(i, rows(100, i))
    rng = np.random.default_rng(4)
    device = 0
    for step in range(60):
        if step % 4 == 0:
            emulated().fail_from(int(rng.integers(0, 40)))
        elif step % 4 == 2:
            emulated().heal()
            eventually(lambda: pair.tiered.failure is None)
        pair.add(int(rng.integers(0, 3)), rows(7, step))
        device += pair.check(ALL, seed=step)["device_lists"]
        if step % 4 == 3:
            pair.tiered.settle()
    emulated().heal()
    eventually(lambda: pair.tiered.failure is None)
    pair.tiered.warm(ALL, wait=True)
    assert pair.check(ALL)["device_lists"] == 3
    tiers = pair.tiered.tiers()
    assert tiers["failures"] == tiers["rebuilds"] > 5 and device > 10
    eventually(lambda: not threads(REBUILD))


@pytest.mark.parametrize("after", range(4))
def test_a_device_that_fails_while_results_are_brought_to_it(time: VirtualTime, after: int) -> None:
    pair = watched(time)
    emulated().fail_from(after)
    with pytest.raises(BackendUnavailable, match="told to fail"):
        pair.tiered.put([rows(2, 5)])
    assert pair.tiered.failed and pair.tiered.tiers()["failures"] == 1
    eventually(lambda: time.pauses == [1.0])
    emulated().heal()
    time.advance(1.0)
    eventually(lambda: not threads(REBUILD))
    assert len(pair.tiered.put([rows(2, 5)])) == 1


LEFT_WAITING = """
import sys
from pathlib import Path

import numpy as np

from emulated_cuda import Emulated
from virtual_time import threads
from warpmem.index.cuda_backend import CudaBackend

made = Emulated(Path(sys.argv[1]))
pool = CudaBackend(module=made.module, vram_bytes=1 << 24, least_work=0, rebuild_ms=600_000).pool(4, 0)
one, row = np.zeros(1, np.int64), np.ones((1, 4), np.float32)
pool.apply([], one, one, one.astype(np.uint32), np.zeros((1, 0), np.int64), row)
pool.warm([0], wait=True)
made.fail_from(0)
assert pool.scan(row, [(0, 0, 0, [], [], None)], 1, explain=True)[5]["device_failed"]
assert len(threads("warpmem-rebuild")) == 1
"""


def test_an_interpreter_ends_while_a_device_waits_to_be_tried() -> None:
    run_script(LEFT_WAITING, emulated()._library._name)


def test_a_driver_that_is_gone_keeps_no_pool_from_being_made() -> None:
    """As after an erasure, which maps the index anew: the backend has answered once."""
    reason = [""]
    module: Any = ModuleType("_cuda")
    vars(module).update(vars(emulated().module))
    module.unavailable_reason = lambda: reason[0] or None
    backend = CudaBackend(module=module, vram_bytes=1 << 24, rebuild_ms=0)
    backend.pool(DIM, 0)
    reason[0] = "the driver is gone"
    emulated().fail_from(0)
    pool: Any = backend.pool(DIM, 0)
    assert "told to fail" in pool.failure
    with pytest.raises(BackendUnavailable, match="the driver is gone"):
        CudaBackend(module=module).pool(DIM, 0)
