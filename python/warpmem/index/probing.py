"""Fewer cells for searches of an approximate index that would take longer than there is time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from ..errors import InputError
from ..ops.pressure import Pace
from ..types.scalars import float_of


class Probing:
    """How long a query takes with all the cells that tuning found, and for how many of them there is time.
    Thread-safe: threads at once may lose a measurement."""

    def __init__(self) -> None:
        self._pace = Pace()

    def most(self, pool: Any, queries: int, seconds: float | None) -> int | None:
        """The most cells that a query may read of an owner to be done in so many seconds; None for all."""
        expected = self._pace.expected * queries
        if seconds is None or expected <= seconds:
            return None
        return max(1, int(_tuned(pool) * seconds / expected))

    def took(self, pool: Any, queries: int, seconds: float, most: int | None) -> None:
        """A search of so many queries took so long with `most` cells of an owner. What it would have taken
        with all of them is in proportion."""
        if queries:
            whole = seconds if most is None else seconds * max(1.0, _tuned(pool) / most)
            self._pace.seen(whole / queries)


def seconds_of(within: float | timedelta | None) -> float | None:
    """What a caller gives as time. Raises InputError."""
    if within is None:
        return None
    seconds = within.total_seconds() if isinstance(within, timedelta) else float_of(within)
    if seconds is None or not seconds > 0:
        raise InputError("within must be seconds, more than 0, or a timedelta")
    return seconds


def _tuned(pool: Any) -> int:
    return max((cells.n_probes for cells in pool.owners.values()), default=1)
