"""When a device that failed is tried again, and that nobody waits for it. The pool is a fake, time is the
test's; with the emulated device: test_device_rebuilt.py."""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
import time as real_time
import weakref

import pytest

from recovering_pools import Pool, several
from virtual_time import VirtualTime, eventually, threads
from warpmem.errors import BackendUnavailable, Overloaded
from warpmem.index import device_recovery
from warpmem.index.device_recovery import DeviceRecovery, Pauses

REBUILD = "warpmem-rebuild"


@pytest.fixture
def time() -> VirtualTime:
    return VirtualTime()


@pytest.fixture
def pool(time: VirtualTime) -> Pool:
    return Pool(DeviceRecovery(clock=time.clock, wait=time.wait))


# --------------------------------------------------------------------------------------------- pauses


def test_pauses_double_up_to_five_minutes() -> None:
    pauses, long = Pauses(), Pauses()
    assert [pauses.failed(0.0, 1.0) for _ in range(11)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert {long.failed(0.0, 400.0) for _ in range(2000)} == {400}


def test_a_device_that_fails_again_soon_waits_longer_and_one_that_held_does_not() -> None:
    pauses = Pauses()
    assert (pauses.failed(0.0, 1.0), pauses.failed(1.0, 1.0)) == (1, 2)
    pauses.answered(3.0)
    assert pauses.failed(302.9, 1.0) == 4
    pauses.answered(310.0)
    assert (pauses.failed(610.0, 1.0), pauses.failed(611.0, 1.0)) == (1, 2)


# --------------------------------------------------------------------------------------------- trying


def test_a_device_is_tried_after_pauses_that_grow_until_it_answers(
    time: VirtualTime, pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "warpmem")
    recovery = pool.recovery
    for _ in range(5):
        recovery.notice(pool)
    eventually(lambda: time.pauses == [1.0])
    time.advance(0.9)
    assert pool.tries == 0 and len(threads(REBUILD)) == 1
    for tries, pause in ((1, 2.0), (2, 4.0), (3, 8.0)):
        time.advance(time.pauses[-1])
        eventually(lambda pause=pause: time.pauses[-1] == pause)  # type: ignore[misc]
        assert pool.tries == tries
    pool.answers = lambda: True
    time.advance(8.0)
    eventually(lambda: not threads(REBUILD))
    assert pool.tries == 4 and (recovery.failures, recovery.rebuilds) == (1, 1)
    told = [(vars(r)["event"], vars(r)["device"], vars(r).get("seconds")) for r in caplog.records]
    assert told == [("device_failed", 3, None), ("device_rebuilt", 3, pytest.approx(15.9))]

    pool.failed, pool.answers = True, lambda: False
    recovery.notice(pool)
    eventually(lambda: time.pauses[-1] == 16.0)
    assert recovery.failures == 2
    pool.close()


def test_a_device_that_answers_by_now_is_not_tried(pool: Pool) -> None:
    pool.failed = False
    pool.recovery.notice(pool)
    assert not threads(REBUILD) and pool.recovery.failures == 0


def test_a_device_with_too_much_to_do_is_tried_after_the_same_pause(time: VirtualTime, pool: Pool) -> None:
    def busy() -> bool:
        raise Overloaded("much", 0.5)

    pool.answers = busy
    pool.recovery.notice(pool)
    for n in (1, 2, 3):
        eventually(lambda n=n: len(time.pauses) == n)  # type: ignore[misc]
        time.advance(1.0)
    eventually(lambda: pool.tries == 3)
    assert set(time.pauses) == {1.0}
    pool.close()


@pytest.mark.parametrize("error", [BackendUnavailable("gone"), MemoryError(), RuntimeError(), OSError()])
def test_a_try_that_raises_is_one_that_failed(time: VirtualTime, pool: Pool, error: Exception) -> None:
    def fail() -> bool:
        raise error

    pool.answers = fail
    pool.recovery.notice(pool)
    eventually(lambda: time.pauses == [1.0])
    time.advance(1.0)
    eventually(lambda: time.pauses == [1.0, 2.0])
    pool.close()


def test_without_a_pause_it_is_told_and_not_tried(caplog: pytest.LogCaptureFixture) -> None:
    pool = Pool(DeviceRecovery(), 0.0)
    pool.recovery.notice(pool)
    pool.recovery.notice(pool)
    assert not threads(REBUILD) and pool.recovery.failures == 1
    assert [vars(record)["event"] for record in caplog.records] == ["device_failed"]


# ------------------------------------------------------------------------------------------ the thread


def test_a_rebuild_by_somebody_else_ends_the_thread_at_once(time: VirtualTime, pool: Pool) -> None:
    pool.recovery.notice(pool)
    eventually(lambda: time.pauses == [1.0])
    pool.answers = lambda: True
    assert pool.rebuild()
    eventually(lambda: not threads(REBUILD))
    assert pool.tries == 1 and pool.recovery.rebuilds == 1


def test_closing_ends_the_thread_at_once_and_for_good(time: VirtualTime, pool: Pool) -> None:
    pool.recovery.notice(pool)
    eventually(lambda: time.pauses == [1.0])
    pool.close()
    assert not threads(REBUILD) and pool.tries == 0
    pool.recovery.notice(pool)
    assert not threads(REBUILD)
    pool.close()


def test_closing_waits_for_a_try_that_is_under_way(time: VirtualTime, pool: Pool) -> None:
    began, go = threading.Event(), threading.Event()

    def slow() -> bool:
        began.set()
        return not go.wait(20)

    pool.answers = slow
    pool.recovery.notice(pool)
    eventually(lambda: time.pauses == [1.0])
    time.advance(1.0)
    assert began.wait(20)
    threading.Timer(0.05, go.set).start()
    pool.close()
    assert go.is_set() and not threads(REBUILD)


def test_a_pool_that_is_dropped_is_not_kept_and_its_thread_ends(time: VirtualTime) -> None:
    pool = Pool(DeviceRecovery(clock=time.clock, wait=time.wait))
    pool.recovery.notice(pool)
    eventually(lambda: time.pauses == [1.0])
    del pool
    gc.collect()
    eventually(lambda: not threads(REBUILD))


def test_a_pool_is_collected_whatever_lock_another_thread_holds(time: VirtualTime) -> None:
    """And the thread that tried it, which cannot be told, finds out after its pause."""
    pools = several(time, 1.0)
    recovery = pools[0].recovery
    recovery.notice(pools[0])
    eventually(lambda: time.pauses == [1.0])
    with recovery._changed:
        dropping = threading.Thread(target=lambda: (pools.clear(), gc.collect()))
        dropping.start()
        dropping.join(20)
        assert not dropping.is_alive()
    time.advance(1.0)
    eventually(lambda: not threads(REBUILD))


@pytest.fixture
def ours_alone(monkeypatch: pytest.MonkeyPatch) -> weakref.WeakSet[DeviceRecovery]:
    """What the end of the interpreter ends."""
    none: weakref.WeakSet[DeviceRecovery] = weakref.WeakSet()
    monkeypatch.setattr(device_recovery, "_all", none)
    return none


@pytest.mark.usefixtures("ours_alone")
def test_the_end_of_the_interpreter_ends_all_threads(time: VirtualTime) -> None:
    (pool,) = several(time, 1.0)
    pool.recovery.notice(pool)
    eventually(lambda: time.pauses == [1.0])
    device_recovery._close_all()
    assert not threads(REBUILD)
    pool.recovery.notice(pool)
    assert not threads(REBUILD)


@pytest.mark.usefixtures("ours_alone")
def test_the_end_of_the_interpreter_waits_once_for_devices_that_hang(
    time: VirtualTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_recovery, "_PATIENCE", 1.0)
    go = threading.Event()
    pools = [pool for _ in range(4) for pool in several(time, 1.0)]
    for pool in pools:
        pool.answers = lambda: go.wait(20)
        pool.recovery.notice(pool)
    eventually(lambda: len(time.pauses) == 4)
    time.advance(1.0)
    eventually(lambda: all(pool.tries for pool in pools))
    began = real_time.monotonic()
    device_recovery._close_all()
    assert 0.9 < real_time.monotonic() - began < 2.5
    go.set()
    eventually(lambda: not threads(REBUILD))


def test_the_end_of_the_interpreter_beside_threads_that_make_indexes(
    ours_alone: weakref.WeakSet[DeviceRecovery],
) -> None:
    made: list[DeviceRecovery] = [DeviceRecovery() for _ in range(500)]
    over = threading.Event()

    def make() -> None:
        while not over.is_set():
            made.append(DeviceRecovery())
            if len(made) > 1000:
                del made[500:]

    making = threading.Thread(target=make)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        making.start()
        for _ in range(30):
            device_recovery._close_all()
    finally:
        over.set()
        making.join()
        sys.setswitchinterval(interval)
    assert len(ours_alone) >= 500


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_a_system_without_threads_is_asked_again(
    time: VirtualTime, pool: Pool, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(10):
            pool.recovery.notice(pool)
    assert not threads(REBUILD)
    pool.recovery.notice(pool)
    eventually(lambda: time.pauses == [1.0])  # what was not tried is not counted
    assert len(threads(REBUILD)) == 1 and pool.recovery.failures == 1
    pool.close()


def test_the_longest_pause_that_can_be_asked_for() -> None:
    """In real time, which test_device_rebuilt_index.py asks of an index."""
    pool = Pool(DeviceRecovery(), threading.TIMEOUT_MAX)
    pool.recovery.notice(pool)
    assert len(threads(REBUILD)) == 1
    threads(REBUILD)[0].join(0.05)
    assert len(threads(REBUILD)) == 1
    pool.close()


def test_a_fork_leaves_the_device_to_its_parent(
    time: VirtualTime, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its driver does not work there, and of its locks one may have been held."""
    parent = os.getpid()
    with pool.recovery._changed, monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: parent + 1)
        done = threading.Thread(target=lambda: (pool.recovery.notice(pool), pool.recovery.close(pool)))
        done.start()
        done.join(20)
        assert not done.is_alive() and pool.recovery.failures == 0
    pool.recovery.notice(pool)
    eventually(lambda: time.pauses == [1.0])
    pool.close()
