"""The log: records over an engine, changed only by the committer thread.

A change is one atomic engine write: its log entries and the state they lead to (items, vectors, history,
owners, listing, lookup). An entry names the version of the item it made; the version itself stands in items
or history.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..config import MAX_DIMENSION
from ..errors import (
    FormatError,
    InputError,
    ModelMismatch,
    NotSupported,
    StoreCorrupt,
    StoreError,
    StoreReadOnly,
)
from ..ops import events
from ..ops.ids import KeyMaker, owner_of, owner_prefix
from ..protocols import Clock, Engine, Transaction
from ..protocols.storage import DigestsOf
from ..records import (
    Backup,
    LogEntry,
    Past,
    Record,
    ReembedJob,
    Row,
    RowBlock,
    RowChange,
    Space,
    StoreIdentity,
)
from ..types import Durability, Order, Owner
from . import codec
from .committer import Committer
from .embedding import EmbeddingTransaction
from .erasing import ErasingTransaction
from .erasure import StoreErasures
from .identity import FORMAT, identity_entry, read_identity
from .log_state import decode_entry, last_key_time, load_state
from .rows import Versions, read_blocks
from .spaces import owner_spaces, read_spaces
from .transaction import StoreTransaction, owner_digest
from .values import HistoryValue, ItemValue, OwnerValue, decode, decode_row, make_record, row_space
from .vector_build import BuildTransaction, VectorBuild, begin, read_job, tidy
from .work import StoreWork

T = TypeVar("T")
S = TypeVar("S", bound=StoreTransaction)

_OWNER_CACHE = 65_536


class StoreLog:
    """Implements protocols.Log over any protocols.Engine."""

    def __init__(
        self, engine: Engine, identity: StoreIdentity, clock: Clock, *, durability: Durability, max_queue:
        int, read_only: bool, max_queue_bytes: int = 1 << 62, timeout: float | None = None,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._identity = identity
        self._clock = clock
        self._durability = durability
        self._read_only = read_only
        self._state = load_state(engine)
        self._applied = self._state.sequence
        self._unapplied: list[StoreTransaction] = []
        self._keys = KeyMaker(max(self._state.at, last_key_time(engine)))
        self._epoch = 0
        self._owners: dict[Owner, int] = {}
        self._subscribers: list[Callable[[Sequence[RowChange]], None]] = []
        self._timeout = timeout
        self._committer = Committer(self._write, self._sync, self._apply, max_queue, max_queue_bytes)
        self.work = StoreWork(engine)
        self.erasures = StoreErasures(
            engine, lambda change: self._transact(ErasingTransaction, change, "sync", None, 0)
        )

    # ------------------------------------------------------------------------------------ changes

    def transact(
        self, change: Callable[[Transaction], T], durability: Durability | None = None, size: int = 0
    ) -> T:
        return self._transact(
            EmbeddingTransaction, change, durability or self._durability, self._timeout, size
        )

    def build_vectors(self, model_id: str, dimension: int) -> VectorBuild:
        def run(change: Callable[[BuildTransaction], T], durability: Durability) -> T:
            return self._transact(BuildTransaction, change, durability, None, 0)

        return begin(self._engine, run, model_id, dimension, self.now)

    def _transact(
        self,
        kind: type[S],
        change: Callable[[S], T],
        durability: Durability,
        timeout: float | None,
        size: int,
    ) -> T:
        if self._read_only:
            raise StoreReadOnly("the store was opened with read_only=True")

        def job() -> tuple[S, S, T]:
            transaction = kind(self._engine, self._identity, self._state, self._keys, self._clock.now())
            result = change(transaction)
            return transaction, transaction, result

        return self._committer.submit(job, durability, timeout, size)

    def subscribe(self, apply: Callable[[Sequence[RowChange]], None]) -> None:
        self._subscribers.append(apply)

    def flush(self) -> None:
        if not self._read_only:
            self._committer.barrier(self._timeout)

    def _write(self, transaction: StoreTransaction) -> None:
        # Memory is taken before the write: nothing that can fail stands between it and the state it leads to.
        identity, epoch = self._identity, self._epoch
        if isinstance(transaction, BuildTransaction):
            identity = transaction.identity
        else:
            epoch += 1
        self._unapplied.append(transaction)
        try:
            self._engine.write(transaction.operations)
        except BaseException:
            self._unapplied.pop()
            raise
        self._state, self._epoch, self._identity = transaction.state, epoch, identity

    def _sync(self) -> None:
        try:
            self._engine.sync()
        except StoreError as error:
            events.tell(events.ERROR, "sync failed", error=type(error).__name__)
            # Whether these changes are on disk is unknown now. They stay readable, so no reader may keep an
            # older version of their items in a cache; the index and the feed do not take them in.
            for transaction in self._unapplied:
                self._tell([msgspec.structs.replace(e, remove=(), add=()) for e in transaction.effects])
            self._unapplied.clear()
            raise

    def _apply(self, transaction: StoreTransaction) -> None:
        # Else it wrote nothing, and what its state counts may be of changes whose sync failed.
        if transaction in self._unapplied:
            self._unapplied.remove(transaction)
            self._applied = max(self._applied, transaction.state.sequence)
        self._tell(transaction.effects)
        if isinstance(transaction, BuildTransaction) and transaction.applied is not None:
            transaction.applied()
        if transaction.queued:
            self.work.tell()

    def _tell(self, effects: Sequence[RowChange]) -> None:
        if any(effect.erased for effect in effects):
            self._owners.clear()
        for apply in self._subscribers:
            apply(effects)

    # -------------------------------------------------------------------------------------- reads

    @property
    def identity(self) -> StoreIdentity:
        return self._identity

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def read_only(self) -> bool:
        return self._read_only

    def now(self) -> int:
        return max(self._clock.now(), self._state.at)

    def owner(self, owner: Owner) -> int | None:
        number = self._owners.get(owner)
        if number is None:
            key, epoch = codec.owner_name_key(owner_digest(self._identity, owner)), self._epoch
            stored = self._engine.get("owners", key)
            if stored is None:
                return None
            number = int.from_bytes(codec.unseal("owners", key, stored), "big")
            if len(self._owners) >= _OWNER_CACHE:
                self._owners.clear()
            self._owners[owner] = number
            if epoch != self._epoch:
                self._owners.pop(owner, None)  # the owner may have been erased meanwhile
        return number

    def owner_items(self, owner: int) -> int:
        key = codec.owner_state_key(owner)
        stored = self._engine.get("owners", key)
        return 0 if stored is None else decode(codec.unseal("owners", key, stored), OwnerValue).items

    def owners(self, after: int) -> Iterator[tuple[int, Owner]]:
        start, stop = codec.prefix_range(codec.owner_state_key(0)[:1])
        for key, stored in self._engine.scan(
            "owners", max(start, codec.owner_state_key(after) + b"\0"), stop
        ):
            value = decode(codec.unseal("owners", key, stored), OwnerValue)
            if value.id:  # else it was erased
                yield codec.read_owner_state_key(key), Owner(value.type, value.id)

    def get_many(self, keys: Sequence[bytes]) -> list[Record | None]:
        return [
            None if value is None else make_record(key, decode(codec.unseal("items", key, value), ItemValue))
            for key, value in zip(keys, self._engine.get_many("items", keys), strict=True)
        ]

    def get_version(self, key: bytes, version: int) -> Record | None:
        (current,) = self.get_many([key])
        if current is not None and current.item.version == version:
            return current
        history_key = codec.history_key(key, version)
        stored = self._engine.get("history", history_key)
        if stored is None:
            return None
        value = decode(codec.unseal("history", history_key, stored), HistoryValue)
        return None if value.item is None else make_record(key, value.item)

    def history(self, key: bytes) -> list[Past]:
        found: list[Past] = []
        stored_now = self._engine.get("items", key)
        while True:
            past = list(self._engine.scan("history", *codec.prefix_range(key)))
            before, stored_now = stored_now, self._engine.get("items", key)
            if stored_now == before:  # else it changed between the reads: a version may be in neither
                break
        for history_key, stored in past:
            value = decode(codec.unseal("history", history_key, stored), HistoryValue)
            record = None if value.item is None else make_record(key, value.item)
            reason = value.reason if value.item is None else value.item.reason
            found.append(Past(value.operation, value.at, record, reason))
        if stored_now is not None:
            current = decode(codec.unseal("items", key, stored_now), ItemValue)
            if not any(past.record and past.record.item.version == current.version for past in found):
                now = make_record(key, current)
                found.append(Past(current.operation, current.recorded_at, now, current.reason))
        return found

    def vector(self, key: bytes, version: int, identity: StoreIdentity) -> NDArray[np.float32] | None:
        vector_key = codec.vector_key(key, version)
        stored = self._engine.get(identity.vectors, vector_key)
        if stored is None:
            return None
        payload = codec.unseal(identity.vectors, vector_key, stored)
        vector: NDArray[np.float32] = decode_row(key, version, payload, identity.dimension).vector
        return vector

    def rows(
        self, owner: int, identity: StoreIdentity, metadata: bool = False, space: Space | None = None
    ) -> Iterator[RowBlock]:
        if space is not None and space.number not in owner_spaces(self._engine, owner):
            return iter(())  # the owner's texts need not be gone through
        start, stop = codec.prefix_range(owner_prefix(owner))
        return read_blocks(
            self._engine, identity.vectors, start, stop, identity.dimension, metadata=metadata, space=space
        )

    def spaces(self) -> dict[str, Space]:
        return read_spaces(self._engine)

    def space_of(self, key: bytes, version: int) -> int:
        vector_key, family = codec.vector_key(key, version), self._identity.vectors
        stored = self._engine.get(family, vector_key)
        return 0 if stored is None else row_space(codec.unseal(family, vector_key, stored))

    def item_rows(self, key: bytes, metadata: bool = False) -> Iterator[Row]:
        start, stop = codec.prefix_range(key)
        family, dimension = self._identity.vectors, self._identity.dimension
        # In this order: a version that leaves `items` is in `history` from the same write on.
        vectors = self._engine.scan(family, start, stop)
        versions = Versions(self._engine, start, stop) if metadata else None
        for key, stored in vectors:
            payload = codec.unseal(family, key, stored)
            item_key, version = codec.read_version_key(family, key)
            row = decode_row(item_key, version, payload, dimension)
            yield (
                row
                if versions is None
                else msgspec.structs.replace(row, metadata=versions.metadata(item_key, version))
            )

    def records(
        self, owner: int, *, order: Order, reverse: bool, after: bytes | None
    ) -> Iterator[tuple[bytes, Record]]:
        family = "items" if order == "recorded" else "listing"
        start, stop = codec.prefix_range(owner_prefix(owner))
        if after is not None:
            if owner_of(after) != owner:
                raise ValueError("cursor of another owner")
            start, stop = (start, after) if reverse else (after + b"\0", stop)
        for key, stored in self._engine.scan(family, start, stop, reverse=reverse):
            payload = codec.unseal(family, key, stored)
            if family == "items":
                yield key, make_record(key, decode(payload, ItemValue))
            else:
                (record,) = self.get_many([codec.read_listing_key(key)[1]])
                if record is not None:
                    yield key, record

    def entries(self, since: int) -> Iterator[LogEntry]:
        return self._entries(since, self._applied)

    def _entries(self, since: int, last: int) -> Iterator[LogEntry]:
        expected = since + 1
        if expected > last:
            return
        for key, stored in self._engine.scan("log", codec.log_key(expected), codec.log_key(last + 1)):
            entry = decode_entry(key, stored)
            if entry.sequence != expected:
                raise StoreCorrupt(f"log entry {expected} is missing, the next is {entry.sequence}")
            expected += 1
            yield entry

    def position(self) -> LogEntry | None:
        return next(self.entries(self._applied - 1), None) if self._applied else None

    def job(self) -> ReembedJob | None:
        return read_job(self._engine)

    def totals(self) -> dict[str, int]:
        state = self._state
        return {"items": state.items, "owners": state.owners, "sequence": state.sequence}

    def sizes(self) -> dict[str, int]:
        return self._engine.sizes()

    def refresh(self) -> int:
        if self._read_only:
            raise NotSupported(
                "the store was opened with read_only=True and shows the state of then: "
                "open it with follow=True to see what is written later"
            )
        return 0

    def lag(self) -> tuple[int, float]:
        return 0, 0.0

    def kept(self, key: bytes) -> bytes | None:
        stored = self._engine.get("meta", key)
        return None if stored is None else bytes(codec.unseal("meta", key, stored))

    def kept_between(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key, stored in self._engine.scan("meta", start, stop):
            yield key, bytes(codec.unseal("meta", key, stored))

    def compact(self) -> int:
        return self._engine.compact([(family, b"", codec.KEYS_END) for family in codec.FAMILIES])

    def backup(self, root: str, digests: DigestsOf, *, verify: bool) -> Backup:
        from .backup import make_backup  # nobody else needs it, nor what it imports to verify

        return make_backup(self, self._engine, root, digests, verify=verify)

    def close(self) -> None:
        self._committer.stop()
        self._engine.close()


def open_log(
    engine: Engine, clock: Clock, *, model_id: str, dimension: int, durability: Durability = "sync",
    max_queue: int = 4096, read_only: bool = False, kind: type[StoreLog] = StoreLog,
    max_queue_bytes: int = 1 << 62, timeout: float | None = None,
) -> StoreLog:  # fmt: skip
    """Open or create the log on an engine. kind: the class that is made, for logs that follow (follow.py).
    max_queue, max_queue_bytes: how much may wait for the committer; timeout: for how many seconds.

    Raises ModelMismatch when the store holds vectors of another model, FormatError when it is newer, or is
    empty and opened read-only.
    """
    if not isinstance(model_id, str) or not 1 <= len(model_id.encode("utf-8", "replace")) <= 512:
        raise InputError("model_id must be a string of 1 to 512 bytes")
    if isinstance(dimension, bool) or not isinstance(dimension, int) or not 1 <= dimension <= MAX_DIMENSION:
        raise InputError(f"an embedder's dimension must be an integer from 1 to {MAX_DIMENSION}")
    identity = read_identity(engine)
    if identity is None:
        if read_only:
            raise FormatError("there is no store here yet; open it once without read_only=True to create it")
        identity = StoreIdentity(FORMAT, clock.now(), os.urandom(16), model_id, dimension)
        engine.write([identity_entry(identity)])
        engine.sync()
    if (identity.model_id, identity.dimension) != (model_id, dimension):
        raise ModelMismatch(
            f"the store holds vectors of {identity.model_id!r} ({identity.dimension} dimensions), "
            f"not of {model_id!r} ({dimension}); "
            "open it with that model, or as dimension= and model_id= name it, and change to this one with "
            "reembed() or `warpmem reembed`"
        )
    if not read_only:
        tidy(engine)
    return kind(
        engine, identity, clock, durability=durability, max_queue=max_queue, read_only=read_only,
        max_queue_bytes=max_queue_bytes, timeout=timeout,
    )  # fmt: skip
