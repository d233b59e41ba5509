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
from ..ops.ids import KeyMaker
from ..protocols import Clock, Engine, Transaction
from ..protocols.storage import DigestsOf
from ..records import (
    Backup,
    LogEntry,
    ReembedJob,
    RowChange,
    StoreIdentity,
)
from ..types import Durability, Owner
from ..types.scalars import integer
from . import codec
from .committer import Committer
from .embedding import EmbeddingTransaction
from .erasing import ErasingTransaction
from .erasure import StoreErasures
from .identity import FORMAT, identity_entry, read_identity
from .log_reads import LogReads
from .log_state import check_unbroken, decode_entry, last_key_time, load_state
from .owner_book import OwnerBook, Told
from .transaction import StoreTransaction, owner_digest
from .values import OwnerValue, decode
from .vector_build import BuildTransaction, VectorBuild, begin, read_job, tidy
from .work import StoreWork

T = TypeVar("T")
S = TypeVar("S", bound=StoreTransaction)

_OWNER_CACHE = 65_536


class StoreLog(LogReads):
    """Implements protocols.Log over any protocols.Engine."""

    def __init__(
        self, engine: Engine, identity: StoreIdentity, clock: Clock, *, durability: Durability, max_queue:
        int, read_only: bool, max_queue_bytes: int = 1 << 62, timeout: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(engine, identity)
        self._clock = clock
        self._durability = durability
        self._read_only = read_only
        self._state = load_state(engine)
        self._applied = self._state.sequence
        self._unapplied: list[StoreTransaction] = []
        self._keys = KeyMaker(max(self._state.at, last_key_time(engine)))
        self._epoch = 0
        self._owners: dict[Owner, int] = {}
        self._book = OwnerBook()
        self._owners_told: Told | None = None
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
            raise StoreReadOnly(
                "the store was opened with read_only=True or follow=True: open it without to change it"
            )

        def job() -> tuple[S, S, T]:
            self._book.take(self._owners_told)
            self._state.unsynced = self._committer.unsynced
            now = self._clock.now()
            transaction = kind(self._engine, self._identity, self._state, self._keys, now, self._book)
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
        self._owners_told = transaction.told

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
            self._book.take(None)
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

    def settled(self) -> None:
        """See protocols.Log."""

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

    def lag(self) -> tuple[int, float, int]:
        return 0, 0.0, 0

    def require_room(self, size: int) -> None:
        self._engine.require_room(size)

    def compact(self) -> int:
        return self._engine.compact([(family, b"", codec.KEYS_END) for family in codec.FAMILIES], frees=False)

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
    empty and opened read-only, StoreCorrupt where one of its newest changes is missing.
    """
    if not isinstance(model_id, str) or not 1 <= len(model_id.encode("utf-8", "replace")) <= 512:
        raise InputError("model_id must be a string of 1 to 512 bytes")
    dimension = integer(dimension, "an embedder's dimension", 1, MAX_DIMENSION)
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
        check_unbroken(engine)
    return kind(
        engine, identity, clock, durability=durability, max_queue=max_queue, read_only=read_only,
        max_queue_bytes=max_queue_bytes, timeout=timeout,
    )  # fmt: skip
