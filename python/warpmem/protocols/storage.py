"""The durable log, and the changes that move it forward."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..records import (
    Backup,
    BuildUnit,
    Descent,
    LogEntry,
    Past,
    Record,
    ReembedJob,
    Row,
    RowBlock,
    RowChange,
    Space,
    StoreIdentity,
    VersionName,
)
from ..types import Durability, MemoryItem, Operation, Order, Owner, Scope
from .work import WorkChanges, WorkQueue

T = TypeVar("T")

DigestsOf = Callable[[bytes, MemoryItem], tuple[bytes | None, bytes | None]]
"""(salt of the store, item) -> its digests in family lookup: of a duplicate, of its key's slot."""


class Transaction(WorkChanges, Protocol):
    """Reads and changes inside Log.transact. Only valid on the committer thread while `change` runs.

    Reads see earlier writes of the same transaction. Nothing is stored if `change` raises.
    """

    @property
    def now(self) -> int:
        """Time of this change: never earlier than that of any earlier change."""
        ...

    def owner(self, owner: Owner) -> int:
        """The owner's number, given out on first use."""
        ...

    def get(self, key: bytes) -> Record | None:
        """The item's current version, or None."""
        ...

    def made_by(self, key: bytes) -> Operation:
        """What made the current version of an item that is there."""
        ...

    def find_duplicates(self, owner: int, digest: bytes) -> list[bytes]:
        """Keys of the live items that were stored under this content digest, in no order."""
        ...

    def key_chain(self, owner: int, digest: bytes) -> list[tuple[int, bytes]]:
        """(valid_from, item key) of every live item in a key slot, ascending."""
        ...

    def idempotent(self, owner: int, digest: bytes) -> tuple[int, bytes, Any] | None:
        """(time, payload digest, result) remembered under an idempotency key."""
        ...

    def remember(self, owner: int, digest: bytes, payload: bytes, result: Any, window: int) -> None:
        """Keep `result` (plain msgpack values) under an idempotency key until it is older than `window`
        microseconds; older ones of the owner are forgotten on the way."""
        ...

    def space(self, name: str, model_id: str, dimension: int) -> Space:
        """The space of a modality, made now if the store has none. Raises ModelMismatch when it holds vectors
        of another model."""
        ...

    def add(
        self,
        owner: int,
        item: MemoryItem,
        vector: NDArray[np.float32] | None,
        *,
        duplicate: bytes | None,
        slot: bytes | None,
        space: int = 0,
        reason: str | None = None,
    ) -> Record:
        """Store a first version, whose vector is made later where it is None. `item.id`, ordinal and recorded
        times are set here. `duplicate` and `slot` are the digests to find it by. space: the number of the one
        that the vector lies in, in all versions of the item. reason: see revise."""
        ...

    def revise(
        self,
        old: Record,
        item: MemoryItem,
        vector: NDArray[np.float32] | None,
        *,
        operation: Operation,
        reason: str | None = None,
        duplicate: tuple[bytes | None, bytes | None] = (None, None),
        slot: tuple[bytes | None, bytes | None] = (None, None),
        later: bool = False,
    ) -> Record:
        """Store the next version of `old`; the old one goes to history. vector None keeps the old vector, or
        waits as the old version does; with `later` its own is made later.
        reason: why, for history; never the text of a memory.
        duplicate: (digest to forget, digest to remember). slot: (slot to leave, slot to enter), where they
        differ. An item with a slot keeps its `valid_from`, by which delete() finds it there."""
        ...

    def touch(self, record: Record) -> Record:
        """Note that a duplicate was added: `touched_at` becomes now. Not a new version."""
        ...

    def embed(self, key: bytes, version: int, vector: NDArray[np.float32]) -> bool:
        """Give a version the vector that it waits for; False, with nothing changed, when it does not wait."""
        ...

    def delete(
        self, record: Record, *, duplicate: bytes | None, slot: bytes | None, reason: str | None = None
    ) -> None:
        """Hide and unindex every version; history keeps them. reason: why the store decided so, None where
        the caller did."""
        ...

    def keep(self, key: bytes, payload: bytes | None) -> None:
        """Put an entry of family meta, about the store as a whole; None removes it."""
        ...


class VectorBuild(Protocol):
    """Vectors of another model on their way into the store; storage/vector_build.py. For one thread."""

    @property
    def job(self) -> ReembedJob: ...
    @property
    def identity(self) -> StoreIdentity:
        """What the store will be."""
        ...

    def count(self) -> int:
        """How many rows are in use now."""
        ...

    def next(self, limit: int, entries: Callable[[int], Iterable[LogEntry]]) -> BuildUnit | None:
        """The next step, of about `limit` rows; None when every change so far is followed. entries: as
        Log.entries."""
        ...

    def store(
        self,
        unit: BuildUnit,
        vectors: Mapping[VersionName, NDArray[np.float32]],
        also: Callable[[Transaction], None],
    ) -> None:
        """Take a step: `vectors` has (dim,) float32, normalised, for its lacking rows that still exist. also:
        what else the change does."""
        ...

    def switch(
        self,
        vectors: Mapping[VersionName, NDArray[np.float32]],
        most: int,
        before: Callable[[], None],
        applied: Callable[[], None],
    ) -> Sequence[VersionName] | None:
        """Follow the last changes and put the new vectors in use, as one change. None when that is done.
        Otherwise nothing was changed, and it returns the rows that need a vector first; none when more than
        `most` changes are left to follow. before: called on the committer thread just before; applied: when
        it is durable, before any later change is."""
        ...

    def finish(self) -> None:
        """Remove the vectors that were in use before."""
        ...


class Erasures(Protocol):
    """Removal for good of all items of some owners (their numbers) and of some other items (their keys).
    One at a time. Thread-safe.
    """

    def keys(self, owner: int) -> Iterator[tuple[bytes, Scope]]:
        """(key, scope) of each version of every item of an owner, deleted ones included."""
        ...

    def derived(self, owners: Collection[int], keys: Collection[bytes]) -> Descent:
        """What other items name these in the `sources` of a version. An item comes from what its current
        version names, directly or through each other, in a circle or not; from what any version names where
        that names nothing. An origin counts for nothing where these, or what goes with them, have it too."""
        ...

    def begun(self) -> Container[bytes]:
        """Keys of the items that pending erasures name one by one: of an owner who is being erased whole
        nobody knows which there were."""
        ...

    def remove(
        self,
        erasure: bytes,
        owners: Collection[int],
        keys: Collection[bytes],
        versions: Mapping[bytes, Collection[int]],
        *,
        late: bool,
    ) -> tuple[Mapping[str, int], Descent]:
        """Remove them, and past versions of others, and what refers to them from every record and from the
        log, in changes of bounded size. A crash leaves an erasure that is pending. late: and what has come to
        name them since derived() looked, and nothing else. Returns counts by place; and of what named them
        as a source, what went with them and what stays. erasure: 16 random bytes."""
        ...

    def resume(self) -> tuple[Mapping[str, int], Descent]:
        """Do what is left of remove() for the erasures that are pending; returns the same."""
        ...

    def scrub(self) -> int:
        """Remove what was removed from the bytes of every file of the engine too, and end the erasures that
        were pending. Returns how many tables were written anew."""
        ...

    def backups(self) -> list[tuple[int, str]]:
        """(time, path) of every backup and other copy that was made of the store, oldest first. Removes what
        a process that died has left of one."""
        ...

    def pending(self) -> int:
        """How many erasures were begun and have not ended."""
        ...


class Log(Protocol):
    """The one truth: atomic, durable, ordered changes, and the state they add up to. Thread-safe.

    Reads of records may see a change up to one sync before it is durable; subscribers and the feed do not.
    """

    @property
    def erasures(self) -> Erasures: ...
    @property
    def work(self) -> WorkQueue: ...
    @property
    def identity(self) -> StoreIdentity: ...
    @property
    def epoch(self) -> int:
        """Grows with every applied change."""
        ...

    def now(self) -> int:
        """The clock's time, never earlier than the last change's."""
        ...

    def transact(
        self, change: Callable[[Transaction], T], durability: Durability | None = None, size: int = 0
    ) -> T:
        """Run `change` on the committer thread and return its result once it is durable and every subscriber
        has seen it. Changes are serial. Exceptions of `change` pass through, nothing stored. size: bytes that
        it holds while it waits. Raises DeadlineExceeded, with nothing changed, when it waited too long."""
        ...

    def subscribe(self, apply: Callable[[Sequence[RowChange]], None]) -> None:
        """Call `apply` with each change's rows after it is durable and before transact returns."""
        ...

    def flush(self) -> None:
        """Return when every earlier change is durable, whatever durability it asked for."""
        ...

    def owner(self, owner: Owner) -> int | None: ...
    def get_many(self, keys: Sequence[bytes]) -> list[Record | None]: ...
    def texts(self, names: Sequence[VersionName]) -> list[str | None]:
        """The texts of item versions; None for one that was erased."""
        ...

    def key_chain(self, owner: int, digest: bytes) -> list[tuple[int, bytes]]:
        """Of what is stored: (valid_from, item) of every value of a key, oldest first."""
        ...

    def get_version(self, key: bytes, version: int) -> Record | None:
        """A version of an item, current or past; None when it was never stored or was erased."""
        ...

    def build_vectors(self, model_id: str, dimension: int) -> VectorBuild:
        """Begin to build the vectors of another model, or go on with that. Raises InputError when they are
        in use already."""
        ...

    def job(self) -> ReembedJob | None:
        """The change of the model that is not finished, if there is one."""
        ...

    def vector(self, key: bytes, version: int, identity: StoreIdentity) -> NDArray[np.float32] | None:
        """(dim,) float32 of one version, while it is indexed; of the model that was in use when the store
        was `identity`."""
        ...

    def history(self, key: bytes) -> list[Past]:
        """Every version, oldest first, deletion included."""
        ...

    def rows(
        self, owner: int, identity: StoreIdentity, metadata: bool = False, space: Space | None = None
    ) -> Iterator[RowBlock]:
        """Every indexed row of one owner in one space (None: that of the texts), current and past versions,
        each once, with their metadata if asked for."""
        ...

    def item_rows(self, key: bytes, metadata: bool = False) -> Iterator[Row]:
        """The indexed rows of one item."""
        ...

    def spaces(self) -> Mapping[str, Space]:
        """By modality, the spaces that the store has beside that of the texts."""
        ...

    def space_of(self, key: bytes, version: int) -> int:
        """The number of the space that the vector of a version lies in; 0 too where it has none."""
        ...

    def records(
        self, owner: int, *, order: Order, reverse: bool, after: bytes | None
    ) -> Iterator[tuple[bytes, Record]]:
        """(cursor, record) of the owner's current items in order, after a cursor."""
        ...

    def deleted(self, owner: int) -> Iterator[Record]:
        """The last version of each of the owner's deleted items, ascending by key."""
        ...

    def entries(self, since: int) -> Iterator[LogEntry]:
        """Log entries with sequence > since that subscribers have seen, so none that a power loss could
        still take back (but by durability "os"). Raises StoreCorrupt at a gap."""
        ...

    def position(self) -> LogEntry | None:
        """The last entry that subscribers have seen; None in a new log."""
        ...

    def owners(self, after: int) -> Iterator[tuple[int, Owner]]:
        """(number, owner) of every owner with a number above `after`, ascending."""
        ...

    def owner_items(self, owner: int) -> int:
        """How many live items an owner has."""
        ...

    def settled(self) -> None:
        """Return once reads show the changes that others were asked to make; at once where none were. Raises
        as refresh, and StoreError where they do not show."""
        ...

    def totals(self) -> dict[str, int]:
        """items, owners, sequence."""
        ...

    def refresh(self) -> int:
        """Take in what the process that writes has written by now; how many changes that was. 0 in that
        process itself. Raises NotSupported in a log that shows one moment."""
        ...

    def lag(self) -> tuple[int, float, int]:
        """(changes, seconds, failures): how many changes of the process that writes this log has not taken
        in, how long ago the first of them was made, and how often looking at them, or its own thread in
        taking them, has failed. What was known last while it fails. Raises StoreClosed."""
        ...

    def sizes(self) -> dict[str, int]: ...
    @property
    def read_only(self) -> bool: ...
    def kept(self, key: bytes) -> bytes | None:
        """What Transaction.keep put under a key."""
        ...

    def kept_between(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) of what it put there, start <= key < stop, ascending."""
        ...

    def require_room(self, size: int) -> None:
        """Raise DiskFull unless a file of `size` bytes fits beside the database above the low-water mark.
        Inside a change."""
        ...

    def compact(self) -> int:
        """Write every table anew, without what was deleted or replaced; how many were. Needs as much room
        again, above the low-water mark, until it is done. Reads and changes go on. Raises DiskFull."""
        ...

    def backup(self, root: str, digests: DigestsOf, *, verify: bool) -> Backup:
        """Make a backup in a new directory below `root` while changes go on. Raises NotSupported in a store
        in memory, StoreReadOnly, StoreCorrupt when what was copied does not verify, DiskFull, StoreError."""
        ...

    def close(self) -> None: ...
