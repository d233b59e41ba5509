"""When what an item says happened, as its metadata has it: `{"event_time": {"from": day, "to": day}}`, the
first and the last day, both included, each as 2026-03-01.

It is apart from `valid_from`, from which on an item is found: an exam next week is to be found today.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Any, Final

EVENT_TIME: Final = "event_time"
FIRST: Final = f"metadata.{EVENT_TIME}.from"
LAST: Final = f"metadata.{EVENT_TIME}.to"

Days = tuple[date, date]
"""The first and the last day."""

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


def with_days(metadata: Mapping[str, Any], days: Days | None) -> dict[str, Any]:
    """The metadata with these days in the place of its own; without any where there are none."""
    others = {key: value for key, value in metadata.items() if key != EVENT_TIME}
    if days is None:
        return others
    return {**others, EVENT_TIME: {"from": days[0].isoformat(), "to": days[1].isoformat()}}


def days_of(metadata: Mapping[str, Any]) -> Days | None:
    """The days that metadata has; None where what stands there is none, for anybody may write metadata."""
    found = metadata.get(EVENT_TIME)
    if not isinstance(found, dict) or set(found) != {"from", "to"}:
        return None
    first, last = parse_day(found["from"]), parse_day(found["to"])
    return None if first is None or last is None or last < first else (first, last)


def parse_day(value: Any) -> date | None:
    """The day that a string like 2026-03-01 names."""
    if not isinstance(value, str) or not _DAY.fullmatch(value):
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        return None


def apart(one: Days, other: Days) -> bool:
    """Whether they have no day in common."""
    return one[1] < other[0] or other[1] < one[0]
