"""Stores with old events, for the tests of jobs."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import warpmem
from warpmem import Memory, NewItem
from warpmem.jobs.tools import Stopped, Turn
from warpmem.ops.clock import FixedClock

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 6, 15, tzinfo=UTC)


def opened(path: Path | None, clock: FixedClock, **options: Any) -> Memory:
    return warpmem.open(path, embedder="hashing", clock=clock, durability="os", **options)


def live(memory: Memory, user: str = "ann") -> list[warpmem.MemoryItem]:
    return list(memory.list(user_id=user, include_past=True, limit=10_000))


def fill(memory: Memory, rng: random.Random, days: int, user: str = "ann") -> list[str]:
    """Three events a day, many of them in the same words; returns the texts that are said once."""
    once = []
    for day in range(days):
        at = START + timedelta(days=day)
        for hour in range(3):
            text = f"drank {rng.choice(['coffee', 'tea', 'water'])}"
            if hour == 2 and day % 5 == 0:
                text = f"the code of door {day} is {rng.randrange(10**6)}"
                once.append(text)
            when = at + timedelta(hours=hour)
            memory.add(NewItem(text=text, kind="event", valid_from=when), user_id=user)
    return once


def run_with_stops(
    open_store: Callable[[], Memory], names: Sequence[str] | None, rng: random.Random, monkeypatch: Any
) -> int:
    """Run jobs to their end, stopped at random places, also between two changes of one owner, the store
    opened anew after each; how many stops there were."""
    left = stops = 0

    def stop(self: Turn) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1

    with monkeypatch.context() as patched:
        patched.setattr(Turn, "check", stop)
        for _ in range(100):
            left = rng.randrange(4)
            with open_store() as memory:
                try:
                    memory.run_jobs(names)
                    break
                except KeyboardInterrupt:
                    stops += 1
        else:
            raise AssertionError("no try came to the end")
    return stops


def stop_early(monkeypatch: Any) -> None:
    """From now on the time of a run is over when it asks for it the second time."""
    asked: dict[int, tuple[Turn, int]] = {}

    def check(self: Turn) -> None:
        times = asked.get(id(self), (self, 0))[1] + 1
        asked[id(self)] = self, times
        if times > 1:
            raise Stopped

    monkeypatch.setattr(Turn, "check", check)
