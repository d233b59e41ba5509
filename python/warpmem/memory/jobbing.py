"""What a Memory does for what it remembers while nobody asks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Protocol

from ..errors import InputError
from ..types import JobReport
from ..types.scalars import float_of
from .by_writer import Follower, by_writer


class JobRunner(Protocol):
    """What runs jobs; jobs/runner.py. Thread-safe."""

    def run(self, names: Sequence[str] | None, seconds: float | None) -> tuple[JobReport, ...]: ...
    def rebuild(self, keys: Collection[bytes], erased: Collection[bytes]) -> set[bytes]:
        """Of items that lose some of their sources, or told of a version that goes, those that a job has
        made: made anew without these, and their keys returned, to be erased too."""
        ...

    def pausing(self) -> AbstractContextManager[None]:
        """Meanwhile no job puts anything in the place of items."""
        ...

    def close(self) -> None: ...


class Jobbing(Follower):
    """The part of Memory that runs jobs. See Memory."""

    _jobs: JobRunner
    _check_open: Callable[[], None]

    @by_writer
    def run_jobs(
        self, names: Sequence[str] | None = None, *, seconds: float | timedelta | None = None
    ) -> tuple[JobReport, ...]:
        """Look after what is remembered, owner by owner; returns a report for each job.

        "deduplicate" keeps one of the items that say the same as it is: equal texts, and other wordings where
        the configuration has a `near_duplicate`; the others end, and `revert` brings them back. "consolidate"
        puts summaries in the place of old events, by `consolidation`. "forget" deletes what has expired, and
        by `forgetting` what has faded or is too much, but of what current items name as a source only what
        its caller let expire.
        "reflect" keeps a profile of each scope's most trusted facts of now, by `reflection`. "optimise" gives
        back what removed rows of the index take, saves the index as close() does, and by `optimisation` has
        the storage written anew.
        Each removal has its rule as the reason in the item's history. names: these jobs; None: those that
        are configured.

        seconds: stop after that time, between two changes; an owner who was begun with gets his first one all
        the same, and what a model is asked for a change belongs to it. What was stopped, or killed, goes on
        at the owner it was at when it is called again, before the other jobs, to the same end. Raises
        InputError, Conflict while jobs run, StoreReadOnly, DiskFull.
        """
        self._check_open()
        if names is not None and (
            isinstance(names, str)
            or not isinstance(names, Sequence)
            or not all(isinstance(name, str) for name in names)
        ):
            raise InputError("names must be a list of names of jobs")
        left = None
        if seconds is not None:
            left = seconds.total_seconds() if isinstance(seconds, timedelta) else float_of(seconds)
            if left is None or not 0 < left <= sys.float_info.max:
                raise InputError("seconds must be a positive number or a timedelta")
        return self._jobs.run(names, left)
