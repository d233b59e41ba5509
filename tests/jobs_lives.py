"""Stores with old events, for the tests of jobs."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import warpmem
from warpmem import Memory, NewItem
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
