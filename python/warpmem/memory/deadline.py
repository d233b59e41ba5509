"""The time that a caller gives a search."""

from __future__ import annotations

import time
from datetime import timedelta

from ..errors import DeadlineExceeded, InputError
from ..types.scalars import float_of

_YEAR = 366 * 24 * 3600


class Deadline:
    """When the caller's time is up; None is never. Begins when it is made. Raises InputError."""

    def __init__(self, deadline: float | timedelta | None) -> None:
        self._at: float | None = None
        if deadline is not None:
            seconds = deadline.total_seconds() if isinstance(deadline, timedelta) else float_of(deadline)
            if seconds is None or not 0 < seconds <= _YEAR:
                raise InputError("deadline must be seconds, more than 0 and at most a year, or a timedelta")
            self._at = time.monotonic() + seconds

    def left(self) -> float | None:
        """Seconds until then, negative afterwards; None for ever."""
        return None if self._at is None else self._at - time.monotonic()

    def check(self, stage: str) -> None:
        """Raise DeadlineExceeded once the time is up."""
        if self._at is not None and time.monotonic() > self._at:
            raise DeadlineExceeded(f"the deadline passed before {stage}")
