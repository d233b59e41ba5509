"""What a store has left to be done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from ..records import Work, WorkKind


class WorkQueue(Protocol):
    """What is still to be done for versions of items. Thread-safe."""

    def walk(self, kind: WorkKind) -> Iterator[Work]:
        """What waits, a few of each owner in turn, and each once; what comes meanwhile may be among them."""
        ...

    def all(self, kind: WorkKind) -> Iterator[Work]:
        """What waits, in the order of the keys, as of one moment."""
        ...

    def subscribe(self, told: Callable[[], None]) -> None:
        """Call `told`, on the committer thread, after a change that left something to be done is durable."""
        ...
