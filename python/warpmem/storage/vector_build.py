"""Vectors of another model, built beside those in use, and the switch to them.

The job's state stands in family `jobs` and moves on in the same write as the vectors that it speaks of, so a
process that dies loses at most the unit it was at. First every row in use is gone through in the order of the
keys; then the log, from the change at which the job began. Both bring rows of the new family to what those in
use are at that moment, however often it is done, so it does not matter which of them meets a row, or when.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..errors import DiskFull, InputError, StoreCorrupt
from ..protocols import Engine, Transaction
from ..records import (
    MAKES_VERSION,
    BuildUnit,
    LogEntry,
    ReembedJob,
    StoreIdentity,
    VersionName,
    probe_key,
)
from ..types import Durability
from . import codec
from .embedding import EmbeddingTransaction
from .identity import identity_entry
from .values import decode, encode, is_text_row, split_row

T = TypeVar("T")

JOB_KEY: Final = b"reembed"
_EVERYTHING: Final = b"\xff"  # a position behind every key


class Run(Protocol):
    """Runs a change on the committer thread."""

    def __call__(self, change: Callable[[BuildTransaction], T], durability: Durability) -> T: ...


class BuildTransaction(EmbeddingTransaction):
    """A change to the vectors that are built. Lives on the committer thread."""

    applied: Callable[[], None] | None = None

    @property
    def identity(self) -> StoreIdentity:
        """What the store is after this change."""
        return self._identity

    def job(self) -> ReembedJob | None:
        stored = self._read("jobs", JOB_KEY)
        return None if stored is None else decode(stored, ReembedJob)

    def put_job(self, job: ReembedJob | None) -> None:
        self._write("jobs", JOB_KEY, None if job is None else encode(job))

    def clear(self, family: str) -> None:
        """Empty a family, before everything else that this change writes, and forget who made its vectors."""
        self._engine.clear(family)
        self._write("meta", probe_key(family), None)

    def lacking(self, family: str, names: Iterable[VersionName]) -> list[VersionName]:
        """Those of the rows in use that have no vector in `family` yet."""
        keys = {name: codec.vector_key(*name) for name in names}
        return [
            name
            for name, key in keys.items()
            if _lacks(self._read(self._identity.vectors, key), self._read(family, key))
        ]

    def bring_up(
        self,
        family: str,
        names: Iterable[VersionName],
        vectors: Mapping[VersionName, NDArray[np.float32]],
        dimension: int,
        lacking: Collection[VersionName] | None = None,
    ) -> int:
        """Make rows of `family` what those in use are, those of other spaces than the text's with their
        vectors; returns how many vectors were new. lacking: the rows that vectors were to be made for, where
        that was found out before this change: any other that has its vector by now had none then, waits here
        too, and the log tells of it later."""
        made = 0
        for name in names:
            key = codec.vector_key(*name)
            current, built = self._read(self._identity.vectors, key), self._read(family, key)
            if current is None:
                if built is not None:
                    self._write(family, key, None)
                continue
            if not is_text_row(current):
                values = bytes(split_row(current)[1])
            elif _is_blank(current):
                values = bytes(4 * dimension)  # by whichever model is in use when its turn comes
            elif built is not None and not _is_blank(built):
                values = bytes(split_row(built)[1])
            elif name in vectors:
                values = np.ascontiguousarray(vectors[name], "<f4").tobytes()
                made += 1
            elif lacking is not None and name not in lacking:
                values = bytes(4 * dimension)
            else:
                raise StoreCorrupt(f"version {name[1]} of key {name[0].hex()} has no vector to store")
            row = bytes(split_row(current)[0]) + values
            if built is None or row != bytes(built):
                self._write(family, key, row)
        return made

    def switch(self, identity: StoreIdentity, applied: Callable[[], None]) -> None:
        """Put another model's vectors in use. applied: called when that is durable."""
        family, key, _ = identity_entry(identity)
        self._write(family, key, encode(identity))
        self._identity = identity
        self.applied = applied


class VectorBuild:
    """Implements protocols.VectorBuild. One thread at a time."""

    def __init__(self, engine: Engine, identity: StoreIdentity, job: ReembedJob, run: Run) -> None:
        self._engine = engine
        self._run = run
        self._identity = identity
        self._job = job
        self.identity = msgspec.structs.replace(
            identity, model_id=job.model_id, dimension=job.dimension, vectors=job.vectors
        )

    @property
    def job(self) -> ReembedJob:
        return self._job

    def count(self) -> int:
        family = self._identity.vectors
        rows = self._engine.scan(family, b"", codec.KEYS_END)
        return sum(is_text_row(memoryview(stored)[1:]) for _, stored in rows)  # behind the frame's version

    def next(self, limit: int, entries: Callable[[int], Iterable[LogEntry]]) -> BuildUnit | None:
        job = self._job
        names: list[VersionName] = []
        if job.position != _EVERYTHING:
            start = job.position + b"\0" if job.position else b""
            position = _EVERYTHING
            for key, _ in self._engine.scan(self._identity.vectors, start, codec.KEYS_END):
                names.append(codec.read_version_key(self._identity.vectors, key))
                if len(names) == limit:
                    position = key
                    break
            after = msgspec.structs.replace(job, position=position)
        else:
            since = job.since
            for entry in entries(since):
                names += self._touched(entry)
                since = entry.sequence
                if len(names) >= limit:
                    break
            if since == job.since:
                return None
            after = msgspec.structs.replace(job, since=since)
        names = list(dict.fromkeys(names))
        return BuildUnit(names, self._lacking(names), after)

    def store(
        self,
        unit: BuildUnit,
        vectors: Mapping[VersionName, NDArray[np.float32]],
        also: Callable[[Transaction], None],
    ) -> None:
        def change(transaction: BuildTransaction) -> ReembedJob:
            # A row that lost its item since the vectors were made is gone; none can have come.
            family, dimension = self._job.vectors, self._job.dimension
            made = transaction.bring_up(family, unit.names, vectors, dimension, set(unit.lacking))
            position = standing_at(self._engine, self._identity.vectors, unit.after.position)
            after = msgspec.structs.replace(unit.after, position=position, rows=self._job.rows + made)
            transaction.put_job(after)
            also(transaction)
            return after

        self._job = self._run(change, "os")

    def switch(
        self,
        vectors: Mapping[VersionName, NDArray[np.float32]],
        most: int,
        before: Callable[[], None],
        applied: Callable[[], None],
    ) -> Sequence[VersionName] | None:
        def change(transaction: BuildTransaction) -> tuple[Sequence[VersionName] | None, ReembedJob]:
            job, last = self._job, transaction.state.sequence
            if last - job.since > most:
                return (), job
            names: list[VersionName] = []
            for key, stored in self._engine.scan(
                "log", codec.log_key(job.since + 1), codec.log_key(last + 1)
            ):
                names += self._touched(decode(codec.unseal("log", key, stored), LogEntry))
            names = list(dict.fromkeys(names))
            lacking = [name for name in transaction.lacking(job.vectors, names) if name not in vectors]
            if lacking:
                return lacking, job
            before()
            made = transaction.bring_up(job.vectors, names, vectors, job.dimension)
            old = self._identity.vectors
            done = msgspec.structs.replace(job, vectors=old, since=last, rows=job.rows + made, done=True)
            transaction.put_job(done)
            transaction.switch(self.identity, applied)
            return None, done

        lacking, self._job = self._run(change, "sync")
        return lacking

    def finish(self) -> None:
        def change(transaction: BuildTransaction) -> None:
            transaction.clear(self._job.vectors)
            transaction.put_job(None)

        self._run(change, "sync")
        _give_back(self._engine, self._job.vectors)

    def _lacking(self, names: Sequence[VersionName]) -> list[VersionName]:
        keys = [codec.vector_key(*name) for name in names]
        current = self._engine.get_many(self._identity.vectors, keys)
        built = self._engine.get_many(self._job.vectors, keys)
        mine, others = self._identity.vectors, self._job.vectors
        return [
            name
            for name, key, now, other in zip(names, keys, current, built, strict=True)
            if _lacks(now and codec.unseal(mine, key, now), other and codec.unseal(others, key, other))
        ]

    def _touched(self, entry: LogEntry) -> Iterable[VersionName]:
        """The rows that a change may have added, changed or removed."""
        if entry.operation == "delete":
            # Those that were built; the others are gone already.
            keys = self._engine.scan(self._job.vectors, *codec.prefix_range(entry.key))
            return [codec.read_version_key(self._job.vectors, key) for key, _ in keys]
        if entry.operation in MAKES_VERSION:
            return [(entry.key, version) for version in (entry.version - 1, entry.version) if version]
        if entry.operation == "embed":
            return [(entry.key, entry.version)]
        # "touch" leaves rows alone, and whoever erases does it in both families.
        return ()


def _is_blank(row: bytes | memoryview) -> bool:
    """Whether a row waits for its vector."""
    values = split_row(row)[1]
    return not any(values[:4]) and not any(values)


def _lacks(current: bytes | memoryview | None, built: bytes | memoryview | None) -> bool:
    """Whether a vector must be made for a row in use, given what was built for it."""
    if current is None or not is_text_row(current) or _is_blank(current):
        return False
    return built is None or _is_blank(built)


def begin(engine: Engine, run: Run, model_id: str, dimension: int, now: Callable[[], int]) -> VectorBuild:
    """Go on with the job that was begun for this model, or begin one; what was built for another is dropped.

    Raises InputError when the vectors in use are this model's.
    """

    def change(transaction: BuildTransaction) -> tuple[StoreIdentity, ReembedJob]:
        identity, job = transaction.identity, transaction.job()
        wanted = (model_id, dimension)
        if (identity.model_id, identity.dimension) == wanted:
            if job is not None and job.done:  # what is left to do is to tidy up
                return identity, job
            raise InputError(
                f"the store's vectors are those of {model_id!r} ({dimension} dimensions) already"
            )
        if job is None or job.done or (job.model_id, job.dimension) != wanted:
            (other,) = (family for family in codec.VECTOR_FAMILIES if family != identity.vectors)
            transaction.clear(other)
            job = ReembedJob(model_id, dimension, other, now(), transaction.state.sequence)
            transaction.put_job(job)
        return identity, job

    def forget(transaction: BuildTransaction) -> None:
        job = transaction.job()
        if (transaction.identity.model_id, transaction.identity.dimension) == (model_id, dimension):
            return  # refused below, or tidied up
        if job is not None and not job.done and (job.model_id, job.dimension) != (model_id, dimension):
            transaction.put_job(None)

    # By itself, for emptying a family cannot be taken back: a job that is there says that its vectors are.
    run(forget, "sync")
    identity, job = run(change, "sync")
    return VectorBuild(engine, identity, job, run)


def standing_at(engine: Engine, family: str, position: bytes) -> bytes:
    """The last row up to a position, which means the same: the row that was there may have been erased, and
    then the job must not name it."""
    if position == _EVERYTHING:
        return position
    rows = engine.scan(family, b"", position + b"\0", reverse=True)
    return next((key for key, _ in rows), b"")


def read_job(engine: Engine) -> ReembedJob | None:
    """The job as it is stored, or None."""
    stored = engine.get("jobs", JOB_KEY)
    return None if stored is None else decode(codec.unseal("jobs", JOB_KEY, stored), ReembedJob)


def tidy(engine: Engine) -> None:
    """Empty the family of a model that another one has replaced, if a process died before it could."""
    job = read_job(engine)
    if job is not None and job.done:
        with contextlib.suppress(DiskFull):  # refused before anything was written: the next opening does it
            engine.clear(job.vectors)
            engine.write([("jobs", JOB_KEY, None), ("meta", probe_key(job.vectors), None)])
            engine.sync()
        _give_back(engine, job.vectors)


def _give_back(engine: Engine, family: str) -> None:
    """Let the disk have the space of a family that was emptied."""
    with contextlib.suppress(DiskFull):  # it comes back by itself too, when RocksDB gets to it
        engine.compact([(family, b"", codec.KEYS_END)])
