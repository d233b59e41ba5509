"""Telling how far a long task is, seldom enough to cost nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

Report = Callable[[str, int, int | None], None]
"""(what is being done, how much of it is done, of how much if that is known)."""

_SECONDS = 0.5


class Progress:
    """Calls `report` while a task goes on, twice a second and not before it has taken half a second; once
    more when it is done, if it was called at all. report None: never."""

    def __init__(self, report: Report | None, task: str, total: int | None) -> None:
        self._report = report
        self._task = task
        self._total = total
        self._next = time.monotonic() + _SECONDS
        self._reported = False

    def at(self, done: int) -> None:
        """`done` of the total is behind us."""
        if self._report is not None and time.monotonic() >= self._next:
            self._tell(done)
            self._next = time.monotonic() + _SECONDS

    def end(self, done: int) -> None:
        """All is done."""
        if self._reported:
            self._total = done
            self._tell(done)

    def _tell(self, done: int) -> None:
        if self._report is not None:
            self._reported = True
            self._report(self._task, done, None if self._total is None else max(self._total, done))
