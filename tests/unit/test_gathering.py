"""A batch waits a moment for those who were just answered: the decision, under virtual time."""

from __future__ import annotations

import pytest

from unit.test_fair_queue import measured, queue, request
from warpmem.errors import Overloaded


@pytest.mark.parametrize(
    ("slots", "serving", "now", "pause"),
    [
        (2, 1, 1.0, 0.005),
        (2, 1, 1.004, 0.001),
        (2, 1, 1.006, 0.0),
        (1, 0, 1.0, 0.0),  # a device that is idle
        (2, 0, 1.0, 0.0),
        (3, 1, 1.0, 0.0),  # another slot is free
        (3, 2, 1.0, 0.005),
    ],
)
def test_those_who_were_answered_are_waited_for_while_the_others_are_served(
    slots: int, serving: int, now: float, pause: float
) -> None:
    waiting = queue()
    waiting.slots = slots
    waiting.gather(40, 0.1, 1.0)
    assert waiting.pause(serving, now, 1e9) == pytest.approx(pause)


def test_nobody_is_waited_for_who_is_back_already_or_for_long() -> None:
    waiting = queue()
    waiting.slots = 2
    waiting.gather(20, 60.0, 1.0)
    assert waiting.pause(1, 1.0, 1e9) == pytest.approx(0.01)
    for left in (0.01, 0.0):
        waiting.offer(request(), 1.0)
        assert waiting.pause(1, 1.0, 1e9) == pytest.approx(left)


def test_who_is_in_a_hurry_waits_for_nobody() -> None:
    waiting = queue()
    waiting.slots = 2
    waiting.gather(20, 0.1, 1.0)
    assert waiting.pause(1, 1.0, 1.19) == 0.0
    assert waiting.pause(1, 1.0, 1.21) == pytest.approx(0.005)


def test_what_could_be_served_at_once_is_not_refused() -> None:
    waiting = measured()
    waiting.offer(request(tokens=100), 0.0)
    waiting.take(0.0)
    for at_once in (True, False):
        late = request(tokens=100, deadline=0.001)
        if at_once:
            waiting.offer_all([late], 0.0, at_once=True)
            assert waiting.take(0.0).requests == [late]
        else:
            with pytest.raises(Overloaded):
                waiting.offer_all([late], 0.0)
