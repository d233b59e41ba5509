"""What is still to be done for versions of items: one record each in family `jobs`, put there by the change
that leaves it undone and removed by the one that does it, so that no crash can part them.

Records stand in the order of their items' keys, so an owner's are neighbours. Who works them off takes a few
of each owner in turn.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Final

from ..ops.ids import owner_of, owner_prefix
from ..protocols import Engine
from ..records import Work, WorkKind
from . import codec
from .values import WorkValue, decode, encode

_IN_TURN: Final = 16


class WorkTransaction:
    """The part of a change that knows its own writes and what it leaves to be done. `queued`: whether that is
    anything."""

    _now: int

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._overlay: dict[tuple[str, bytes], bytes | None] = {}
        self.queued = False

    def _read(self, family: str, key: bytes) -> bytes | memoryview | None:
        if (family, key) in self._overlay:
            return self._overlay[family, key]
        stored = self._engine.get(family, key)
        return None if stored is None else codec.unseal(family, key, stored)

    def _write(self, family: str, key: bytes, payload: bytes | None) -> None:
        self._overlay[family, key] = payload

    def _enqueue(self, kind: WorkKind, work: Work) -> None:
        self._write("jobs", codec.work_key(kind, work.key, work.version),
                    encode(WorkValue(work.since, work.refused)))  # fmt: skip
        self.queued = True

    def _work(self, kind: WorkKind, key: bytes, version: int) -> Work | None:
        stored = self._read("jobs", codec.work_key(kind, key, version))
        return None if stored is None else _work(key, version, stored)

    def _dequeue(self, key: bytes, version: int, kind: WorkKind | None = None) -> None:
        """Remove what waits for a version, of one kind or of all."""
        for each in codec.WORK_KINDS if kind is None else (kind,):
            if self._read("jobs", name := codec.work_key(each, key, version)) is not None:
                self._write("jobs", name, None)

    def leave(self, kind: WorkKind, key: bytes, version: int) -> None:
        self._enqueue(kind, Work(key, version, self._now))

    def done(self, kind: WorkKind, key: bytes, version: int) -> bool:
        waits = self._work(kind, key, version) is not None
        self._dequeue(key, version, kind)
        return waits

    def refuse(self, kind: WorkKind, key: bytes, version: int, model_id: str) -> None:
        work = self._work(kind, key, version)
        if work is not None:
            value = WorkValue(work.since, model_id)
            self._write("jobs", codec.work_key(kind, key, version), encode(value))


class StoreWork:
    """Implements protocols.WorkQueue over an Engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._told: list[Callable[[], None]] = []

    def subscribe(self, told: Callable[[], None]) -> None:
        self._told.append(told)

    def tell(self) -> None:
        """What is left to be done has grown, durably."""
        for told in self._told:
            told()

    def has(self, kind: WorkKind, key: bytes, version: int) -> bool:
        return self._engine.get("jobs", codec.work_key(kind, key, version)) is not None

    def walk(self, kind: WorkKind, passed: dict[int, bytes] | None = None) -> Iterator[Work]:
        passed = {} if passed is None else passed
        while True:
            found = False
            owner = 0
            while (first := next(self._from(kind, owner_prefix(owner + 1)), None)) is not None:
                owner = owner_of(first.key)
                after = passed.get(owner, owner_prefix(owner))
                some = list(itertools.islice(self._from(kind, after, owner), _IN_TURN))
                if some:
                    last = some[-1]
                    passed[owner] = last.key + last.version.to_bytes(4, "big") + b"\0"
                    found = True
                    yield from some
            if not found:
                return

    def all(self, kind: WorkKind) -> Iterator[Work]:
        return self._from(kind, b"")

    def _from(self, kind: WorkKind, start: bytes, owner: int | None = None) -> Iterator[Work]:
        """What waits from a place in the order of the keys on, of everybody or of one owner."""
        head = b"" if owner is None else owner_prefix(owner)
        first, stop = codec.prefix_range(codec.work_prefix(kind, head))
        first = max(first, codec.work_prefix(kind, start))
        for key, stored in self._engine.scan("jobs", first, stop):
            yield _work(*codec.read_work_key(key), codec.unseal("jobs", key, stored))


def _work(key: bytes, version: int, payload: bytes | memoryview) -> Work:
    value = decode(payload, WorkValue)
    return Work(key, version, value.since, value.refused)
