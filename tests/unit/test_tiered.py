"""The cuda backend's pool on the emulator: who answers, what the device holds, faults, threads. Equal bits
over all data and filters are the business of tests/conformance; the cache alone, its hit rates among it, of
tests/cpp/test_page_cache*.cpp."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from emulated_cuda import emulated
from tiered_pools import DIM, PAGE, Pair, healthy_device, rows
from warpmem.errors import BackendUnavailable
from warpmem.index.cpu import CpuBackend
from warpmem.index.cuda_backend import CudaBackend


@pytest.fixture(autouse=True)
def healed() -> Iterator[None]:
    with healthy_device():
        yield


# ----------------------------------------------------------------------------------------- who answers


def test_the_host_answers_until_lists_are_loaded() -> None:
    pair = Pair()
    for i in range(3):
        pair.add(i, rows(100 * (i + 1), i))
    assert pair.check([0, 1, 2])["device_lists"] == 0
    pair.tiered.settle()
    plan = pair.check([0, 1, 2, 9])
    assert plan["device_lists"] == 3
    assert plan["device_failure"] is None and plan["device_failed"] is False
    tiers = pair.tiered.tiers()
    assert (tiers["lists"], tiers["hits"], tiers["misses"], tiers["loads"]) == (3, 3, 3, 3)
    assert tiers["pages"] == 2 + 4 + 5 and tiers["searches"] == tiers["launches"] == 1
    assert tiers["device_ms"] > 0 and tiers["device"] == 0 and tiers["failure"] is None


def test_a_change_is_on_the_device_before_the_next_search() -> None:
    pair = Pair()
    ids = pair.add(0, rows(1000, 1))
    assert pair.tiered.warm([0], wait=True) == 1
    uploaded = pair.tiered.tiers()["uploaded_pages"]
    pair.add(0, rows(3, 2))
    assert pair.tiered.tiers()["uploaded_pages"] == uploaded + 1
    assert pair.check([0])["device_lists"] == 1
    pair.remove(0, ids[:300:7])
    assert pair.tiered.tiers()["uploaded_pages"] == uploaded + 1
    assert pair.check([0], k=2000)["device_lists"] == 1
    pair.remove(0, ids[:700])  # compacts the list
    assert pair.check([0], k=2000)["rows_seen"] > 0
    pair.tiered.settle()
    assert pair.check([0], k=2000)["device_lists"] == 1
    pair.tiered.compact(0)
    pair.native.compact(0)
    pair.tiered.trim()
    pair.tiered.settle()
    assert pair.check([0])["device_lists"] == 1


def test_evict_and_warm() -> None:
    pair = Pair()
    for i in range(3):
        pair.add(i, rows(70, i))
    assert pair.tiered.warm(range(5), wait=True) == 5
    assert pair.tiered.tiers()["lists"] == 3
    pair.tiered.evict([0, 2, 77])
    assert pair.check([0, 1, 2])["device_lists"] == 1
    pair.tiered.settle()
    assert pair.check([0, 1, 2])["device_lists"] == 3
    assert pair.tiered.warm([1]) == 0


def test_small_scans_do_not_ask_the_device() -> None:
    backend = CudaBackend(module=emulated().module, vram_bytes=1 << 26, least_work=100 * 64 * 3)
    pool: Any = backend.pool(DIM, 0)
    ids = np.arange(100)
    pool.apply([], ids * 0, ids, ids.astype(np.uint32), np.zeros((100, 0), np.int64), rows(100, 0))
    pool.warm([0], wait=True)
    for n, lists in ((2, 0), (3, 1)):
        segments: Any = [(q, 0, 0, [], [], None) for q in range(n)]
        assert pool.scan(rows(n, 1), segments, 5, explain=True)[5]["device_lists"] == lists


def test_the_limit_holds_whatever_is_asked_for() -> None:
    """Popular lists stay, whatever else comes by; no byte more than the limit is ever taken."""
    limit = 40 * PAGE
    pair = Pair(limit)
    for i in range(60):
        pair.add(i, rows(64, i))
    emulated().most(1)
    before = emulated().allocated()
    rng = np.random.default_rng(5)
    for step in range(150):
        popular = rng.integers(0, 20, 4).tolist()
        pair.check([*popular, int(rng.integers(20, 60))], seed=step)
        pair.tiered.settle()
        assert emulated().allocated() - before <= limit
    assert emulated().most(0) - before <= limit
    tiers = pair.tiered.tiers()
    assert tiers["allocated"] <= limit == tiers["limit"]
    assert tiers["refused"] > 10
    plan = pair.check(list(range(20)))
    assert plan["device_lists"] >= 19


def test_erased_rows_do_not_stay_on_the_device() -> None:
    pair = Pair()
    vectors = rows(200, 990_001)  # no other test's: a pool of one that failed lives as long as its traceback
    pair.add(0, vectors[:100])
    ids = pair.add(1, vectors[100:])
    pair.tiered.warm([0, 1], wait=True)
    secrets = [vectors[i].tobytes() for i in (7, 150)]
    assert all(emulated().holds(secret) for secret in secrets)
    pair.drop(0)
    assert [emulated().holds(secret) for secret in secrets] == [False, True]
    pair.remove(1, ids)  # the last row of a list
    assert not emulated().holds(secrets[1])
    assert pair.tiered.tiers()["lists"] == 0 and pair.tiered.lists().tolist() == []


def test_a_port_is_its_pools_alone() -> None:
    """Versions of lists mean nothing in another pool; with them the device would answer for other rows."""
    pair = Pair()
    pair.add(0, rows(70, 1))
    pair.tiered.warm([0], wait=True)
    with pytest.raises(ValueError, match="PageCache of this pool, not of another"):
        pair.native.scan(rows(1, 0), [(0, 0, 0, [], [], None)], 3, device=pair.tiered._port)


def test_a_change_that_is_refused_changes_nothing() -> None:
    pair = Pair()
    pair.add(0, rows(70, 1))
    pair.tiered.warm([0], wait=True)
    before = pair.tiered.tiers()
    for lists, ids in ((np.zeros(2, np.int64), np.arange(3)), (np.zeros(3, np.int32), np.arange(3))):
        with pytest.raises((TypeError, ValueError)):
            pair.tiered.apply([], lists, ids, ids.astype(np.uint32), np.zeros((3, 2), np.int64), rows(3, 0))
    assert pair.tiered.tiers() == before
    assert pair.check([0])["device_lists"] == 1


# ---------------------------------------------------------------------------------------------- faults


def test_a_device_out_of_memory_loses_half_of_the_cache_and_no_answer() -> None:
    pair = Pair()
    for i in range(12):
        pair.add(i, rows(300, i))
    pair.tiered.warm(range(6), wait=True)
    emulated().capacity(emulated().allocated())
    pair.tiered.warm(range(6, 12), wait=True)
    tiers = pair.tiered.tiers()
    assert tiers["memory_failures"] > 0 and tiers["failure"] is None
    plan = pair.check(list(range(12)))
    assert plan["device_failure"] is None
    emulated().fail_allocation(0)
    pair.check(list(range(12)), k=500)


def test_a_device_that_vanishes() -> None:
    pair = Pair()
    for i in range(3):
        pair.add(i, rows(100, i))
    pair.tiered.warm(range(3), wait=True)
    assert pair.check([0, 1, 2])["device_lists"] == 3
    emulated().fail_from(2)
    plan = pair.check([0, 1, 2])
    assert plan["device_failed"] is True and plan["device_lists"] == 0
    assert "told to fail" in plan["device_failure"]
    pair.add(1, rows(5, 8))
    plan = pair.check([0, 1, 2])
    assert plan["device_failed"] is False and "told to fail" in plan["device_failure"]
    assert pair.tiered.warm([0]) == 0
    with pytest.raises(BackendUnavailable, match=r"does not answer: .*told to fail"):
        pair.tiered.scan(rows(1, 0), [(0, 0, 0, [], [], None)], 3, results="device")
    assert not pair.tiered.rebuild()
    emulated().heal()
    assert pair.tiered.rebuild()
    pair.tiered.warm(range(3), wait=True)
    assert pair.check([0, 1, 2])["device_lists"] == 3


def test_a_device_that_fails_when_a_pool_is_made() -> None:
    emulated().fail_from(1)
    pair = Pair()
    emulated().heal()
    pair.add(0, rows(100, 0))
    plan = pair.check([0])
    assert plan["device_lists"] == 0 and "told to fail" in plan["device_failure"]
    held = {"device": None, "failure": plan["device_failure"], "failures": 1, "rebuilds": 0}
    assert pair.tiered.tiers() == held
    assert pair.tiered.warm([0], wait=True) == 0
    pair.tiered.evict([0])
    emulated().fail_from(0)
    assert not pair.tiered.rebuild()
    emulated().heal()
    assert pair.tiered.rebuild()
    pair.tiered.warm([0], wait=True)
    assert pair.check([0])["device_lists"] == 1
    pair.drop(0)


@pytest.mark.parametrize("after", range(6))
def test_a_thread_that_cannot_enter_the_device(after: int) -> None:
    pair = Pair()
    pair.add(0, rows(100, 1))
    pair.tiered.warm([0], wait=True)
    pair.add(0, rows(5, 2))
    strangers = emulated().strangers()
    emulated().refuse_enter(after)
    for step in range(3):
        pair.check([0], seed=step)
        pair.add(0, rows(2, 3))
    emulated().heal()
    if pair.tiered.failure is not None:
        assert pair.tiered.rebuild()
    pair.tiered.warm([0], wait=True)
    assert pair.check([0])["device_lists"] == 1
    emulated().forget_strangers(strangers)


@pytest.mark.parametrize("seed", range(4))
def test_faults_at_random_change_no_answer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pair = Pair(60 * PAGE)
    failures = device = 0
    for step in range(40):
        i = int(rng.integers(0, 6))
        pair.add(i, rows(int(rng.integers(1, 200)), step))
        if step % 7 == 6:
            pair.drop(i)
        if step % 5 == 4:
            emulated().fail_from(int(rng.integers(0, 60)))
        elif step % 5 == 2:
            emulated().fail_allocation(int(rng.integers(0, 6)))
        for _ in range(3):
            device += pair.check(rng.integers(0, 6, 3).tolist(), seed=step)["device_lists"]
        pair.tiered.settle()
        if pair.tiered.failure is not None:
            failures += 1
            emulated().heal()
            assert pair.tiered.rebuild()
    print("seed", seed, "failures", failures, "lists answered by the device", device)
    assert failures > 1 and device > 20


# --------------------------------------------------------------------------------------------- threads


def test_searches_of_many_threads_share_launches() -> None:
    pair = Pair(lanes=1)
    for i in range(4):
        pair.add(i, rows(150, i))
    pair.tiered.warm(range(4), wait=True)
    gate = threading.Barrier(8)

    def search(seed: int) -> None:
        gate.wait()
        for step in range(6):
            assert pair.check([seed % 3, 3], seed=10 * seed + step)["device_lists"] >= 1

    threads = [threading.Thread(target=search, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tiers = pair.tiered.tiers()
    assert tiers["searches"] == 48 == tiers["launches"] + tiers["shared"]
    assert tiers["shared"] > 8


def test_searches_beside_changes_evictions_and_loads_are_exact() -> None:
    """A writer gives all rows of two lists one value after the other, in one change each; every search finds
    all rows, with one value, whoever answers."""
    pool = Pair(30 * PAGE).tiered
    n = 300
    ids = np.arange(n)
    lists = ids % 2
    stop = threading.Event()
    wrong: list[Any] = []
    by_device = [0]
    scans = [0]

    def change(value: int, others: int) -> None:
        vectors = np.full((n, DIM), value, np.float32)
        pool.apply([], lists, ids, ids.astype(np.uint32), np.zeros((n, 2), np.int64), vectors)
        pool.apply(
            [], np.full(64, 2 + others % 9), 1000 + ids[:64], ids[:64].astype(np.uint32),
            np.zeros((64, 2), np.int64), rows(64, others),
        )  # fmt: skip

    def read() -> None:
        query = np.ones((1, DIM), np.float32)
        segments: Any = [(0, 0, 0, [], [], None), (0, 1, 0, [], [], None), (0, 77, 0, [], [], None)]
        while not stop.is_set():
            _, similarities, _, row_ids, counts, plan = pool.scan(query, segments, 512, explain=True)
            values = set(similarities[0, : counts[0]].tolist())
            if counts[0] != n or len(values) != 1 or len(set(row_ids[0, :n].tolist())) != n:
                wrong.append((int(counts[0]), values))
                return
            by_device[0] += plan["device_lists"]
            scans[0] += 1

    def disturb() -> None:
        rng = np.random.default_rng(1)
        while not stop.is_set():
            pool.evict(rng.integers(0, 11, 1))
            pool.warm(rng.integers(0, 11, 2))
            stop.wait(0.002)

    change(1, 0)
    threads = [threading.Thread(target=target) for target in (read, read, disturb)]
    for thread in threads:
        thread.start()
    rounds = 0
    while (rounds < 60 or scans[0] < 40 or by_device[0] < 20) and not wrong and rounds < 5000:
        rounds += 1
        change(1 + rounds % 50, rounds)
        stop.wait(0.001 * (rounds % 9))
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert scans[0] >= 40 and by_device[0] >= 20
    assert pool.failure is None


def test_a_long_list_lets_others_have_the_device_while_it_is_loaded() -> None:
    """A load calls `between` after each 15 ms of copying, from its own thread, and is whole in the end."""
    device, pool = emulated().module, CpuBackend().pool(256, 0)
    n = 100_000
    vectors = np.random.default_rng(0).standard_normal((n, 256)).astype(np.float32)
    ids = np.arange(n)
    pool.apply([], np.zeros(n, np.int64), ids, ids.astype(np.uint32), np.zeros((n, 0), np.int64), vectors)
    threads: list[int] = []
    cache = device.PageCache(
        pool.port(), limit=1 << 28, manual=True, between=lambda: threads.append(threading.get_ident())
    )
    assert cache.warm(np.zeros(1, np.int64)) == 1 and threads == []
    assert cache.load_next() and not cache.load_next()
    assert set(threads) == {threading.get_ident()}
    assert cache.stats()["lists"] == 1 and cache.stats()["uploaded_pages"] == -(-n // 64)
    query = vectors[7:8]
    assert pool.scan(query, [(0, 0, 0, (), (), None)], 3, device=cache.port())[3][0, 0] == 7


def test_what_between_raises_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    device, pool = emulated().module, CpuBackend().pool(256, 0)
    ids = np.arange(100_000)
    lists, columns = np.zeros(len(ids), np.int64), np.zeros((len(ids), 0), np.int64)
    pool.apply([], lists, ids, ids.astype(np.uint32), columns, np.ones((len(ids), 256), np.float32))
    raised: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: raised.append(told.exc_type))

    def between() -> None:
        raise LookupError("of the caller's")

    cache = device.PageCache(pool.port(), limit=1 << 28, manual=True, between=between)
    cache.warm(np.zeros(1, np.int64))
    assert cache.waiting and cache.load_next() and not cache.waiting
    assert raised and set(raised) == {LookupError}
    assert cache.stats()["lists"] == 1
