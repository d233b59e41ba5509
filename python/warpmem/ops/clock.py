"""Time as int microseconds since 1970-01-01 UTC, and the way to and from datetimes."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from ..errors import InvalidTime
from ..records import NEVER

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LEAST = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_MOST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_last = (_EPOCH, 0)  # what was asked for last: the times of a new item are one object


class SystemClock:
    """The operating system's clock."""

    def now(self) -> int:
        return time.time_ns() // 1000


class FixedClock:
    """A clock for tests: stands still until told otherwise."""

    def __init__(self, start: datetime) -> None:
        self._now = to_micros(start, "start")

    def now(self) -> int:
        return self._now

    def set(self, when: datetime) -> None:
        """Jump to `when`, forwards or backwards."""
        self._now = to_micros(when, "when")

    def advance(self, by: timedelta) -> None:
        """Move by `by`."""
        self._now += by // _MICROSECOND


def to_micros(when: datetime, name: str) -> int:
    """Microseconds of a timezone-aware datetime in years 1 to 9999 of UTC. Raises InvalidTime naming it."""
    global _last
    known, micros = _last
    if when is known:
        return micros
    if type(when) is datetime and when.tzinfo is UTC:
        since = when - _EPOCH
        micros = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
        _last = when, micros
        return micros
    if not isinstance(when, datetime):
        raise InvalidTime(f"{name} must be a datetime, not {type(when).__name__}")
    if when.tzinfo is None or when.utcoffset() is None:
        raise InvalidTime(
            f"{name} is a naive datetime; give it a timezone, for example datetime.now(timezone.utc)"
        )
    micros = (when - _EPOCH) // _MICROSECOND
    if not _LEAST <= micros <= _MOST:
        raise InvalidTime(f"{name} lies outside the years 1 to 9999 of UTC")
    return micros


@lru_cache(maxsize=4096)
def to_datetime(micros: int) -> datetime:
    """The UTC datetime of int microseconds."""
    return _EPOCH + timedelta(microseconds=micros)


def open_end(when: datetime | None, name: str) -> int:
    """As to_micros, with None as NEVER."""
    return NEVER if when is None else to_micros(when, name)


def from_open_end(micros: int) -> datetime | None:
    """As to_datetime, with NEVER as None."""
    return None if micros == NEVER else to_datetime(micros)
