"""What an index checkpoint says beside the rows: whose they are, and up to which change of the log.

A checkpoint is a pool's file (FORMATS.md) with two sections more: `partitions`, this struct in msgpack, and
`names`, the names of all row ids of all owners one after the other. It is derived: whoever reads it compares
it with the log, and starts without it when anything does not fit.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

import msgspec

from ..errors import StoreError
from ..ops.progress import Progress, Report
from ..ops.replay import row_changes, touched
from ..protocols import FileBackend, Log, RowPool, Transaction
from ..records import LogEntry, StoreIdentity
from .checkpoint_file import CheckpointFile, Restored, sync_folder
from .partition import BLANK, NAME_BYTES, Names, Partition, lists_of

VERSION = 1
_TRIES = 3
_HEADER_BYTES, _LIST_BYTES, _PAGE_BYTES = 8192, 32, 24
"""An index file's header and tables (FORMATS.md): at most so much, and so much for each list and page."""


class OwnerMark(msgspec.Struct, frozen=True, array_like=True):
    """One owner. `names` is how many row ids it has given out; `codes` and `inexact` as in Partition."""

    owner: int
    names: int
    past_until: int
    codes: dict[str, int]
    inexact: list[int]


class CheckpointMark(msgspec.Struct, frozen=True, array_like=True):
    """Section `partitions`. `position` is the last change that the rows hold; `salt` tells stores apart;
    `columns` are the declared metadata keys and their types."""

    version: int
    salt: bytes
    model_id: str
    position: LogEntry
    columns: dict[str, str]
    kinds: dict[str, int]
    owners: list[OwnerMark]


_decoder = msgspec.msgpack.Decoder(CheckpointMark)


def sections(
    identity: StoreIdentity,
    position: LogEntry,
    columns: Mapping[str, str],
    kinds: Mapping[str, int],
    ready: Mapping[int, Partition],
) -> dict[str, bytes]:
    """The sections of partitions that do not change meanwhile."""
    names = {owner: part.names.tobytes() for owner, part in ready.items()}
    marks = [
        OwnerMark(owner, len(names[owner]) // NAME_BYTES, part.past_until, part.codes, sorted(part.inexact))
        for owner, part in ready.items()
    ]
    mark = CheckpointMark(
        VERSION, identity.salt, identity.model_id, position, dict(columns), dict(kinds), marks
    )
    return {"partitions": msgspec.msgpack.encode(mark), "names": b"".join(names.values())}


def read(
    found: Mapping[str, bytes | memoryview], identity: StoreIdentity
) -> tuple[CheckpointMark, dict[int, Partition]]:
    """The mark, and ready partitions by owner. ValueError when they are of another store or do not add up."""
    if not {"partitions", "names"} <= set(found):
        raise ValueError("it is not a checkpoint of a store's index")
    try:
        mark = _decoder.decode(found["partitions"])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ValueError(f"its section partitions does not decode ({error})") from error
    if mark.version != VERSION:
        raise ValueError(f"it has version {mark.version}, this warpmem reads {VERSION}")
    if (mark.salt, mark.model_id) != (identity.salt, identity.model_id):
        raise ValueError("it belongs to another store or model")
    names = memoryview(found["names"])
    if len(names) != NAME_BYTES * sum(owner.names for owner in mark.owners):
        raise ValueError("its section names has another length than its owners say")
    partitions: dict[int, Partition] = {}
    at = 0
    for owner in mark.owners:
        end = at + NAME_BYTES * owner.names
        partitions[owner.owner] = Partition.restored(
            Names(names[at:end]), dict(owner.codes), set(owner.inexact), owner.past_until
        )
        at = end
    return mark, partitions


class IndexCheckpoint(CheckpointFile):
    """Where the index of one store is kept between its openings."""

    def __init__(
        self,
        backend: FileBackend,
        path: str,
        log: Log,
        identity: StoreIdentity,
        columns: Mapping[str, str],
        report: Report | None = None,
    ) -> None:
        """identity: what the store is while the index is of its vectors. report: told how far reading the
        changes since the checkpoint is."""
        super().__init__(path, log)
        self._backend = backend
        self._columns = dict(columns)
        self._identity = identity
        self._report = report

    def read(self, dimension: int, n_columns: int) -> Restored:
        """What the file holds. ValueError or StoreError with the reason when it cannot be used."""
        pool, found = self._backend.open_pool(self._path)
        mark, partitions = read(found, self._identity)
        if (pool.dim, pool.n_columns) != (dimension, n_columns):
            raise ValueError(
                f"it has {pool.n_columns} columns of {pool.dim} dimensions, not {n_columns} of {dimension}"
            )
        if list(mark.columns.items()) != list(self._columns.items()):
            raise ValueError("other metadata keys were declared when it was written")
        entries = self._log.entries(mark.position.sequence - 1)
        if next(entries, None) != mark.position:
            raise ValueError("the log does not hold the change that it ends with")
        known = {list_id: owner for owner in partitions for list_id in lists_of(owner)}
        pool.drop([list_id for list_id in pool.lists().tolist() if list_id not in known])
        for list_id in pool.lists().tolist():
            partitions[known[list_id]].blank |= list_id >= BLANK
        changes = []
        since = touched(entries)
        total = sum(len(keys) for keys in since.values())
        progress = Progress(self._report, "items changed since the checkpoint", total)
        done = 0
        for owner, keys in since.items():
            done += len(keys)
            progress.at(done)
            if owner in partitions:
                changes.append(row_changes(self._log, owner, keys, metadata=bool(self._columns)))
        progress.end(done)
        return Restored(pool, dict(mark.kinds), partitions, changes)

    def write(self, pool: RowPool, kinds: Mapping[str, int], partitions: Mapping[int, Partition]) -> bool:
        """Save a pool and its ready partitions, between two changes. False in a log without a change, or that
        takes none, or has another model's vectors by now, or when damage kept showing up. IndexCorrupt when
        the pool has damaged pages; DiskFull, with nothing written, when the file may take the disk below the
        low-water mark: the one that it replaces is there until it is whole."""
        beside = self._path + ".new"

        def save(transaction: Transaction) -> bool:
            position = self._log.position()
            if position is None or self._log.identity != self._identity:
                return False
            self.tidy()
            for _ in range(_TRIES):
                ready = {owner: part for owner, part in partitions.items() if part.state == "ready"}
                known = [part.generation for part in ready.values()]
                marks = sections(self._identity, position, self._columns, kinds, ready)
                self._log.require_room(_most_bytes(pool, marks))
                self._backend.save_pool(pool, beside, marks)
                # No change is made meanwhile, but a search may have given up an owner with a damaged page.
                if known == [part.generation for part in ready.values()]:
                    try:
                        os.replace(beside, self._path)
                        sync_folder(self._path)
                    except OSError as error:
                        raise StoreError(f"the index checkpoint was not replaced: {error}") from error
                    return True
                with contextlib.suppress(OSError):
                    os.unlink(beside)
            return False

        return False if self._log.read_only else self._log.transact(save)


def _most_bytes(pool: RowPool, marks: Mapping[str, bytes]) -> int:
    """How large the file of a pool and its sections can be: the memory of the pool is more than its pages."""
    held = pool.stats()
    tables = _HEADER_BYTES + held["lists"] * _LIST_BYTES + held["pages"] * _PAGE_BYTES
    return held["bytes"] + tables + sum(len(mark) for mark in marks.values())
