"""The scheduler's threads: who serves, who waits, who is told what."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gated_devices import Device, gated, occupy, wait_for
from warpmem.errors import DeadlineExceeded, InputError, ModelError, ModelUnavailable, Overloaded
from warpmem.ops.calls import Call
from warpmem.ops.cancel import Cancellation, current
from warpmem.ops.scheduler import Scheduler


def test_an_idle_device_is_used_by_the_callers_own_thread() -> None:
    device = Device()
    scheduler = Scheduler(device.run)
    assert scheduler.submit([21], [1]) == [42]
    assert scheduler.submit([1, 2, 3], [1, 1, 1]) == [2, 4, 6]
    assert device.threads == {threading.get_ident()}
    assert scheduler.stats()["served"] == {"interactive": 4, "ingest": 0, "background": 0}


def test_those_who_come_while_it_is_busy_share_the_next_batch() -> None:
    device, scheduler = gated()
    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(scheduler.submit, [0], [1000])
        while scheduler.stats()["waiting"]["interactive"] == 0 and not device.gate.is_set():
            later = [pool.submit(scheduler.submit, [n], [n], kind="k", owner=n) for n in range(1, 17)]
            wait_for(scheduler, 16)
            device.open()
        assert first.result() == [0]
        assert [future.result() for future in later] == [[2 * n] for n in range(1, 17)]
    assert [kind for kind, _ in device.batches] == [None, "k"]
    assert device.batches[1][1] == sorted(device.batches[1][1]), "by length"


@pytest.mark.parametrize("parallel", [1, 3])
def test_many_threads_all_get_their_own_answers(parallel: int) -> None:
    device = Device(parallel, seconds=0.0005)
    scheduler = Scheduler(device.run, parallel=lambda: parallel, batch_tokens=40)

    def work(thread: int) -> None:
        rng = random.Random(thread)
        for _ in range(60):
            values = [rng.randrange(1000) for _ in range(rng.randrange(1, 8))]
            lane = rng.choice(("interactive", "ingest", "background"))
            found = scheduler.submit(
                values, [1 + v % 9 for v in values], kind=thread % 2, lane=lane, owner=thread
            )
            assert found == [2 * value for value in values]

    with ThreadPoolExecutor(12) as pool:
        for future in [pool.submit(work, thread) for thread in range(12)]:
            future.result(timeout=60)
    stats = scheduler.stats()
    assert sum(stats["served"].values()) == sum(len(works) for _, works in device.batches)
    assert len(device.batches) < sum(stats["served"].values()), "nothing was ever batched"
    assert stats["waiting"] == {"interactive": 0, "ingest": 0, "background": 0}
    assert scheduler._queue.running == scheduler._queue.tokens == scheduler._queue.bytes == 0
    assert scheduler._serving == 0
    assert not scheduler._waiters


def test_who_comes_back_first_waits_a_moment_for_the_others() -> None:
    """While the other slot is busy: until as much waits as was answered, or the moment is over."""
    now, held, batches = 0.0, threading.Event(), []

    def run(kind: Hashable, works: Sequence[Any]) -> list[Any]:
        nonlocal now
        batches.append(list(works))
        if kind == "held":
            assert held.wait(10)
        now += 0.1
        return list(works)

    scheduler = Scheduler(run, parallel=lambda: 2, clock=lambda: now)
    with ThreadPoolExecutor(3) as pool:
        other = pool.submit(scheduler.submit, ["other"], [1], kind="held")
        while not batches:
            time.sleep(0.001)
        scheduler.submit([0], [10])
        first = pool.submit(scheduler.submit, [1], [4])
        wait_for(scheduler, 1)
        second = pool.submit(scheduler.submit, [2], [6])
        assert [first.result(5), second.result(5)] == [[1], [2]]
        alone = pool.submit(scheduler.submit, [3], [4])
        wait_for(scheduler, 1)
        now += 0.1
        assert alone.result(5) == [3]
        held.set()
        assert other.result(5) == ["other"]
    assert batches == [["other"], [0], [1, 2], [3]]


def test_a_free_slot_refuses_nobody_for_what_the_other_does() -> None:
    """One after the other, beside a batch of many tokens: each came when a slot was free."""
    held, begun = threading.Event(), threading.Event()

    def run(kind: Hashable, works: Sequence[Any]) -> list[Any]:
        time.sleep(0.5 if kind == "held" else 0.05)
        if works == ["other"]:
            begun.set()
            assert held.wait(10)
        return list(works)

    scheduler = Scheduler(run, parallel=lambda: 2)
    scheduler.submit([0], [10_000], kind="held")
    scheduler.submit([0], [10])
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(scheduler.submit, ["other"], [10_000], kind="held")
        assert begun.wait(10)
        try:
            for n in range(8):
                assert scheduler.submit([n], [10], timeout=0.2) == [n]
        finally:
            held.set()
        assert other.result(5) == ["other"]


def test_all_slots_of_an_endpoint_are_used() -> None:
    device = Device(parallel=3, seconds=0.05)
    scheduler = Scheduler(device.run, parallel=lambda: 3, batch_tokens=1)
    began = time.monotonic()
    with ThreadPoolExecutor(12) as pool:
        for future in [pool.submit(scheduler.submit, [n], [1]) for n in range(12)]:
            future.result()
    assert time.monotonic() - began < 0.45, "12 batches of 50 ms on 3 slots take 200 ms"
    assert scheduler.submit(list(range(6)), [1] * 6) == [2 * n for n in range(6)]


@pytest.mark.parametrize(("work", "error"), [("refused", InputError), ("indigestible", ModelError)])
def test_what_may_be_one_inputs_fault_is_the_error_of_its_caller_alone(
    work: str, error: type[Exception]
) -> None:
    device, scheduler = gated()
    with ThreadPoolExecutor(8) as pool:
        first = occupy(pool, scheduler)
        others = [pool.submit(scheduler.submit, [n], [1]) for n in (1, 2, 3)]
        wrong = pool.submit(scheduler.submit, [5, work], [1, 1])
        wait_for(scheduler, 5)
        device.open()
        assert first.result() == [0]
        assert [future.result() for future in others] == [[2], [4], [6]]
        with pytest.raises(error, match=work):
            wrong.result()
    assert scheduler.submit([1], [1]) == [2]


def test_a_failing_model_is_everybodys_error_and_each_gets_his_own() -> None:
    device, scheduler = gated()
    with ThreadPoolExecutor(8) as pool:
        first = occupy(pool, scheduler)
        futures = [pool.submit(scheduler.submit, [work], [1]) for work in (1, "broken", 3)]
        wait_for(scheduler, 3)
        device.open()
        first.result()
        errors = [future.exception() for future in futures]
    assert all(isinstance(error, ModelUnavailable) for error in errors)
    assert len({id(error) for error in errors}) == 3
    assert len(device.batches) == 2, "a model that does not answer is not asked for each"
    with pytest.raises(ModelUnavailable):
        scheduler.submit(["broken"], [1])
    assert scheduler._serving == 0


@pytest.mark.parametrize(
    ("work", "message"), [("full", "overloaded: full; try again in 7 s"), ("late", "late")]
)
def test_its_own_error_says_the_same(work: str, message: str) -> None:
    """Overloaded could not be copied, and one object was raised by all threads."""
    device, scheduler = gated()
    with ThreadPoolExecutor(8) as pool:
        first = occupy(pool, scheduler)
        futures = [pool.submit(scheduler.submit, [each], [1]) for each in (1, work, 3)]
        wait_for(scheduler, 3)
        device.open()
        first.result()
        errors = [future.exception() for future in futures]
    assert len({id(error) for error in errors}) == 3
    assert [str(error) for error in errors] == [message] * 3
    assert all(getattr(error, "retry_after", 7.0) == 7.0 for error in errors)


def test_failing_at_once_is_not_taken_for_being_fast() -> None:
    device = Device(seconds=0.01)
    scheduler = Scheduler(device.run)
    scheduler.submit([1], [10])
    rate = scheduler.stats()["rate"]
    device.seconds = 0.0
    for _ in range(5):
        with pytest.raises(ModelUnavailable):
            scheduler.submit(["broken"], [1000])
    assert scheduler.stats()["rate"] == rate


def test_a_deadline_that_passes_while_waiting() -> None:
    device, scheduler = gated()
    with ThreadPoolExecutor(4) as pool:
        first = occupy(pool, scheduler)
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="nothing was changed"):
            scheduler.submit([1], [1], timeout=0.05)
        assert time.monotonic() - began < 5
        assert scheduler.stats()["waiting"]["interactive"] == 0, "it gave its place back"
        device.open()
        first.result()
    assert [works for _, works in device.batches] == [[0]]


def test_no_room_is_told_at_once_and_leaves_nothing() -> None:
    device, scheduler = gated(max_tokens=10)
    with ThreadPoolExecutor(4) as pool:
        first = occupy(pool, scheduler)
        with pytest.raises(Overloaded, match="at most 10 may") as caught:
            scheduler.submit([1, 2, 3], [6, 6, 6])
        assert caught.value.retry_after > 0
        assert scheduler.stats()["waiting"]["interactive"] == 0
        assert scheduler.stats()["refused"] == {"interactive": 1, "ingest": 0, "background": 0}
        device.open()
        first.result()


def test_an_interrupted_waiter_leaves_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    device, scheduler = gated()
    with ThreadPoolExecutor(4) as pool:
        first = occupy(pool, scheduler)

        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(scheduler, "_wait", interrupt)
            with pytest.raises(KeyboardInterrupt):
                scheduler.submit([1, 2], [1, 1])
        assert scheduler.stats()["waiting"]["interactive"] == 0
        device.open()
        first.result()
    assert scheduler.submit([4], [1]) == [8]


def test_who_gives_up_while_waiting_leaves_the_queue() -> None:
    device, scheduler = gated()
    cancellation = Cancellation()

    def give_up_later() -> list[Any]:
        current.set(cancellation)
        return scheduler.submit([1, 2], [1, 1])

    with ThreadPoolExecutor(4) as pool:
        first = occupy(pool, scheduler)
        waiting = pool.submit(give_up_later)
        wait_for(scheduler, 2)
        cancellation.cancel()
        with pytest.raises(DeadlineExceeded, match="gave up"):
            waiting.result(timeout=10)
        assert (scheduler.stats()["waiting"]["interactive"], sum(scheduler.stats()["dropped"].values())) == (
            0,
            2,
        )
        with pytest.raises(DeadlineExceeded, match="gave up"):
            pool.submit(give_up_later).result(timeout=10)
        device.open()
        first.result()
    assert [works for _, works in device.batches] == [[0]]


def test_an_answer_that_comes_with_the_deadline_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Late is who has no answer, not who slept until the end."""
    device, scheduler = gated()
    sleep = Call.sleep

    def too_long(call: Call, timeout: float) -> bool:
        return sleep(call, timeout) and not call.over

    with ThreadPoolExecutor(5) as pool:
        first = occupy(pool, scheduler, 1000)
        monkeypatch.setattr(Call, "sleep", too_long)
        served = pool.submit(scheduler.submit, [1, 2], [1, 1], kind="k", timeout=30.0)
        wait_for(scheduler, 2)
        later = pool.submit(scheduler.submit, [3], [1], kind="k", timeout=30.0)
        wait_for(scheduler, 3)
        device.open()
        assert sorted([first.result(10), served.result(10), later.result(10)]) == [[0], [2, 4], [6]]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nobody_is_left_waiting_whoever_gives_up_fails_or_comes_late(seed: int) -> None:
    """Everything that can happen to a request at once, with a number of slots that changes meanwhile."""
    slots = 2
    allowed = threading.Semaphore(6)

    def run(kind: Hashable, works: Sequence[Any]) -> list[Any]:
        assert allowed.acquire(blocking=False)
        try:
            time.sleep(0.0005 * len(works))
            if -1 in works:
                raise InputError("refused")
            if -2 in works:
                raise ModelUnavailable("broken")
            return [2 * work for work in works]
        finally:
            allowed.release()

    scheduler = Scheduler(run, parallel=lambda: slots, batch_tokens=30, max_tokens=300)
    ends: list[str] = []

    def work(thread: int) -> None:
        rng = random.Random(seed * 1000 + thread)
        for _ in range(40):
            values = [rng.choice((-1, -2, *range(40))) for _ in range(rng.choice((1, 1, 1, 5)))]
            cancellation = Cancellation()
            current.set(cancellation)
            timer = threading.Timer(rng.random() * 0.02, cancellation.cancel)
            if rng.random() < 0.2:
                timer.start()
            try:
                found = scheduler.submit(
                    values, [rng.randrange(1, 9) for _ in values], kind=rng.randrange(2), owner=thread % 5,
                    lane=rng.choice(("interactive", "ingest", "background")),
                    timeout=rng.choice((None, None, 0.001, 0.02)),
                )  # fmt: skip
                assert found == [2 * value for value in values]
                ends.append("served")
            except (InputError, ModelUnavailable, DeadlineExceeded, Overloaded) as error:
                ends.append(type(error).__name__)
            finally:
                timer.cancel()

    with ThreadPoolExecutor(24) as pool:
        futures = [pool.submit(work, thread) for thread in range(24)]
        rng = random.Random(seed)
        while not all(future.done() for future in futures):
            slots = rng.randrange(1, 7)
            time.sleep(0.002)
        for future in futures:
            future.result(timeout=60)
    assert len(ends) == 24 * 40
    assert {"served", "InputError", "ModelUnavailable", "DeadlineExceeded"} <= set(ends)
    assert (scheduler._serving, len(scheduler._waiters)) == (0, 0)
    queue = scheduler._queue
    assert (queue.running, queue.tokens, queue.bytes, len(queue)) == (0, 0, 0, 0)
    assert scheduler.submit([4], [1]) == [8]
