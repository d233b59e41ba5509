"""A device that failed answers again, on the emulator: by itself after a pause, or when it is told to. The
bits are those of the host all the time."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time as real_time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import warpmem
from durability.harness import run_script
from emulated_cuda import emulated
from tiered_pools import DIM, Pair, healthy_device, rows
from virtual_time import VirtualTime, eventually, threads
from warpmem import VectorIndex
from warpmem.errors import BackendUnavailable, StoreClosed
from warpmem.index import cuda_backend, ivf, tiers
from warpmem.index.cuda_backend import CudaBackend
from warpmem.index.device_recovery import DeviceRecovery
from warpmem.index.tiered import TieredPool
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


# --------------------------------------------------------------------------------- arrays on the device


@pytest.mark.usefixtures("by_name")
@pytest.mark.parametrize("metric", ["ip", "cosine"])
def test_a_device_that_fails_with_the_queries_on_it(metric: str) -> None:
    index = an_index(rebuild_ms=1, metric=metric)
    on_device = on_the_device(index)
    wanted = index.search(on_device, 3).ids.tolist()
    emulated().fail_from(0)
    with pytest.raises(BackendUnavailable, match="told to fail"):
        index.search(on_device, 3)
    held = index.stats()["tiers"]
    assert held["failures"] == 1 and "told to fail" in held["failure"]
    with pytest.raises(BackendUnavailable, match="told to fail"):
        index.search(on_device, 3)
    assert index.search(rows(2, 5), 3).ids.tolist() == wanted
    emulated().heal()
    eventually(lambda: not fails(index))
    assert index.search(on_device, 3).ids.tolist() == wanted
    eventually(lambda: not threads(REBUILD))


@pytest.mark.usefixtures("by_name")
@pytest.mark.parametrize("after", range(12))
def test_a_device_that_fails_anywhere_in_a_search_on_it(after: int) -> None:
    """Whatever the search says, that it failed is known once it raised."""
    index = an_index(rebuild_ms=0)
    on_device = on_the_device(index)
    emulated().fail_from(after)
    try:
        index.search(on_device, 3, results="device")
    except BackendUnavailable:
        assert index.stats()["tiers"]["failures"] == 1
    emulated().heal()
    assert index.rebuild_device() and not fails(index)


@pytest.mark.usefixtures("by_name")
def test_a_device_without_memory_for_the_queries_has_not_failed() -> None:
    index = an_index(rebuild_ms=0)
    on_device = on_the_device(index)
    emulated().fail_allocation(0)
    with pytest.raises(BackendUnavailable, match="bytes for results"):
        index.search(on_device, 3)
    emulated().heal()
    assert index.stats()["tiers"]["failures"] == 0 and not fails(index)


# ----------------------------------------------------------------------------------- where users see it


@pytest.fixture
def by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_backend, "_load", lambda: (emulated().module, None))
    given = CudaBackend.__init__.__kwdefaults__ or {}
    monkeypatch.setattr(CudaBackend.__init__, "__kwdefaults__", {**given, "least_work": 0})


def an_index(**options: Any) -> VectorIndex:
    index = VectorIndex(DIM, backend="cuda", vram_bytes=1 << 24, **options)
    index.add(rows(200, 1), owners=np.arange(200) % 2)
    index.warm([0, 1], wait=True)
    return index


def on_the_device(index: VectorIndex) -> Any:
    """Two queries, the rows of seed 5."""
    return tiers.put(index._store.serving.pool, [rows(2, 5)])[0]


def fails(index: VectorIndex) -> bool:
    found = index.search(rows(1, 5), 3, explain=True)
    assert found.plan is not None
    return found.plan["device_failure"] is not None


@pytest.mark.usefixtures("by_name")
def test_an_index_rebuilds_its_device() -> None:
    index = an_index(rebuild_ms=1)
    assert not fails(index) and index.rebuild_device()
    emulated().fail_from(0)
    index.search(rows(1, 5), 3)
    assert fails(index) and not index.rebuild_device()
    emulated().heal()
    eventually(lambda: not fails(index))
    held = index.stats()["tiers"]
    assert (held["failures"], held["rebuilds"], held["failure"]) == (1, 1, None)


@pytest.mark.usefixtures("by_name")
def test_indexes_on_one_device_share_one_failure(caplog: pytest.LogCaptureFixture) -> None:
    indexes = [an_index(rebuild_ms=200) for _ in range(5)]
    emulated().fail_from(0)
    assert all([fails(index) for index in indexes for _ in range(2)][1::2])
    assert len(threads(REBUILD)) == 1
    emulated().heal()
    eventually(lambda: not any(fails(index) for index in indexes))
    eventually(lambda: not threads(REBUILD))
    assert [vars(record)["event"] for record in caplog.records] == ["device_failed"]
    held = [index.stats()["tiers"] for index in indexes]
    assert {(one["failures"], one["rebuilds"]) for one in held} == {(1, 1)}


@pytest.mark.usefixtures("by_name")
def test_an_approximate_index_fails_once_though_it_has_two_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ivf.build_ivf.__kwdefaults__ or {}
    monkeypatch.setattr(ivf.build_ivf, "__kwdefaults__", {**given, "min_rows": 300})
    index = VectorIndex(DIM, backend="cuda", recall=0.7, threads=1, vram_bytes=1 << 24, rebuild_ms=0)
    index.add(rows(500, 1), owners=np.r_[np.zeros(400, int), np.ones(100, int)])
    index.optimise()
    index.warm([0, 1], wait=True)
    emulated().fail_from(0)
    for owner in (0, 1):
        index.search(rows(1, 5), 3, owners=owner)
    emulated().heal()
    assert index.rebuild_device()
    held = index.stats()["tiers"]
    assert (held["failures"], held["rebuilds"], held["failure"]) == (1, 1, None)


@pytest.mark.usefixtures("by_name")
def test_the_longest_pause_that_can_be_asked_for() -> None:
    """More than a thread can wait for ended it."""
    index = an_index(rebuild_ms=(1 << 63) - 1)
    emulated().fail_from(0)
    index.search(rows(1, 5), 3)
    threads(REBUILD)[0].join(0.05)
    assert len(threads(REBUILD)) == 1


@pytest.mark.usefixtures("by_name")
def test_an_index_that_is_told_to() -> None:
    """And not by itself, where that is off."""
    index = an_index(rebuild_ms=0)
    emulated().fail_from(0)
    index.search(rows(1, 5), 3)
    emulated().heal()
    assert fails(index) and not threads(REBUILD)
    assert index.rebuild_device() and not fails(index)
    assert not VectorIndex(DIM, backend="cpu").rebuild_device()


@pytest.mark.usefixtures("by_name")
def test_whoever_is_told_of_a_failure_may_rebuild_at_once() -> None:
    index = an_index(rebuild_ms=0)

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if vars(record)["event"] == "device_failed":
                emulated().heal()
            assert index.rebuild_device()

    handler = Told()
    logging.getLogger("warpmem").addHandler(handler)
    try:
        emulated().fail_from(0)
        index.search(rows(1, 5), 3)
    finally:
        logging.getLogger("warpmem").removeHandler(handler)
    assert not fails(index) and index.stats()["tiers"]["rebuilds"] == 1


@pytest.mark.usefixtures("by_name")
def test_a_dropped_index_leaves_no_thread() -> None:
    index = an_index(rebuild_ms=600_000)
    emulated().fail_from(0)
    index.search(rows(1, 5), 3)
    assert len(threads(REBUILD)) == 1
    del index
    gc.collect()
    eventually(lambda: not threads(REBUILD))


@pytest.mark.usefixtures("by_name")
def test_a_store_rebuilds_its_device_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "warpmem")
    options: dict[str, Any] = {"backend": "cuda", "vram_bytes": 1 << 24, "rebuild_ms": 1}
    with warpmem.open(tmp_path / "store", embedder="hashing", **options) as store:
        for i in range(40):
            store.add(f"note {i} of the harbour", user_id="u")
        store.warm(user_id="u", wait=True)
        wanted = [(hit.item.id, hit.score) for hit in store.search("note 7", user_id="u")]

        def search() -> str:
            found = store.search("note 7", user_id="u")
            assert [(hit.item.id, hit.score) for hit in found] == wanted
            return str(found.plan)

        assert store.rebuild_device() and "warpmem_device_failed 0" in store.metrics()
        emulated().fail_from(0)
        search()
        assert "does not answer, the CPU does: " in search() and not store.rebuild_device()
        told = store.metrics()
        assert "warpmem_device_failed 1" in told and "warpmem_device_failures_total 1" in told
        emulated().heal()
        eventually(lambda: "does not answer" not in search())
        told = store.metrics()
        assert "warpmem_device_failed 0" in told and "warpmem_device_rebuilds_total 1" in told
        store.warm(user_id="u", wait=True)
        searches = store.stats().device["searches"]
        search()
        assert store.stats().device["searches"] == searches + 1
    told_of = [vars(record).get("event") for record in caplog.records]
    assert told_of.count("device_failed") == told_of.count("device_rebuilt") == 1
    with warpmem.open(tmp_path / "store", backend="cpu") as store:
        assert not store.rebuild_device()
    with pytest.raises(StoreClosed):
        store.rebuild_device()


@pytest.mark.usefixtures("by_name")
def test_closing_a_store_while_its_device_waits_to_be_tried() -> None:
    before = set(threading.enumerate())
    options: dict[str, Any] = {"backend": "cuda", "vram_bytes": 1 << 24, "rebuild_ms": 600_000}
    store = warpmem.open(embedder="hashing", **options)
    store.add("a note", user_id="u")
    store.warm(user_id="u", wait=True)
    emulated().fail_from(0)
    store.search("note", user_id="u")
    assert len(threads(REBUILD)) == 1
    began = real_time.monotonic()
    store.close()
    assert real_time.monotonic() - began < 5
    assert set(threading.enumerate()) <= before


def a_store_whose_driver_hangs(monkeypatch: pytest.MonkeyPatch, go: threading.Event) -> warpmem.Memory:
    options: dict[str, Any] = {"backend": "cuda", "vram_bytes": 1 << 24, "rebuild_ms": 1}
    store = warpmem.open(embedder="hashing", **options)
    store.add("a note", user_id="u")
    store.warm(user_id="u", wait=True)
    hangs = threading.Event()
    monkeypatch.setattr(TieredPool, "_open", lambda _: hangs.set() or not go.wait(20))
    emulated().fail_from(0)
    store.search("note", user_id="u")
    assert hangs.wait(20)
    return store


@pytest.mark.usefixtures("by_name")
def test_a_dropped_store_waits_for_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector may have come to it anywhere."""
    go = threading.Event()
    stores = [a_store_whose_driver_hangs(monkeypatch, go)]
    began = real_time.monotonic()
    stores.clear()
    gc.collect()
    assert real_time.monotonic() - began < 4
    go.set()
    eventually(lambda: not threads(REBUILD))


@pytest.mark.usefixtures("by_name")
def test_closing_a_store_waits_for_a_driver_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    store = a_store_whose_driver_hangs(monkeypatch, go)
    threading.Timer(0.05, go.set).start()
    store.close()
    assert go.is_set() and not threads(REBUILD)


@pytest.mark.usefixtures("by_name")
def test_an_erasure_leaves_the_counts_of_the_device(tmp_path: Path) -> None:
    options: dict[str, Any] = {"backend": "cuda", "vram_bytes": 1 << 24, "rebuild_ms": 0}
    with warpmem.open(tmp_path / "store", embedder="hashing", **options) as store:
        for user in ("u", "v"):
            store.add("a note", user_id=user)
            store.warm(user_id=user, wait=True)
        store.checkpoint()
        emulated().fail_from(0)
        store.search("note", user_id="v")
        emulated().heal()
        before = store.stats().device
        assert (before["failures"], before["rebuilds"]) == (1, 0)
        store.erase(user_id="u")
        after = store.stats().device
        assert (after["failures"], after["rebuilds"], after["failure"]) == (1, 1, None)


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
