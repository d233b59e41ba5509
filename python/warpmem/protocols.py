"""Every seam of warpmem, with its contract. Implementations live in the folders named here.

    Clock           ops/clock.py
    Embedder        embed/            TokenCounter    reason/
    LanguageModel   reason/           Reranker        reason/
    Engine          storage/rocks.py, storage/memory.py      (bytes)
    Log             storage/log.py                           (records)
    Transaction     storage/transaction.py
    RowPool, SearchBackend            index/cpu.py, index/numpy_ref.py
    Index           index/partitions.py

The values that cross them are in records.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .records import (
    LogEntry,
    Match,
    Record,
    Row,
    RowChange,
    ScoreParams,
    SearchRequest,
    Segment,
    SegmentTable,
    StoreIdentity,
)
from .types import Durability, MemoryItem, Message, Operation, Order, Owner

T = TypeVar("T")

# ------------------------------------------------------------------------------------------- time


class Clock(Protocol):
    """Source of the current time."""

    def now(self) -> int:
        """Microseconds since 1970-01-01 UTC. May go backwards; callers cope."""
        ...


# ----------------------------------------------------------------------------------------- models


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors. Thread-safe.

    `model_id` names the weights (equal ids mean equal vectors); `dimension` is fixed.
    """

    @property
    def model_id(self) -> str: ...
    @property
    def dimension(self) -> int: ...

    def embed(self, texts: Sequence[str], *, role: Literal["document", "query"]) -> NDArray[np.float32]:
        """(n, dimension) float32, finite, no all-zero row; row i depends on texts[i] alone.

        Raises InvalidText when a text holds no token, EmbeddingError when the model fails.
        """
        ...


class TokenCounter(Protocol):
    """Counts a text's tokens, never fewer than the model the text is meant for would."""

    @property
    def name(self) -> str: ...
    def count(self, text: str) -> int: ...


class LanguageModel(Protocol):
    """Answers a chat. Its output is untrusted: callers validate it."""

    @property
    def model_id(self) -> str: ...
    def complete(
        self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None, max_tokens: int = 1024
    ) -> str:
        """The answer's text; JSON that should follow `schema` when one is given. Raises ModelError."""
        ...


class Reranker(Protocol):
    """Scores (query, text) pairs; larger is better."""

    @property
    def model_id(self) -> str: ...
    def rerank(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n,) float32, finite. Raises ModelError."""
        ...


# ---------------------------------------------------------------------------------------- storage


class Engine(Protocol):
    """An ordered key-value store with named families: bytes in, bytes out, no meaning.

    Reads are thread-safe. Writes come from one thread at a time. All errors are StoreError.
    """

    def get(self, family: str, key: bytes) -> bytes | None: ...
    def get_many(self, family: str, keys: Sequence[bytes]) -> list[bytes | None]: ...

    def scan(
        self, family: str, start: bytes, stop: bytes, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Entries with start <= key < stop, ascending (descending when reverse), from one moment in time.

        A damaged block raises StoreCorrupt; the iteration never ends early in silence.
        """
        ...

    def write(self, operations: Sequence[tuple[str, bytes, bytes | None]]) -> None:
        """Apply (family, key, value) in order, all or nothing; value None deletes. Survives the death of the
        process, not a power loss until sync(). DiskFull before the attempt means nothing was applied; after
        a failed attempt (DiskFull, StoreReadOnly) all or nothing of it is found at the next open."""
        ...

    def sync(self) -> None:
        """Make every earlier write durable. After a failure the engine refuses all writes."""
        ...

    def sizes(self) -> dict[str, int]:
        """Bytes on disk and in memory, by part."""
        ...

    def close(self) -> None:
        """Flush and release; idempotent."""
        ...


class Transaction(Protocol):
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

    def add(
        self,
        owner: int,
        item: MemoryItem,
        vector: NDArray[np.float32],
        *,
        duplicate: bytes | None,
        slot: bytes | None,
    ) -> Record:
        """Store a first version. `item.id`, ordinal and recorded times are set here. `duplicate` and `slot`
        are the digests to find it by."""
        ...

    def revise(
        self,
        old: Record,
        item: MemoryItem,
        vector: NDArray[np.float32] | None,
        *,
        operation: Operation,
        duplicate: tuple[bytes | None, bytes | None] = (None, None),
    ) -> Record:
        """Store the next version of `old`; the old one goes to history. vector None keeps the old vector.
        duplicate: (digest to forget, digest to remember)."""
        ...

    def touch(self, record: Record) -> Record:
        """Note that a duplicate was added: `touched_at` becomes now. Not a new version."""
        ...

    def delete(self, record: Record, *, duplicate: bytes | None, slot: bytes | None) -> None:
        """Hide and unindex every version; history keeps them."""
        ...


class Log(Protocol):
    """The one truth: atomic, durable, ordered changes, and the state they add up to. Thread-safe.

    Reads of records may see a change up to one sync before it is durable; subscribers and the feed do not.
    """

    @property
    def identity(self) -> StoreIdentity: ...
    @property
    def epoch(self) -> int:
        """Grows with every applied change."""
        ...

    def now(self) -> int:
        """The clock's time, never earlier than the last change's."""
        ...

    def transact(self, change: Callable[[Transaction], T], durability: Durability | None = None) -> T:
        """Run `change` on the committer thread and return its result once it is durable and every subscriber
        has seen it. Changes are serial. Exceptions of `change` pass through, nothing stored."""
        ...

    def subscribe(self, apply: Callable[[Sequence[RowChange]], None]) -> None:
        """Call `apply` with each change's rows after it is durable and before transact returns."""
        ...

    def flush(self) -> None:
        """Return when every earlier change is durable, whatever durability it asked for."""
        ...

    def owner(self, owner: Owner) -> int | None: ...
    def get_many(self, keys: Sequence[bytes]) -> list[Record | None]: ...
    def get_version(self, key: bytes, version: int) -> Record | None:
        """A version of an item, current or past; None when it was never stored or was erased."""
        ...

    def vector(self, key: bytes, version: int) -> NDArray[np.float32] | None:
        """(dim,) float32 of one version, while it is indexed."""
        ...

    def history(self, key: bytes) -> list[tuple[Operation, int, Record | None]]:
        """(operation, time, record) of every version, oldest first, deletion included."""
        ...

    def rows(self, owner: int, metadata: bool = False) -> Iterator[Row]:
        """Every indexed row of one owner, current and past versions, with their metadata if asked for."""
        ...

    def item_rows(self, key: bytes, metadata: bool = False) -> Iterator[Row]:
        """The indexed rows of one item."""
        ...

    def records(
        self, owner: int, *, order: Order, reverse: bool, after: bytes | None
    ) -> Iterator[tuple[bytes, Record]]:
        """(cursor, record) of the owner's current items in order, after a cursor."""
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

    def totals(self) -> dict[str, int]:
        """items, owners, sequence."""
        ...

    def sizes(self) -> dict[str, int]: ...
    @property
    def read_only(self) -> bool: ...
    def close(self) -> None: ...


# ------------------------------------------------------------------------------------------ index


class RowPool(Protocol):
    """Rows in lists, with one scan. Writers are serialised inside; scans never block and see each apply()
    whole or not at all. Vectors are float32 (dim,); scoring is the canonical scorer of csrc/core/score.hpp.
    """

    @property
    def isa(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def n_columns(self) -> int: ...

    def apply(
        self,
        removes: Sequence[tuple[int, int]],
        list_ids: NDArray[np.int64],
        row_ids: NDArray[np.int64],
        ordinals: NDArray[np.uint32],
        columns: NDArray[np.int64],
        vectors: NDArray[np.float32],
    ) -> None:
        """Remove (list_id, row_id) pairs, then add n rows: list_ids, row_ids, ordinals (n,), columns (n,
        n_columns), vectors (n, dim). An unknown pair is ignored; a row_id live in its list is replaced."""
        ...

    def drop(self, list_ids: Sequence[int]) -> None: ...

    def compact(self, list_id: int) -> None:
        """Give back the memory of a list's removed rows; an unknown list is ignored. Results stay the same."""
        ...

    def scan(
        self,
        queries: NDArray[np.float32],
        segments: Sequence[Segment] | SegmentTable,
        k: int,
        *,
        min_similarity: float = ...,
        w_similarity: float = 1.0,
        w_recency: float = 0.0,
        w_priority: float = 0.0,
        half_life: float = 1.0,
        recency_column: int = 0,
        priority_column: int = 0,
        now: int = 0,
    ) -> tuple[
        NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]
    ]:
        """The k best rows of each query (q, dim) over its segments.

        Returns scores, similarities (q, k) float32, list_ids, row_ids (q, k) int64, counts (q,) int32; padded
        with
        -inf and -1. Order: score descending, group, ordinal, row_id ascending. half_life in microseconds.
        """
        ...

    def vectors(self, list_id: int, row_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, dim) float32 as stored. KeyError when a row is absent."""
        ...

    def lists(self) -> NDArray[np.int64]:
        """Ids of all lists, ascending, (n,) int64."""
        ...

    def rows(self, list_id: int) -> tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.int64]]:
        """row_ids (n,), ordinals (n,), columns (n, n_columns) of a list's live rows in the order they lie in,
        all of one moment; empty for an unknown list."""
        ...

    def stats(self) -> dict[str, int]:
        """lists, rows, dead, pages, bytes."""
        ...


class SearchBackend(Protocol):
    """A way to compute. `capabilities` is a subset of {"scan", "filter", "ranking", "kmeans", "pq",
    "file"}."""

    name: str
    capabilities: frozenset[str]

    def available(self) -> str | None:
        """None when usable here, else the reason and the remedy in one sentence."""
        ...

    def pool(
        self,
        dim: int,
        n_columns: int,
        *,
        storage: str = "f32",
        metric: str = "dot",
        screen: str = "auto",
        threads: int = 1,
    ) -> RowPool:
        """A new, empty pool.

        storage: how rows are kept, "f32", "f16" or "int8". metric: "dot", or "l2", whose similarity is the
        negated squared distance. screen and threads are wishes that change no result.
        """
        ...

    def normalize(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, dim) float32 to unit length, canonically. ValueError on a zero or non-finite row."""
        ...


class FileBackend(SearchBackend, Protocol):
    """A backend with the capability "file": its pools can be saved and mapped back."""

    def save_pool(self, pool: RowPool, path: str, sections: Mapping[str, bytes]) -> None:
        """Write a pool of this backend and named sections to one file, in place of what stands there.

        Raises DiskFull, StoreReadOnly, IndexCorrupt.
        """
        ...

    def open_pool(self, path: str, *, threads: int = 1) -> tuple[RowPool, Mapping[str, bytes]]:
        """The pool and the sections of a file. Raises IndexCorrupt, FormatError, FileNotFoundError; a damaged
        page raises IndexCorrupt where it is first touched."""
        ...


class Index(Protocol):
    """Every owner's rows, derived from the log and rebuilt from it at will. Thread-safe."""

    def apply(self, changes: Sequence[RowChange]) -> None:
        """Take in committed changes; visible to the next search. Owners not loaded are left alone."""
        ...

    def search(self, requests: Sequence[SearchRequest], k: int, params: ScoreParams) -> list[list[Match]]:
        """The k best matches of each request, exactly. An item appears once per request."""
        ...

    def row_keys(self, owner: int) -> tuple[int, Sequence[tuple[bytes, int] | None]]:
        """(generation, item key and version by row id; None where removed). Any change to the owner's rows
        changes the generation."""
        ...

    def generation(self, owner: int) -> int: ...
    def decides(self, owner: int, node: Any) -> bool:
        """Whether ScopePart.where may be this filter (a Node of ops/filter_grammar.py) for this owner."""
        ...

    def vector(self, match: Match) -> NDArray[np.float32] | None:
        """(dim,) float32 stored vector of a match; None when its row has left the index."""
        ...

    def plan(self) -> str: ...
    def stats(self) -> dict[str, int]: ...

    def checkpoint(self, least_changes: int = 0) -> bool:
        """Write what the next open would have to compute again; False when there is nowhere to write, or
        `least_changes` is given and fewer rows than that, or than a tenth of all, have changed since. Changes
        wait meanwhile, searches do not."""
        ...
