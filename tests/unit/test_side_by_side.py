"""Groups that are worked on at a time."""

from __future__ import annotations

import contextvars
import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator

import pytest

from warpmem.errors import DeadlineExceeded
from warpmem.memory.side_by_side import SideBySide
from warpmem.ops.cancel import Cancellation, current


def groups(*keys: str) -> Iterator[tuple[str, str]]:
    return ((key, f"{key}{n}") for n, key in enumerate(keys))


def test_as_many_as_wanted_are_under_way_at_a_time() -> None:
    together = threading.Barrier(4, timeout=20)

    def work(group: str) -> str:
        together.wait()
        return group

    ended = SideBySide(work, 4).run(lambda: groups(*"abcdefgh"))
    assert sorted(future.result() for future in ended) == sorted(group for _, group in groups(*"abcdefgh"))


@pytest.mark.parametrize("most", [1, 2, 5, 64])
def test_groups_of_one_key_follow_one_another(most: int) -> None:
    pick = random.Random(most)
    keys = [pick.choice("abcde") for _ in range(100)]
    lock = threading.Lock()
    inside: dict[str, int] = defaultdict(int)
    order: dict[str, list[int]] = defaultdict(list)
    at_once = 0

    def work(group: str) -> str:
        nonlocal at_once
        key, number = group[0], int(group[1:])
        with lock:
            inside[key] += 1
            assert inside[key] == 1
            at_once = max(at_once, sum(inside.values()))
            order[key].append(number)
        time.sleep(pick.random() / 500)
        with lock:
            inside[key] -= 1
        return group

    assert len([future.result() for future in SideBySide(work, most).run(lambda: groups(*keys))]) == 100
    assert all(numbers == sorted(numbers) for numbers in order.values())
    assert at_once <= min(most, 5) and (at_once > 1) == (most > 1)


def test_with_one_at_a_time_the_caller_s_thread_does_it() -> None:
    ended = SideBySide(lambda group: threading.get_ident(), 1).run(lambda: groups(*"ab"))
    assert {future.result() for future in ended} == {threading.get_ident()}


def test_a_failure_is_that_of_its_group() -> None:
    def work(group: str) -> str:
        if group[0] == "b":
            raise KeyError(group)
        return group

    for most in (1, 3):
        outcomes = list(SideBySide(work, most).run(lambda: groups(*"abab")))
        failed = [future for future in outcomes if future.exception() is not None]
        assert len(outcomes) == 4 and len(failed) == 2
        with pytest.raises(KeyError):
            failed[0].result()


def test_who_closes_it_waits_for_what_is_under_way_and_nothing_begins() -> None:
    begun: list[str] = []
    finished: list[str] = []
    go_on = threading.Event()

    def work(group: str) -> str:
        begun.append(group)
        if group != "a0":
            assert go_on.wait(20)
        finished.append(group)
        return group

    ended = SideBySide(work, 3).run(lambda: groups(*"abcdef"))
    assert next(ended).result() == "a0"
    threading.Timer(0.2, go_on.set).start()
    ended.close()
    assert sorted(begun) == sorted(finished) == ["a0", "b1", "c2"]


def test_the_caller_s_context_holds_there_and_cancelling_him_cancels_what_waits() -> None:
    told = contextvars.ContextVar("told", default="nothing")
    told.set("a word")
    waiting = threading.Barrier(3, timeout=20)

    def work(group: str) -> str:
        own = current.get()
        assert own is not None and own is not mine
        woken = threading.Event()
        with own.waking(woken.set):
            waiting.wait()
            assert woken.wait(20)
        own.check()
        return told.get()

    mine = Cancellation()
    token = current.set(mine)
    try:
        threading.Thread(target=lambda: (waiting.wait(), mine.cancel())).start()
        outcomes = list(SideBySide(work, 2).run(lambda: groups(*"ab")))
    finally:
        current.reset(token)
    assert [type(future.exception()) for future in outcomes] == [DeadlineExceeded] * 2
    seen = SideBySide(lambda group: told.get(), 2).run(lambda: groups(*"ab"))
    assert {future.result() for future in seen} == {"a word"}


def test_without_more_threads_the_caller_s_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    ended = SideBySide(lambda group: group, 2).run(lambda: groups(*"abc"))
    assert [future.result() for future in ended] == ["a0", "b1", "c2"]


def test_what_comes_meanwhile_begins_beside_a_slow_one_and_beside_one_of_its_key() -> None:
    """a1 waits for a0, which waits until c3, told of later, has ended."""
    batches = iter([["a0", "a1", "b2"], ["c3"], []])
    go_on = threading.Event()
    order: list[str] = []

    def come() -> Iterator[tuple[str, str]]:
        return ((group[0], group) for group in next(batches))

    def work(group: str) -> str:
        if group == "a0":
            assert go_on.wait(20)
        order.append(group)
        if group == "b2":
            side.look_again()
        if group == "c3":
            go_on.set()
        return group

    side = SideBySide(work, 3)
    assert sorted(future.result() for future in side.run(come)) == ["a0", "a1", "b2", "c3"]
    assert order == ["b2", "c3", "a0", "a1"]


def test_being_told_often_looks_once() -> None:
    looked = 0

    def come() -> Iterator[tuple[str, str]]:
        nonlocal looked
        looked += 1
        return groups("a") if looked == 1 else groups()

    side = SideBySide(lambda group: group, 2)
    for _ in range(1000):
        side.look_again()
    assert [future.result() for future in side.run(come)] == ["a0"]
    assert looked == 2


def test_who_is_interrupted_while_he_waits_leaves_what_is_under_way_to_itself() -> None:
    go_on = threading.Event()
    ended: list[str] = []

    def work(group: str) -> None:
        cancelled = threading.Event()
        own = current.get()
        assert own is not None
        with own.waking(cancelled.set):
            assert go_on.wait(20) and cancelled.wait(20)
        ended.append(group)

    side = SideBySide(work, 2)

    def interrupt() -> Iterator[tuple[str, str]]:
        yield "a", "a0"
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(side.run(interrupt))
    assert time.monotonic() - began < 10
    go_on.set()
    while not ended:
        assert time.monotonic() - began < 20
        time.sleep(0.001)


def test_a_thread_that_an_interrupt_kept_from_beginning_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(self: threading.Thread) -> None:
        raise MemoryError

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(MemoryError):
        list(SideBySide(lambda group: group, 2).run(lambda: groups(*"ab")))
