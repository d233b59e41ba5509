"""What a store has left to be done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from ..records import Work, WorkKind


class WorkChanges(Protocol):
    """What a change says of what is left to be done. Valid as its Transaction is."""

    def leave(self, kind: WorkKind, key: bytes, version: int) -> None:
        """Leave something to be done for a version, from now on."""
        ...

    def done(self, kind: WorkKind, key: bytes, version: int) -> bool:
        """Nothing of this kind is left to be done for a version; whether something was."""
        ...

    def refuse(self, kind: WorkKind, key: bytes, version: int, model_id: str) -> None:
        """Note of what waits for a version that this model cannot do it."""
        ...


class WorkQueue(Protocol):
    """What is still to be done for versions of items. Thread-safe."""

    def has(self, kind: WorkKind, key: bytes, version: int) -> bool:
        """Whether something waits to be done for a version."""
        ...

    def walk(self, kind: WorkKind, passed: dict[int, bytes] | None = None) -> Iterator[Work]:
        """What waits, a few of each owner in turn, and each once; what comes meanwhile may be among them.
        passed: how far earlier walks with it have come, and then this one."""
        ...

    def all(self, kind: WorkKind) -> Iterator[Work]:
        """What waits, in the order of the keys, as of one moment."""
        ...

    def subscribe(self, told: Callable[[], None]) -> None:
        """Call `told`, on the committer thread, after a change that left something to be done is durable."""
        ...
