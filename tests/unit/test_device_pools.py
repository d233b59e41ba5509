"""One recovery for all pools of a device. The pools are fakes, time is the test's."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time as real_time

import pytest

from recovering_pools import Pool, several
from virtual_time import VirtualTime, eventually, threads
from warpmem.index import device_recovery
from warpmem.index.device_recovery import DeviceRecovery

REBUILD = "warpmem-rebuild"


@pytest.fixture
def time() -> VirtualTime:
    return VirtualTime()


def test_one_thread_tries_a_device_for_all_its_pools(
    time: VirtualTime, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "warpmem")
    pools = several(time, 2.0, 1.0, 3.0, 0.0)
    for pool in pools[:2] + pools[3:]:  # one of them nobody has asked
        pool.recovery.notice(pool)
    eventually(lambda: time.pauses == [1.0])
    assert len(threads(REBUILD)) == 1
    time.advance(1.0)
    eventually(lambda: time.pauses == [1.0, 2.0])  # one device, so one failed try
    assert [pool.tries for pool in pools] == [1, 1, 1, 0]
    for pool in pools:
        pool.answers = lambda: True
    time.advance(2.0)
    eventually(lambda: not threads(REBUILD))
    assert [pool.failed for pool in pools] == [False, False, False, True]
    assert pools[3].rebuild()
    assert (pools[0].recovery.failures, pools[0].recovery.rebuilds) == (1, 1)
    assert [vars(record)["event"] for record in caplog.records] == ["device_failed", "device_rebuilt"]


def test_a_pool_that_alone_fails_is_tried_on(time: VirtualTime) -> None:
    first, second = several(time, 1.0, 1.0)
    first.answers = lambda: True
    for pool in (first, second):
        pool.recovery.notice(pool)
    for n in (1, 2):
        eventually(lambda n=n: len(time.pauses) == n)  # type: ignore[misc]
        time.advance(time.pauses[-1])
    eventually(lambda: time.pauses == [1.0, 2.0, 4.0])
    assert (first.tries, second.tries) == (1, 2) and not first.failed
    first.failed = True  # once more: the device answered meanwhile
    first.recovery.notice(first)
    assert first.recovery.failures == 2 and len(threads(REBUILD)) == 1
    first.close()
    second.close()


def test_closing_one_pool_leaves_the_others_to_be_tried(time: VirtualTime) -> None:
    first, second = several(time, 1.0, 1.0)
    for pool in (first, second):
        pool.recovery.notice(pool)
    eventually(lambda: time.pauses == [1.0])
    first.close()
    time.advance(1.0)
    eventually(lambda: time.pauses == [1.0, 2.0])
    assert (first.tries, second.tries) == (0, 1)
    del first
    gc.collect()
    assert len(threads(REBUILD)) == 1
    second.close()
    assert not threads(REBUILD)


def test_closing_a_pool_does_not_wait_for_a_try_of_another(time: VirtualTime) -> None:
    first, second = several(time, 1.0, 1.0)
    began, go = threading.Event(), threading.Event()

    def hang() -> bool:
        began.set()
        return not go.wait(20)

    second.answers = hang
    for pool in (first, second):
        pool.recovery.notice(pool)
    eventually(lambda: time.pauses == [1.0])
    time.advance(1.0)
    assert began.wait(20)
    since = real_time.monotonic()
    first.close()
    assert real_time.monotonic() - since < 4 and len(threads(REBUILD)) == 1
    go.set()
    second.close()
    assert not threads(REBUILD)


def test_a_pool_made_anew_shows_that_the_device_answers(time: VirtualTime) -> None:
    """As after an erasure, which makes an index anew."""
    (pool,) = several(time, 0.0)
    recovery = pool.recovery
    recovery.notice(pool)

    class Made(Pool):
        def __init__(self, recovery: DeviceRecovery) -> None:
            self.failed, self.recovery, self.pause = False, recovery, 0.0
            recovery.join(self)

    other = Made(recovery)
    assert (recovery.failures, recovery.rebuilds) == (1, 1)
    other.failed = True
    recovery.notice(other)
    assert recovery.failures == 2


def test_a_failure_that_is_found_after_the_device_answered_others_is_the_same(time: VirtualTime) -> None:
    asked, later = several(time, 0.0, 0.0)
    asked.recovery.notice(asked)
    asked.answers = lambda: True
    assert asked.rebuild()
    asked.recovery.notice(later)
    assert (asked.recovery.failures, asked.recovery.rebuilds) == (1, 1)


def test_a_failure_after_those_that_failed_are_gone_is_another(time: VirtualTime) -> None:
    first, second = several(time, 0.0, 0.0)
    recovery = first.recovery
    recovery.notice(first)
    recovery.notice(second)
    assert recovery.failures == 1
    third = Pool(recovery, 0.0)
    del first, second
    gc.collect()
    recovery.notice(third)
    assert recovery.failures == 2


def test_each_device_has_one_and_a_fork_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = device_recovery.recovery_of("cuda:test")
    assert device_recovery.recovery_of("cuda:test") is mine
    assert device_recovery.recovery_of("cuda:other") is not mine
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    assert device_recovery.recovery_of("cuda:test") is not mine
