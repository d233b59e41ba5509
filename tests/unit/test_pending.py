"""The thread that works off what a store has left to be done, with tasks of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from warpmem.errors import DeadlineExceeded, ModelUnavailable, Overloaded, StoreClosed
from warpmem.memory.pending import Runner
from warpmem.ops.cancel import current


class Queue:
    """A task over a number; `errors` are raised first, one a run."""

    def __init__(self, left: int = 0, errors: list[Exception] | None = None) -> None:
        self.left = left
        self.errors = errors or []
        self.refused = 0
        self.runs: list[bool] = []
        self.busy = threading.Lock()

    def run(self, again: bool) -> Iterator[int]:
        assert self.busy.acquire(blocking=False), "two at a time"
        try:
            self.runs.append(again)
            if again:
                self.left += self.refused
                self.refused = 0
            while self.left:
                if self.errors:
                    raise self.errors.pop(0)
                self.left -= 1
                yield 1
        finally:
            self.busy.release()


def runner(*tasks: Queue, background: bool = True) -> Runner:
    return Runner(tasks, in_background=background, pause=0.001)


def test_it_begins_when_woken_and_ends_when_nothing_is_left() -> None:
    first, second = Queue(3), Queue(2)
    made = runner(first, second)
    assert made.wait(0) and not first.runs
    made.wake()
    assert made.wait(10) and first.left == second.left == 0
    first.left = 1
    made.wake()
    assert made.wait(10) and first.left == 0


def test_without_a_thread_only_who_asks_does_it() -> None:
    queue = Queue(3)
    made = runner(queue, background=False)
    made.wake()
    assert made.wait(0) and queue.left == 3
    assert made.run(queue) == 3 and made.run(queue) == 0


def test_what_was_refused_is_tried_once_by_who_asks() -> None:
    queue = Queue(2)
    queue.refused = 1
    made = runner(queue, background=False)
    assert made.run(queue) == 3
    assert queue.runs == [True, False]


@pytest.mark.parametrize(
    "error", [ModelUnavailable("down"), Overloaded("much", 0.001), RuntimeError("a driver")], ids=repr
)
def test_it_goes_on_after_failures(error: Exception) -> None:
    queue = Queue(2, [error, error, error])
    made = runner(queue)
    made.wake()
    assert made.wait(10) and queue.left == 0 and made.failure is None and len(queue.runs) == 4


def test_who_asks_is_told_of_the_failure() -> None:
    queue = Queue(2, [ModelUnavailable("down")])
    made = runner(queue, background=False)
    with pytest.raises(ModelUnavailable):
        made.run(queue)
    assert made.run(queue) == 2


def test_pauses_grow_to_a_minute_and_a_server_may_ask_for_longer() -> None:
    made = Runner([], in_background=False, pause=1.0)
    for failures, least in ((1, 1.0), (2, 2.0), (4, 8.0), (7, 60.0), (1000, 60.0)):
        assert least <= made._pause_after(ModelUnavailable("down"), failures) <= 1.25 * least
    assert 20.0 <= made._pause_after(Overloaded("much", 20.0), 1) <= 25.0
    assert made._pause_after(Overloaded("much", 1e9), 1) <= 75.0


def test_stopping_ends_a_pause_at_once() -> None:
    queue = Queue(1, [Overloaded("much", 3600.0)])
    made = Runner([queue], in_background=True)
    made.wake()
    while made.failure is None:
        time.sleep(0.001)
    began = time.monotonic()
    made.stop()
    assert made.wait(10) and time.monotonic() - began < 5 and queue.left == 1
    made.wake()
    assert made.wait(0) and len(queue.runs) == 1


def test_stopping_ends_a_run_after_its_batch_and_wakes_who_waits_for_a_model() -> None:
    class Waits(Queue):
        def run(self, again: bool) -> Iterator[int]:
            cancellation = current.get()
            assert cancellation is not None
            woken = threading.Event()
            with cancellation.waking(woken.set):
                waits.set()
                assert woken.wait(10)
            cancellation.check()
            yield from super().run(again)

    waits = threading.Event()
    queue = Waits(1)
    made = runner(queue)
    made.wake()
    assert waits.wait(10)
    made.stop()
    assert made.wait(10) and queue.left == 1


def test_it_ends_with_its_store() -> None:
    queue = Queue(1, [StoreClosed("closed")])
    made = runner(queue)
    made.wake()
    assert made.wait(10) and queue.left == 1


def test_stopping_in_its_own_thread_does_not_wait_for_itself() -> None:
    class Stops(Queue):
        def run(self, again: bool) -> Iterator[int]:
            made.stop()
            yield from super().run(again)

    queue = Stops(1)
    made = runner(queue)
    made.wake()
    assert made.wait(10)


def test_many_who_wake_it_and_ask_lose_nothing() -> None:
    queue = Queue()
    lock = threading.Lock()
    made = runner(queue)

    def add() -> None:
        for n in range(200):
            with lock:
                queue.left += 1
            made.wake()
            if n % 50 == 0:
                made.run(queue)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made.wait(20) and queue.left == 0


def test_a_cancelled_run_is_no_failure_of_the_model() -> None:
    queue = Queue(1, [DeadlineExceeded("given up")])
    made = runner(queue)
    made.stop()
    made.wake()
    assert made.wait(0) and made.failure is None
