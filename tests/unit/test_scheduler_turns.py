"""Turns of the scheduler: the device for the caller's own work."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gated_devices import Device, gated, occupy, wait_for
from warpmem.errors import DeadlineExceeded, Overloaded
from warpmem.ops.cancel import Cancellation, current
from warpmem.ops.scheduler import Scheduler


def test_within_a_turn_the_device_is_nobody_elses() -> None:
    device = Device()
    scheduler = Scheduler(device.run)
    order: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        with scheduler.turn("background"):
            future = pool.submit(scheduler.submit, [1], [1])
            wait_for(scheduler, 1)
            order.append("turn")
        assert future.result(10) == [2]
    assert order == ["turn"] and device.batches == [(None, [1])]
    assert scheduler.stats()["served"] == {"interactive": 1, "ingest": 0, "background": 1}


def test_a_turn_waits_behind_all_that_goes_before_its_lane() -> None:
    device, scheduler = gated()
    order: list[str] = []

    def turn() -> None:
        with scheduler.turn("background"):
            order.append("turn")

    def search(n: int) -> None:
        scheduler.submit([n], [1], kind=n)
        order.append("search")

    with ThreadPoolExecutor(8) as pool:
        held = occupy(pool, scheduler)
        last = pool.submit(turn)
        wait_for(scheduler, 1)
        searches = [pool.submit(search, n) for n in range(4)]
        wait_for(scheduler, 5)
        device.open()
        for future in [held, *searches, last]:
            future.result(10)
    assert order == ["search"] * 4 + ["turn"]


def test_what_a_turn_took_says_nothing_of_the_rate() -> None:
    now = [0.0]
    scheduler = Scheduler(Device().run, clock=lambda: now[0])
    rate = scheduler.stats()["rate"]
    with scheduler.turn("background"):
        now[0] += 5.0
    stats = scheduler.stats()
    assert stats["rate"] == rate and stats["turn_seconds"] == 5.0
    assert (stats["busy_seconds"], stats["batches"]) == (0.0, 0), "what costs are the shares of"


def test_a_turn_that_raises_gives_the_device_back() -> None:
    scheduler = Scheduler(Device().run)
    with pytest.raises(KeyError), scheduler.turn("ingest"):
        raise KeyError
    assert scheduler.submit([3], [1]) == [6]


def test_who_gives_up_while_he_waits_for_a_turn_leaves_the_queue() -> None:
    device, scheduler = gated()
    cancellation = Cancellation()

    def wait() -> None:
        current.set(cancellation)
        with scheduler.turn("background"):
            raise AssertionError("it had its turn")

    with ThreadPoolExecutor(4) as pool:
        held = occupy(pool, scheduler)
        waiting = pool.submit(wait)
        wait_for(scheduler, 1)
        cancellation.cancel()
        with pytest.raises(DeadlineExceeded):
            waiting.result(10)
        assert scheduler.stats()["waiting"]["background"] == 0
        device.open()
        held.result(10)
    assert scheduler.submit([3], [1]) == [6]


def test_a_turn_that_is_of_no_use_any_more_is_not_waited_for() -> None:
    device, scheduler = gated()
    with ThreadPoolExecutor(4) as pool:
        held = occupy(pool, scheduler)
        with pytest.raises(DeadlineExceeded), scheduler.turn("background", timeout=0.05):
            raise AssertionError("it had its turn")
        assert scheduler.stats()["waiting"]["background"] == 0
        device.open()
        held.result(10)
    with scheduler.turn("background", timeout=10):
        pass
    assert scheduler.submit([3], [1]) == [6]


def test_no_room_for_a_turn_is_told_at_once() -> None:
    device, scheduler = gated(max_tokens=5)
    with ThreadPoolExecutor(4) as pool:
        held = occupy(pool, scheduler)
        other = pool.submit(scheduler.submit, [1], [5])
        wait_for(scheduler, 1)
        with pytest.raises(Overloaded), scheduler.turn("background"):
            pass
        device.open()
        held.result(10)
        other.result(10)


@pytest.mark.parametrize("parallel", [1, 3])
def test_turns_and_batches_of_many_threads(parallel: int) -> None:
    device = Device(parallel)
    scheduler = Scheduler(device.run, parallel=lambda: parallel)
    inside = [0]
    most = [0]
    lock = threading.Lock()

    def work(thread: int) -> Any:
        for n in range(100):
            if (thread + n) % 3:
                assert scheduler.submit([n], [1 + n % 5], kind=thread % 2, owner=thread) == [2 * n]
            else:
                with scheduler.turn("background", owner=thread):
                    with lock:
                        inside[0] += 1
                        most[0] = max(most[0], inside[0])
                    with lock:
                        inside[0] -= 1

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work, thread) for thread in range(8)]:
            future.result(60)
    assert most[0] <= parallel and scheduler.stats()["waiting"] == dict.fromkeys(
        ("interactive", "ingest", "background"), 0
    )
