"""What a store and an index answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Literal, overload

import msgspec
import numpy as np
from numpy.typing import NDArray

from .items import Durability, MemoryItem, Operation, Scope

Order = Literal["recorded", "valid_from"]
Metric = Literal["cosine", "ip", "l2"]
Storage = Literal["f32", "f16", "int8", "pq"]
ColumnType = Literal["int64", "float64", "bool", "str", "time"]


class Neighbors(msgspec.Struct, frozen=True, eq=False):
    """What a `VectorIndex` search found: `ids, scores = index.search(...)`.

    ids: (n, k) int64, best first, -1 where there are fewer than k. scores: (n, k) float32, larger is nearer,
    -inf in the same places. plan: how it was done, when `explain` asked for it, else None. degraded:
    ("probes",) where fewer cells were read than the wanted recall takes, for want of time, else empty. Those
    of results="device" are arrays of `_cuda`, with DLPack and `__cuda_array_interface__`: what type checkers
    are told holds for the host.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    plan: dict[str, Any] | None = None
    degraded: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return iter((self.ids, self.scores))


class Hit(msgspec.Struct, frozen=True):
    """One found item. `parts`: the terms of the score, and with explain=True their weights. `space`: whose
    model's vectors were compared, "text" or the item's modality."""

    item: MemoryItem
    score: float
    parts: dict[str, float]
    space: str = "text"


class SearchResult(Sequence[Hit]):
    """Hits, best first, with what was done to get them.

    backend: name of the search backend. plan: the kernel configuration, in words. degraded: what was skipped
    under load, of "rerank", "dense" and "lexical", and spaces that had nothing left; empty when nothing was,
    and the search is exact then. timings: seconds by stage. vectors: (n, dim) float32 of the hits when
    `return_vectors` asked for them, NumPy or, by "dlpack" on a device, an array of `_cuda` with DLPack and
    `__cuda_array_interface__`; else None.
    """

    __slots__ = ("_hits", "backend", "degraded", "plan", "timings", "vectors")

    vectors: NDArray[np.float32] | Any  # Any, not None: who asked for them need not ask again

    def __init__(
        self,
        hits: tuple[Hit, ...],
        backend: str,
        plan: str,
        degraded: tuple[str, ...] = (),
        timings: dict[str, float] | None = None,
        vectors: Any = None,
    ) -> None:
        self._hits = hits
        self.backend = backend
        self.plan = plan
        self.degraded = degraded
        self.timings = timings or {}
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self._hits)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, index: int | slice) -> Hit | tuple[Hit, ...]:
        return self._hits[index]

    def __iter__(self) -> Iterator[Hit]:
        return iter(self._hits)

    def __eq__(self, other: object) -> bool:
        return self._hits == other._hits if isinstance(other, SearchResult) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"SearchResult({len(self._hits)} hits, backend={self.backend!r}, plan={self.plan!r})"

    @property
    def items(self) -> tuple[MemoryItem, ...]:
        """The items of the hits, best first."""
        return tuple(hit.item for hit in self._hits)


class ContextBlock(msgspec.Struct, frozen=True):
    """Text for a prompt that is never over its budget.

    citations: item ids in the order of the text. tokens: as counted by `counter`. omitted: hits that did not
    fit. degraded: as that of the search; and of what picks sentences, "model" and "similarity" where it was
    done without.
    """

    text: str
    citations: tuple[str, ...]
    tokens: int
    max_tokens: int
    counter: str
    omitted: int
    degraded: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text


class Version(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry of an item's history: what was done, when, and the item as it then was (None when deleted).
    reason: why, where the store decided it and not the caller."""

    operation: Operation
    at: datetime
    item: MemoryItem | None
    reason: str | None = None


class Change(msgspec.Struct, frozen=True):
    """One entry of the change feed. `cursor` resumes after it; `version` is the version it made, for "embed"
    the one that got the vector which it had waited for.

    "erase" tells that something was erased, not what: `id` and `scope` are None, `version` is 0. What was
    erased leaves such an entry in the place of each of its own.
    """

    cursor: int
    at: datetime
    operation: Operation
    id: str | None
    scope: Scope | None
    version: int


class ItemPage(msgspec.Struct, frozen=True):
    """One page of a listing. `cursor` continues it; None when there is no more."""

    items: tuple[MemoryItem, ...]
    cursor: str | None

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[MemoryItem]:
        return iter(self.items)


class ReembedStatus(msgspec.Struct, frozen=True):
    """A change of the embedding model that is not finished. `vectors`: made so far. `running`: a call of this
    process is at it, else `reembed` with this model goes on with it. `switched`: the new model is in use,
    only the old vectors have still to go."""

    model_id: str
    dimension: int
    vectors: int
    started_at: datetime
    running: bool
    switched: bool


class JobReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a job. finished: it has been at every owner since it began with the first; else the next
    run goes on. owners: how many it has been at in this run. done: how many of what, since it began.
    failure: the kind of error that stopped it, such as "Overloaded" where a budget is spent, else None."""

    job: str
    finished: bool
    owners: int
    done: dict[str, int]
    seconds: float
    failure: str | None = None


class PendingWork(msgspec.Struct, frozen=True):
    """Work that a store has left to be done, of one kind. `waiting`: versions of items; `refused`, of these,
    cannot be done by a model that was asked. `oldest_seconds`: how long the first has waited, 0 where none
    does. `failure`: the kind of error for which this process waits before it tries again, else None."""

    waiting: int
    refused: int
    oldest_seconds: float
    failure: str | None


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of the store and its index. Sizes in bytes.

    lag_changes, lag_seconds: in a store that follows, how many changes of the process that writes it has not
    taken in, and how long ago the first of them was made; lag_errors: how often looking at them or, by
    itself, taking them in has failed since it was opened; 0 elsewhere. When looking fails just now, the first
    two are what was known last and how long ago that was. loaded_owners: those whose rows are in the index;
    unloaded_owners: how often one was forgotten there for `Config.index_bytes`. owners: numbers given out,
    those of owners that were erased included. pending_erasures: begun, and not finished as long as no process
    opens the store for writing. models: "embedder": what its scheduler has done for all who share its device
    or endpoint: by lane ("interactive", "ingest", "background") the requests `served`, their `tokens`, the
    requests `waiting` now, the calls `refused` as Overloaded and the requests `dropped` that left unserved;
    `batches`, `busy_seconds`, `turn_seconds` (for which the index had the device), `rate` (tokens a second of
    one batch); "cache", of the vectors kept of texts: `vectors`, `bytes`, `capacity`, `hits`, `misses`,
    `hit_rate` (a share, 0 before the first). item_cache: `items`, `capacity`, `hits`, `misses`, `hit_rate`.
    device: what of all indexes, those of the spaces too, lies on a device and what that did, added up;
    `failure` (why it answers nothing, or None), the budgets `limit` and `pinned_limit`; empty on the host.
    spaces: by modality, those beside that of the texts: `model_id`, `dimension`, and the `rows` that are
    loaded. pending: by kind what is still to be done, counted one by one: "embed": items that wait for their
    vectors.
    """

    path: str
    items: int
    owners: int
    sequence: int
    model_id: str
    dimension: int
    durability: Durability
    backend: str
    backend_reason: str
    loaded_owners: int
    unloaded_owners: int
    index_rows: int
    index_bytes: int
    device: dict[str, Any]
    item_cache: dict[str, float]
    storage: dict[str, int]
    read_only: bool
    pending_erasures: int
    lag_changes: int
    lag_seconds: float
    lag_errors: int
    reembed: ReembedStatus | None
    models: dict[str, dict[str, Any]]
    pending: dict[str, PendingWork]
    spaces: dict[str, dict[str, Any]] = {}
