"""Faults that were found once in the scheduler's threads; each test fails without its fix."""

from __future__ import annotations

import gc
import threading
import time
import traceback
import weakref
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gated_devices import gated, occupy, wait_for
from warpmem.errors import DeadlineExceeded, InputError, ModelError
from warpmem.ops.scheduler import Scheduler


def test_who_is_dropped_at_its_turn_leaves_at_once_and_serves_nobody() -> None:
    """Its thread took the next batch with its own refusal, and returned when that batch was done."""
    now = 0.0
    asked: list[int] = []

    def clock() -> float:
        seen = now
        asked.append(threading.get_ident())
        return seen

    def submit_with_a_deadline() -> list[Any]:
        threads.append(threading.get_ident())
        return scheduler.submit([1], [1], kind="a", timeout=5.0)

    threads: list[int] = []
    device, scheduler = gated(clock=clock)
    with ThreadPoolExecutor(4) as pool:
        first = occupy(pool, scheduler)
        late = pool.submit(submit_with_a_deadline)
        while not threads or asked.count(threads[0]) < 3:  # then it knows for how long to sleep
            time.sleep(0.001)
        other = pool.submit(scheduler.submit, [2], [1], kind="b")
        wait_for(scheduler, 2)
        now = 6.0
        device.gate, slow = threading.Event(), device.gate
        assert slow is not None
        slow.set()
        with pytest.raises(DeadlineExceeded, match="its turn came too late"):
            late.result(timeout=5)
        assert not other.done()
        device.open()
        assert (first.result(), other.result()) == ([0], [4])
    assert scheduler.stats()["dropped"]["interactive"] == 1


def test_a_thread_serves_only_batches_with_a_request_of_its_own() -> None:
    """With two slots one who was answered came back when somebody else's batch was done: it had been woken
    for that while its own request was in other hands, or had taken it when its lane's turn came."""
    gates = {name: threading.Event() for name in ("first", "second", "background", "wanted")}
    servers: dict[Hashable, str] = {}

    def run(kind: Hashable, works: Sequence[Any]) -> list[Any]:
        servers[kind] = threading.current_thread().name
        assert gates[str(kind)].wait(10)
        return list(works)

    scheduler = Scheduler(run, parallel=lambda: 2)

    def submit(name: str, lane: str) -> list[Any]:
        threading.current_thread().name = name
        return scheduler.submit([name], [10], kind=name, lane=lane)

    with ThreadPoolExecutor(4) as pool:
        held = [pool.submit(submit, name, "interactive") for name in ("first", "second")]
        while scheduler._serving < 2:
            time.sleep(0.001)
        wanted = pool.submit(submit, "wanted", "interactive")
        wait_for(scheduler, 1)
        behind = pool.submit(submit, "background", "background")
        wait_for(scheduler, 2)
        scheduler._queue._lanes[2].credit = 1e9  # its floor is due
        gates["first"].set()
        held[0].result(timeout=5)
        while "background" not in servers:
            time.sleep(0.001)
        gates["wanted"].set()
        gates["second"].set()
        assert wanted.result(timeout=5) == ["wanted"]
        assert not behind.done()
        gates["background"].set()
        assert behind.result(timeout=5) == ["background"]
    assert {kind: name for kind, name in servers.items() if kind != name} == {}


def test_an_interrupt_of_the_serving_thread_is_its_own() -> None:
    """Everybody in the batch was told that a deadline had passed, though some had none."""
    device, scheduler = gated()
    interrupted: list[list[Any]] = []
    plain = device.run

    def run(kind: Hashable, works: Sequence[Any]) -> list[Any]:
        if works != [0] and not interrupted:
            interrupted.append(list(works))
            raise KeyboardInterrupt
        return plain(kind, works)

    scheduler._run = run
    with ThreadPoolExecutor(8) as pool:
        first = occupy(pool, scheduler)
        futures = [pool.submit(scheduler.submit, [n], [1]) for n in range(1, 6)]
        wait_for(scheduler, 5)
        device.open()
        first.result()
        errors = [future.exception(timeout=5) for future in futures]
        found = [future.result() for future, error in zip(futures, errors, strict=True) if error is None]
    assert len(interrupted[0]) > 1, "it was alone"
    assert [type(error) for error in errors if error is not None] == [KeyboardInterrupt]
    assert len(found) == 4
    assert all(works[0] in (2, 4, 6, 8, 10) for works in found)
    assert (scheduler._serving, scheduler._queue.running, len(scheduler._queue)) == (0, 0, 0)


class Text(str):
    """A string that can be asked whether it is still there."""


def variables(error: BaseException | None) -> str:
    """Those of all frames that an exception and what it comes from lead to."""
    found = ""
    while error is not None:
        found += "".join(repr(frame.f_locals) for frame, _ in traceback.walk_tb(error.__traceback__))
        error = error.__cause__ or error.__context__
    return found


@pytest.mark.parametrize("work", ["broken", "refused"])
def test_an_error_leads_to_no_text_of_another_and_keeps_none(work: str) -> None:
    """Its traceback had the frames of the batch with everybody's texts, and its call kept it in a circle."""
    device, scheduler = gated()
    texts = [Text("one owner's"), Text("another's"), Text(work)]
    gone = [weakref.ref(text) for text in texts]
    gc.disable()
    try:
        with ThreadPoolExecutor(4) as pool:
            first = occupy(pool, scheduler)
            futures = [pool.submit(scheduler.submit, [text], [1]) for text in texts]
            wait_for(scheduler, 3)
            device.open()
            first.result()
            errors = [future.exception() for future in futures]
        assert isinstance(errors[2], ModelError | InputError)
        for place, error in enumerate(errors):
            told = variables(error)
            assert not [text for other, text in enumerate(texts) if other != place and text in told]
        device.batches.clear()
        del futures, errors, error, texts
        assert [reference() for reference in gone] == [None] * 3
    finally:
        gc.enable()
