"""Consolidation of months with more events than are held at a time."""

from __future__ import annotations

import gc
from datetime import timedelta
from typing import Any

import pytest

from jobs_lives import NOW, START, live, opened
from warpmem import NewItem
from warpmem.config import Consolidation
from warpmem.jobs import consolidate
from warpmem.jobs.tools import Turn
from warpmem.ops.clock import FixedClock
from warpmem.records import Record


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


def test_a_large_month_is_cut_within_its_scopes(clock: FixedClock, monkeypatch: Any) -> None:
    """It was cut by time alone: of a small scope that lay across the cut both halves could be too few."""
    monkeypatch.setattr(consolidate, "_LONGEST_STEP", 6)
    with opened(None, clock, consolidation=Consolidation(min_events=4)) as memory:
        for n in range(28):  # of the small scopes 5 each, in turn
            run, at = (
                ("r1", "r2", "large", "large", "large")[n % 5] if n < 25 else "large",
                timedelta(hours=n),
            )
            memory.add(f"{run} {n}", user_id="ann", run_id=run, kind="event", valid_from=START + at)
        assert memory.run_jobs(["consolidate"])[0].done["events"] == 28
        told = {}
        for item in live(memory):
            assert (
                item.kind == "summary" and item.text.count(f"{item.scope.run_id} ") == len(item.sources) <= 6
            )
            told[item.scope.run_id] = told.get(item.scope.run_id, 0) + len(item.sources)
        assert told == {"r1": 5, "r2": 5, "large": 18}


def test_of_a_large_month_a_bounded_number_of_events_is_held(clock: FixedClock, monkeypatch: Any) -> None:
    """All events of a month were, however many scopes they were of."""
    monkeypatch.setattr(consolidate, "_LONGEST_STEP", 64)
    held, run = [], consolidate._Exchange.run

    def records() -> int:
        return sum(type(one) is Record for one in gc.get_objects())

    gc.collect()
    others = records()  # of stores that other tests left behind

    def count(self: Any, serving: Any) -> int:
        held.append(records() - others)
        return run(self, serving)

    monkeypatch.setattr(consolidate._Exchange, "run", count)
    with opened(None, clock, consolidation=Consolidation(min_events=2)) as memory:
        for number in range(60):
            events = [
                NewItem(text=f"event {n} of run {number}", kind="event", valid_from=START) for n in range(10)
            ]
            memory.add_many(events, user_id="ann", run_id=f"r{number}")
        assert memory.run_jobs()[0].done["events"] == 600
    assert len(held) == 60 and 0 < max(held) <= 64


def test_with_events_that_wait_for_their_vectors_it_goes_on_to_the_same_end(
    clock: FixedClock, monkeypatch: Any
) -> None:
    """A large month was cut by a number of events in which these counted as long as they were first."""
    monkeypatch.setattr(consolidate, "_LONGEST_STEP", 16)
    check, left = Turn.check, [0]

    def stop(self: Turn) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        check(self)

    monkeypatch.setattr(Turn, "check", stop)
    ends = []
    for left[0] in (0, 3):
        options = Consolidation(outliers=0)
        with opened(None, clock, background_work=False, consolidation=options) as memory:
            for n in range(40):
                item = NewItem(text=f"event {n}", kind="event", valid_from=START + timedelta(minutes=n))
                memory.add(item, user_id="ann", embed="later" if n < 4 else "now")
            if left[0]:
                with pytest.raises(KeyboardInterrupt):
                    memory.run_jobs()
                assert any(item.kind == "summary" for item in live(memory))
            memory.run_jobs()
            assert memory.count(user_id="ann", kinds=["event"], include_past=True) == 8
            ends.append(sorted(item.text for item in live(memory)))
    assert ends[0] == ends[1]
