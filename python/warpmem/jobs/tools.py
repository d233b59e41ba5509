"""What a job works with, and when it has to stop."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, Protocol

from ..memory.serving import Current
from ..memory.writer import Defaults
from ..protocols import LanguageModel, Log, TokenCounter
from ..types import NewItem


class Tools(NamedTuple):
    """language_model raises InputError when the store has none. exchanging: held while items are put in the
    place of others, and while an erasure finds out what was derived and removes it."""

    log: Log
    current: Current
    counter: TokenCounter
    language_model: Callable[[], LanguageModel]
    exchanging: threading.RLock

    def revoked(self) -> frozenset[str]:
        """The sources that are not believed: what names one of them is in quarantine."""
        return frozenset(self.current.now.revocations.names())


class Stopped(BaseException):
    """A job's time is over. What it has done stays done, and the next run goes on from there."""


class Turn:
    """How long a run may take. Jobs ask between two changes, and not before the first of an owner: however
    long he takes to read, a run gets further.

    place: where within an owner a job is, None at his beginning: a number of the job's own, kept for the next
    run where this one is stopped. It may name nothing that an erasure would have to find."""

    def __init__(self, seconds: float | None, closing: threading.Event) -> None:
        self._ends = None if seconds is None else time.monotonic() + seconds
        self._closing = closing
        self._changed = False
        self.place: int | None = None

    def check(self) -> None:
        """Raise Stopped when the time is over or the store closes."""
        if self._closing.is_set() or (self._ends is not None and time.monotonic() >= self._ends):
            raise Stopped

    def check_behind(self) -> None:
        """The same, behind a change that need not be made again."""
        self._changed = True
        self.check()

    def check_call(self) -> None:
        """The same, before the call of a model whose answer is lost when a run stops before its change. Until
        the first change the time is not asked for, or a run with too little of it would pay for nothing."""
        if self._changed or self._closing.is_set():
            self.check()


class Job(Protocol):
    """One kind of upkeep. `name` is how it is called and how its place is remembered."""

    @property
    def name(self) -> str: ...

    def of_owner(self, tools: Tools, owner: int, turn: Turn, counts: Counter[str]) -> None:
        """Do all there is to do for one owner, in changes that are each whole: done again, it finds nothing
        left to do. counts: what was done, by name, added to as it is done. Raises Stopped, and what the store
        raises."""
        ...

    def of_store(self, tools: Tools, turn: Turn, counts: Counter[str]) -> None:
        """Do what is left to do for the store as a whole, once all owners are done. By default nothing."""
        return


def store(tools: Tools, new: NewItem) -> None:
    """Store what stands for other items while an erasure waits for it: without its vector, where that cannot
    be made now. Raises as Memory.add."""
    tools.current.write(
        lambda serving: serving.writer.add(
            [new], Defaults(scope=None), idempotency_key=None, durability=None, embed="auto",
            reading=lambda: tools.current.reading(serving),
        ),
        own_vectors=False,
    )  # fmt: skip
