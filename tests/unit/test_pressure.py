"""What a search leaves out, decided in virtual time."""

from __future__ import annotations

import random

import pytest

from warpmem.errors import Overloaded
from warpmem.ops.fair_queue import FairQueue, Request
from warpmem.ops.pressure import Pace, time_before, too_late

CAPACITY = 10_000.0
DEADLINE = 0.5
WORDS = 0.02
"""Seconds of the search by words, which does not wait for anything."""


def paced(*seconds: float) -> Pace:
    pace = Pace()
    for each in seconds:
        pace.seen(each)
    return pace


def test_what_is_expected_is_seldom_exceeded() -> None:
    rng = random.Random(1)
    pace = paced(5.0)  # it loaded what the others find
    assert pace.expected == 0.0
    over = 0
    for n in range(2000):
        took = rng.uniform(0.01, 0.03)
        over += n > 10 and took > pace.expected
        pace.seen(took)
    assert over <= 0.01 * 2000, over
    assert 0.03 < pace.expected < 0.06


def test_what_was_left_out_is_tried_again() -> None:
    pace = paced(*[1.0] * 20)
    assert not too_late(None, pace)
    left_out = 0
    while too_late(0.1, pace):
        pace.left_out()
        left_out += 1
    assert 5 <= left_out <= 20


def test_time_is_kept_for_what_takes_the_embedders_place() -> None:
    pace = paced(*[0.2] * 50)
    assert time_before(1.0, Pace()) == pytest.approx(0.8)
    assert time_before(1.0, pace) == pytest.approx(0.8, abs=0.01)
    assert time_before(0.1, pace) == pytest.approx(0.05), "and half of it is always the embedder's"


def simulate(load: float, seed: int) -> tuple[int, int, int]:
    """Searches of many owners for 30 virtual seconds; how many were answered in time with both halves, in
    time by words alone, and too late. A search that is refused, or dropped, goes on by words at once."""
    rng = random.Random(seed)
    waiting = FairQueue(1_000, 10**6, 10**9, CAPACITY)
    pace = paced(*[WORDS] * 50)
    allowed = time_before(DEADLINE, pace)
    assert allowed is not None
    whole = words = late = 0
    now = next_ask = free = 0.0
    running: list[Request] = []
    while now < 30 or running or len(waiting):
        if now >= 30 and not running and not len(waiting):
            break
        now = min(next_ask if now < 30 else float("inf"), free if running else float("inf"))
        if running and now == free:
            waiting.done(sum(r.tokens for r in running), sum(r.tokens for r in running) / CAPACITY)
            for r in running:
                asked = r.deadline - allowed
                if now > r.deadline:  # the call gave up there, and words took over
                    words += 1
                    late += r.deadline + WORDS > asked + DEADLINE
                else:
                    whole += 1
                    late += now + WORDS > asked + DEADLINE
            running = []
        if now == next_ask and now < 30:
            next_ask = now + rng.expovariate(load * CAPACITY / 60)
            one = Request(
                None, lane=0, owner=rng.randrange(10), tokens=60, bytes=1, deadline=now + allowed, kind=None
            )
            try:
                waiting.offer(one, now)
            except Overloaded:
                words += 1
        if not running and len(waiting):
            taken = waiting.take(now)
            words += len(taken.dropped)
            late += sum(min(now, r.deadline) + WORDS > r.deadline - allowed + DEADLINE for r in taken.dropped)
            running, free = taken.requests, now + sum(r.tokens for r in taken.requests) / CAPACITY
    return whole, words, late


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("load", "least", "most"), [(0.8, 0.0, 0.01), (2.0, 0.4, 0.6), (10.0, 0.85, 0.95)])
def test_under_any_load_a_search_by_both_is_answered_in_time(
    load: float, least: float, most: float, seed: int
) -> None:
    whole, words, late = simulate(load, seed)
    asked = whole + words
    assert late == 0
    assert least <= words / asked <= most, (whole, words)
