"""What a job works with, and when it has to stop."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from ..index.clustering import Cluster
from ..memory.revocation import taken_of
from ..memory.serving import Current
from ..memory.writer import Defaults
from ..ops.ids import parse_id
from ..protocols import LanguageModel, Log, TokenCounter
from ..records import Past
from ..types import MemoryItem, NewItem


class Tools(NamedTuple):
    """language_model raises InputError when the store has none. exchanging: held while items are put in the
    place of others, and while an erasure finds out what was derived and removes it. cluster: finds
    clusters where the store's index computes."""

    log: Log
    current: Current
    counter: TokenCounter
    language_model: Callable[[], LanguageModel]
    exchanging: threading.RLock
    cluster: Cluster

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
        self.place: int | None = None

    def check(self) -> None:
        """Raise Stopped when the time is over or the store closes."""
        if self._closing.is_set() or (self._ends is not None and time.monotonic() >= self._ends):
            raise Stopped

    def check_closing(self) -> None:
        """Raise Stopped when the store closes. Before the call of a model for a change that was begun: what
        it was paid for is not given up for want of time."""
        if self._closing.is_set():
            raise Stopped


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


def store_instead(tools: Tools, old: MemoryItem, new: NewItem) -> None:
    """Store what stands for an item while its erasure waits for it: without its vector, where that cannot be
    made now. It ends and expires with the old one and is trusted no more than that was before a source was
    revoked; an addition takes that trust again, and so it can be reinstated. Raises as Memory.add."""
    begins = new.valid_from
    if old.valid_to is not None:
        begins = min(begins or old.valid_from, old.valid_to)
    trust = given_trust(tools.log.history(parse_id(old.id)), old)
    if new.trust is not None:
        trust = min(trust, new.trust)
    new = msgspec.structs.replace(
        new, trust=trust, valid_from=begins, valid_to=old.valid_to, expires_at=old.expires_at
    )
    tools.current.write(
        lambda serving: serving.writer.add(
            [new], Defaults(scope=None), idempotency_key=None, durability=None, embed="auto",
            reading=lambda: tools.current.reading(serving),
        ),
        own_vectors=False,
    )  # fmt: skip


def given_trust(history: Sequence[Past], item: MemoryItem) -> float:
    """The trust that an item had before its sources took some of it."""
    taken = taken_of(history)
    return item.trust if taken is None else taken.trust
