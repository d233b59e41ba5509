"""A device that failed, as users of an index and of a store see it, on the emulator."""

from __future__ import annotations

import gc
import logging
import threading
import time as real_time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpmem
from emulated_cuda import emulated
from tiered_pools import DIM, healthy_device, rows
from virtual_time import eventually, threads
from warpmem import VectorIndex
from warpmem.errors import BackendUnavailable, StoreClosed
from warpmem.index import cuda_backend, ivf, tiers
from warpmem.index.cuda_backend import CudaBackend
from warpmem.index.tiered import TieredPool

REBUILD = "warpmem-rebuild"


@pytest.fixture(autouse=True)
def healed() -> Iterator[None]:
    with healthy_device():
        yield


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
    eventually(lambda: not threads(REBUILD))  # it counts what it rebuilt, once that answers
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
        wanted = [(hit.item.id, hit.score) for hit in store.search("note 7", user_id="u", mode="dense")]

        def search() -> str:
            found = store.search("note 7", user_id="u", mode="dense")
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
        eventually(lambda: not threads(REBUILD))
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
