"""Decisions about an endpoint: how many requests, which of them again, and when none. Under virtual time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from warpmem.errors import DeadlineExceeded, ModelError, ModelUnavailable, Overloaded
from warpmem.ops.guard import Guard, guard_of


class Virtual:
    """A guard whose clock and sleep are this object's, and what it asked for."""

    def __init__(self, parallel: int = 16) -> None:
        self.now = 0.0
        self.asked = 0
        self.guard = Guard(parallel, clock=lambda: self.now, sleep=self.pass_)

    def pass_(self, seconds: float) -> None:
        self.now += seconds

    def run(self, outcome: Any = "fine", seconds: float = 0.01, timeout: float | None = None) -> Any:
        def ask(left: float | None) -> Any:
            self.asked += 1
            self.now += seconds
            found = outcome() if callable(outcome) else outcome
            if isinstance(found, Exception):
                raise found
            return found

        return self.guard.run(ask, "host:1", 1, timeout)

    def fail(self, error: Exception, times: int = 1, seconds: float = 0.01) -> None:
        for _ in range(times):
            with pytest.raises(type(error)):
                self.run(error, seconds)


DOWN = ModelUnavailable("down")
FULL = Overloaded("answered 429", 0.5)


def together(virtual: Virtual, count: int, outcome: Callable[[], Any], seconds: float = 0.01) -> None:
    """So many requests that are under way at the same time."""

    def ask(left: float | None) -> Any:
        if virtual.guard._inside < count:
            together_one()
        else:
            virtual.now += seconds
        found = outcome()
        if isinstance(found, Exception):
            raise found
        return found

    def together_one() -> None:
        with contextlib.suppress(Overloaded):
            virtual.guard.run(ask, "host:1", 1, None)

    together_one()


def test_more_at_a_time_while_all_goes_well_and_half_when_it_is_too_much() -> None:
    virtual = Virtual(8)
    assert virtual.guard.limit == 4
    for _ in range(40):
        together(virtual, virtual.guard.limit, lambda: "fine")
    assert virtual.guard.limit == 8, "as many as it may"
    full = Overloaded("answered 429", 7.0)
    together(virtual, 8, lambda: full)
    assert virtual.guard.limit == 4, "what was refused together counts once"
    for count in (4, 2, 1):
        virtual.now += 7.0
        together(virtual, count, lambda: full)
    assert virtual.guard.limit == 1
    virtual.now += 7.0
    together(virtual, 1, lambda: "fine")
    assert virtual.guard.limit == 2


def test_an_idle_endpoint_proves_nothing() -> None:
    virtual = Virtual()
    for _ in range(100):
        virtual.run()
    assert virtual.guard.limit == 4


def test_fewer_at_a_time_when_answers_take_long_for_their_size() -> None:
    virtual = Virtual()
    for _ in range(5):
        together(virtual, 4, lambda: "fine", 0.1)
    before = virtual.guard.limit
    for _ in range(10):
        together(virtual, virtual.guard.limit, lambda: "fine", 0.5)
    assert virtual.guard.limit < before
    small = Virtual()
    for _ in range(10):
        together(small, small.guard.limit, lambda: "fine", 0.001)
        together(small, small.guard.limit, lambda: "fine", 0.01)
    assert small.guard.limit > 4, "some milliseconds are noise"


def test_one_request_in_ten_is_made_again() -> None:
    virtual = Virtual()
    refused = 0
    for n in range(1000):
        outcomes = iter([DOWN, "fine"]) if n % 3 == 0 else iter(["fine"])
        try:
            virtual.run(lambda outcomes=outcomes: next(outcomes))
        except ModelUnavailable:
            refused += 1
    assert 95 <= virtual.asked - 1000 <= 100
    assert refused == 334 - (virtual.asked - 1000)


def test_again_after_the_pause_that_the_server_wants_and_not_past_the_deadline() -> None:
    virtual = Virtual()
    for _ in range(20):
        virtual.run()
    outcomes = iter([FULL, "fine"])
    began = virtual.now
    assert virtual.run(lambda: next(outcomes)) == "fine"
    assert virtual.now - began == pytest.approx(0.52)
    asked = virtual.asked
    with pytest.raises(Overloaded):
        virtual.run(FULL, timeout=0.4)
    virtual.now += 0.5
    with pytest.raises(Overloaded):
        virtual.run(Overloaded("answered 429", 7.0))
    virtual.now += 7.0
    with pytest.raises(DeadlineExceeded):
        virtual.run(DeadlineExceeded("late"))
    assert virtual.asked == asked + 3
    with pytest.raises(ModelError):
        virtual.run(ModelError("refused with 400"))
    assert virtual.asked == asked + 4, "what is refused is refused again"


def test_after_failures_in_a_row_it_is_not_asked_until_one_request_finds_it_well() -> None:
    virtual = Virtual()
    virtual.fail(DOWN, 4)
    virtual.run()
    virtual.fail(DOWN, 5)
    asked = virtual.asked
    for _ in range(3):
        with pytest.raises(Overloaded, match="host:1 failed 5 times in a row and is not asked") as caught:
            virtual.run()
        assert 0.5 < caught.value.retry_after <= 1.0
    assert virtual.asked == asked
    virtual.now += 1.0
    virtual.fail(DOWN)
    assert virtual.asked == asked + 1
    with pytest.raises(Overloaded) as caught:
        virtual.run()
    assert 1.5 < caught.value.retry_after <= 2.0, "twice as long"
    virtual.now += 2.0

    def while_it_is_looked_at() -> Any:
        with pytest.raises(Overloaded):
            virtual.guard.run(lambda left: "second", "host:1", 1, None)
        return "fine"

    assert virtual.run(while_it_is_looked_at) == "fine"
    assert not virtual.guard.is_open
    virtual.fail(DOWN, 3)
    assert virtual.run() == "fine"


@pytest.mark.parametrize(("wanted", "refused"), [(0.5, 0.5), (7.0, 7.0), (86_400.0, 30.0)])
def test_as_long_as_it_wants_to_be_left_alone_nobody_asks(wanted: float, refused: float) -> None:
    """Each request was sent to hear the same again."""
    virtual = Virtual()
    virtual.fail(Overloaded("answered 503", wanted))
    for _ in range(200):
        with pytest.raises(Overloaded, match="host:1 wants to be left alone") as caught:
            virtual.run()
    assert caught.value.retry_after == pytest.approx(refused)
    assert virtual.asked == 1
    virtual.now += refused
    assert virtual.run() == "fine"


def test_what_it_refuses_of_many_for_a_moment_keeps_no_other_away() -> None:
    virtual = Virtual()
    together(virtual, 4, lambda: Overloaded("answered 429", 1.0))
    virtual.fail(Overloaded("answered 429", 1.0))
    assert virtual.asked == 1, "fewer at a time is all that they say"
    with pytest.raises(Overloaded, match="left alone"):
        virtual.run()


def test_it_is_never_left_alone_for_longer_than_half_a_minute() -> None:
    virtual = Virtual()
    virtual.fail(DOWN, 5)
    for _ in range(20):
        virtual.now += 30.0
        virtual.fail(DOWN)
    assert 29 < virtual.guard._open_until - virtual.now <= 30


def test_failures_that_were_under_way_together_do_not_keep_it_away_for_longer() -> None:
    virtual = Virtual()

    def ask(left: float | None) -> Any:
        if virtual.guard._inside < 12:
            with pytest.raises(ModelUnavailable):
                virtual.guard.run(ask, "host:1", 1, None)
        raise DOWN

    with pytest.raises(ModelUnavailable):
        virtual.guard.run(ask, "host:1", 1, None)
    assert virtual.guard._open_until - virtual.now <= 1.0


def test_a_deadline_that_is_too_short_for_it_is_no_failure() -> None:
    virtual = Virtual()
    virtual.run(seconds=0.2)
    virtual.fail(DeadlineExceeded("late"), 20, seconds=0.25)
    assert not virtual.guard.is_open
    virtual.fail(DeadlineExceeded("late"), 5, seconds=2.0)
    assert virtual.guard.is_open, "one that answers nothing is one that failed"


def test_an_interrupted_request_leaves_nothing_behind() -> None:
    virtual = Virtual()
    virtual.fail(DOWN, 5)
    virtual.now += 1.0

    def interrupt() -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        virtual.run(interrupt)
    assert virtual.guard._inside == 0
    assert virtual.run() == "fine", "the next one looks instead"


def test_a_request_that_it_refuses_finds_it_well() -> None:
    """A text too long for it, asked when it was back, kept everybody away for as long as before."""
    virtual = Virtual()
    virtual.fail(DOWN, 5)
    virtual.now += 1.0
    virtual.fail(ModelError("refused with 413"))
    assert not virtual.guard.is_open
    virtual.fail(DOWN, 5)
    assert virtual.guard._open_until - virtual.now == pytest.approx(1.0), "not twice as long"


def test_one_guard_for_all_who_ask_a_place() -> None:
    one = guard_of("place", 8)
    assert guard_of("place", 3) is one
    assert one.limit == 3
    assert guard_of("elsewhere", 3) is not one
