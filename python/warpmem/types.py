"""The values that cross warpmem's public API: plain, frozen msgspec structs.

All datetimes are timezone-aware. All ids are opaque strings. Metadata is JSON (None, bool, int, float, str,
list, dict with str keys).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, overload

import msgspec
from msgspec import UNSET, UnsetType

from .errors import InputError, InvalidScope

KINDS = ("fact", "preference", "event", "procedure", "document", "summary", "message")
"""The kinds every store knows. Any other identifier may be used as a kind too."""

Action = Literal["added", "touched", "superseded", "queued"]
Durability = Literal["sync", "os"]
Modality = Literal["text", "code", "log", "image", "audio"]
Operation = Literal["add", "touch", "update", "close", "delete", "erase"]
Order = Literal["recorded", "valid_from"]
Metric = Literal["cosine", "ip", "l2"]
Storage = Literal["f32", "f16", "int8", "pq"]
ColumnType = Literal["int64", "float64", "bool", "str", "time"]

_MAX_HALF_LIFE = timedelta(days=365_250)


def _utf8_bytes(value: str, name: str) -> int:
    try:
        return len(value.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InvalidScope(f"{name} is not valid Unicode text") from error


class Owner(msgspec.Struct, frozen=True):
    """Whose partition: the first part of every storage key and the list set of every search."""

    type: Literal["user", "agent", "run", "corpus"]
    id: str


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """Whose memory it is. At least one id is set; a corpus stands alone.

    The owner is the user if given, else the agent, else the run, else the corpus. The other ids are
    attributes of each item: a search that names them sees only items that carry the same ids, a search that
    leaves them unset sees any.
    """

    user_id: str | None = None
    agent_id: str | None = None
    run_id: str | None = None
    corpus_id: str | None = None

    def __post_init__(self) -> None:
        values = (self.user_id, self.agent_id, self.run_id, self.corpus_id)
        if all(value is None for value in values):
            raise InvalidScope("a scope needs at least one of user_id, agent_id, run_id, corpus_id")
        for name, value in zip(("user_id", "agent_id", "run_id", "corpus_id"), values, strict=True):
            if value is None:
                continue
            if not isinstance(value, str):
                raise InvalidScope(f"{name} must be a string, not {type(value).__name__}")
            if not 0 < _utf8_bytes(value, name) <= 512:
                raise InvalidScope(f"{name} must be 1 to 512 bytes of UTF-8")
        if self.corpus_id is not None and any(v is not None for v in values[:3]):
            raise InvalidScope("corpus_id stands alone; search several scopes with scopes=[...]")

    @property
    def owner(self) -> Owner:
        """The partition that this scope lives in."""
        if self.user_id is not None:
            return Owner("user", self.user_id)
        if self.agent_id is not None:
            return Owner("agent", self.agent_id)
        if self.run_id is not None:
            return Owner("run", self.run_id)
        assert self.corpus_id is not None
        return Owner("corpus", self.corpus_id)

    def covers(self, other: Scope) -> bool:
        """Whether an item with scope `other` is visible from this scope."""
        return (
            self.owner == other.owner
            and (self.agent_id is None or self.agent_id == other.agent_id)
            and (self.run_id is None or self.run_id == other.run_id)
        )


class MemoryItem(msgspec.Struct, frozen=True, kw_only=True):
    """One remembered thing, in one of its versions.

    `valid_from`, `valid_to`: when it was true in the world (half-open; None is "until further notice").
    `recorded_at`, `retired_at`: when this version was what the store knew. `created_at`: when the first
    version was recorded. `touched_at`: when it was last
    added, repeated or changed. `model_id`: the store's embedding model when this version was recorded.
    """

    id: str
    scope: Scope
    kind: str
    text: str
    modality: Modality = "text"
    blob: str | None = None
    metadata: dict[str, Any] = {}
    priority: float = 0.5
    key: str | None = None
    entities: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    trust: float = 1.0
    version: int = 1
    model_id: str
    created_at: datetime
    touched_at: datetime
    expires_at: datetime | None = None
    valid_from: datetime
    valid_to: datetime | None = None
    recorded_at: datetime
    retired_at: datetime | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A chat message. `at` is when it was said (default: now)."""

    role: str
    content: str
    name: str | None = None
    at: datetime | None = None


class NewItem(msgspec.Struct, frozen=True, kw_only=True):
    """What to add when a string is not enough.

    Unset fields take the call's value, then the default; metadata of call and item are merged.
    """

    text: str
    scope: Scope | None = None
    kind: str | None = None
    modality: Modality = "text"
    blob: str | None = None
    metadata: dict[str, Any] | None = None
    priority: float | None = None
    key: str | None = None
    entities: Sequence[str] = ()
    sources: Sequence[str] = ()
    trust: float = 1.0
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    expires_at: datetime | None = None
    vector: Any = None
    idempotency_key: str | None = None


class ItemUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """The fields an update may change; what is UNSET stays as it is."""

    text: str | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET
    priority: float | UnsetType = UNSET
    entities: Sequence[str] | UnsetType = UNSET
    sources: Sequence[str] | UnsetType = UNSET
    trust: float | UnsetType = UNSET
    valid_from: datetime | UnsetType = UNSET
    valid_to: datetime | UnsetType | None = UNSET
    expires_at: datetime | UnsetType | None = UNSET
    vector: Any = UNSET


class AddResult(msgspec.Struct, frozen=True):
    """What became of one added item. `replaced` is the id whose validity the new item closed."""

    id: str
    action: Action
    replaced: str | None = None


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """Weights of the final score, a plain weighted sum that is not renormalised.

    similarity: cosine in [-1, 1]. lexical: BM25 of the query's words in the text, as a share of the best that
    they could have, in [0, 1). adjacent: lexical of the items just before and after in the same run (of one
    kind, agent and run), whatever filters say, and half of that of the next but one. priority: the item's
    own, in [0, 1]. recency: ``2 ** (-max(0, now - valid_from) / half_life)`` in (0, 1]. diversity: reserved.
    """

    similarity: float = 1.0
    lexical: float = 0.0
    adjacent: float = 0.0
    recency: float = 0.0
    priority: float = 0.0
    half_life: timedelta = timedelta(days=30)
    diversity: float = 0.0

    def __post_init__(self) -> None:
        for name in ("similarity", "lexical", "adjacent", "recency", "priority", "diversity"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0.0 <= value <= 1e6:
                raise InputError(f"ranking weight {name} must be a number from 0 to 1e6")
        if not isinstance(self.half_life, timedelta) or self.half_life < timedelta(microseconds=1):
            raise InputError("ranking half_life must be a timedelta of at least a microsecond")


class RankBy(msgspec.Struct, frozen=True, kw_only=True):
    """Weights of the final score of a `VectorIndex` search, a plain weighted sum that is not renormalised.

    similarity: as the metric has it. recency: ``2 ** (-max(0, now - t) / half_life)`` in (0, 1], where t is
    the row's value in `recency_column`, a "time" column; a row without one gets 0. priority: the row's value
    in `priority_column`, a "float64" column; a row without one gets 0. now: an aware datetime; None is the
    time of the search."""

    similarity: float = 1.0
    recency: float = 0.0
    recency_column: str | None = None
    half_life: timedelta = timedelta(days=30)
    priority: float = 0.0
    priority_column: str | None = None
    now: datetime | None = None

    def __post_init__(self) -> None:
        for name in ("similarity", "recency", "priority"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0.0 <= value <= 1e6:
                raise InputError(f"ranking weight {name} must be a number from 0 to 1e6")
        for name in ("recency", "priority"):
            column = getattr(self, f"{name}_column")
            if column is not None and not isinstance(column, str):
                raise InputError(f"ranking {name}_column must be a string, not {type(column).__name__}")
            if column is None and getattr(self, name):
                raise InputError(f"ranking by {name} needs {name}_column, the column that holds it")
        if (
            not isinstance(self.half_life, timedelta)
            or not timedelta(microseconds=1) <= self.half_life <= _MAX_HALF_LIFE
        ):
            raise InputError("ranking half_life must be a timedelta from a microsecond to 1,000 years")
        if self.now is not None and not isinstance(self.now, datetime):
            raise InputError(f"ranking now must be a datetime, not {type(self.now).__name__}")


class Neighbors(msgspec.Struct, frozen=True, eq=False):
    """What a `VectorIndex` search found: `ids, scores = index.search(...)`.

    ids: (n, k) int64, best first, -1 where there are fewer than k. scores: (n, k) float32, larger is nearer,
    -inf in the same places. plan: how it was done, when `explain` asked for it, else None.
    """

    ids: Any
    scores: Any
    plan: dict[str, Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        return iter((self.ids, self.scores))


class Hit(msgspec.Struct, frozen=True):
    """One found item. `parts`: the terms of the score, and with explain=True their weights."""

    item: MemoryItem
    score: float
    parts: dict[str, float]


class SearchResult(Sequence[Hit]):
    """Hits, best first, with what was done to get them.

    backend: name of the search backend. plan: the kernel configuration, in words. degraded: what was skipped
    under load (empty when nothing was). timings: seconds by stage. vectors: (n, dim) float32 of the hits when
    `return_vectors` asked for them, else None.
    """

    __slots__ = ("_hits", "backend", "degraded", "plan", "timings", "vectors")

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
    fit.
    """

    text: str
    citations: tuple[str, ...]
    tokens: int
    max_tokens: int
    counter: str
    omitted: int

    def __str__(self) -> str:
        return self.text


class Version(msgspec.Struct, frozen=True):
    """One entry of an item's history: what was done, when, and the item as it then was (None when erased)."""

    operation: Operation
    at: datetime
    item: MemoryItem | None


class Change(msgspec.Struct, frozen=True):
    """One entry of the change feed. `cursor` resumes after it; `version` is the version it made.

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


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of the store and its index. Sizes in bytes.

    lag_changes, lag_seconds: in a store that follows, how many changes of the process that writes it has not
    taken in, and how long ago the first of them was made; 0 elsewhere. owners: numbers given out, those of
    owners that were erased included. pending_erasures: begun, and not finished as long as no process opens
    the store for writing. models: "embedder": what its scheduler has done for all who share its device or
    endpoint: by lane ("interactive", "ingest", "background") the requests `served`, their `tokens`, and the
    requests `waiting` now; `batches`, `busy_seconds`, `rate` (tokens a second of one batch), calls `refused`
    as Overloaded, requests `dropped` that left unserved; "cache": `vectors`, `bytes`, `capacity`, `hits`,
    `misses` of the vectors kept of texts.
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
    index_rows: int
    index_bytes: int
    item_cache: dict[str, int]
    storage: dict[str, int]
    read_only: bool
    pending_erasures: int
    lag_changes: int
    lag_seconds: float
    reembed: ReembedStatus | None
    models: dict[str, dict[str, Any]]
