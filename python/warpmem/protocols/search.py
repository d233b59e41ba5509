"""Search: rows in lists, backends that compute over them, and the index of a store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..records import (
    Match,
    NamedEntity,
    RowChange,
    ScopePart,
    ScoreParams,
    SearchRequest,
    Segment,
    SegmentTable,
    VersionName,
)


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
        """Give back the memory of a list's removed rows; results stay. An unknown list is ignored."""
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
        added: Sequence[NDArray[np.float32] | None] | None = None,
    ) -> tuple[
        NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]
    ]:
        """The k best rows of each query (q, dim) over its segments.

        Returns scores, similarities (q, k) float32, list_ids, row_ids (q, k) int64, counts (q,) int32; padded
        with
        -inf and -1. Order: score descending, group, ordinal, row_id ascending. half_life in microseconds.
        added: for each segment None or an array by row id of what is added to final scores, which are rounded
        to float32 before and after; ValueError where the backend has no capability "added".
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
    """A way to compute. `capabilities` is a subset of {"scan", "filter", "ranking", "added",
    "kmeans", "pq", "file"}."""

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


class EntityNames(Protocol):
    """The entities of one owner as one scope sees them at one moment; see types.Entity."""

    def entities(self, after: str | None, limit: int, query: str | None) -> list[NamedEntity]:
        """Up to `limit` by form, those after one. query: only those that a text names."""
        ...

    def relations(self, name: str | None, after: int, *, past: bool) -> list[tuple[int, VersionName]]:
        """(ordinal, item version) of relations in the order of their ordinals, from above `after` on: those
        of the entity of a name, or all. past: whenever they are true."""
        ...

    def title(self, name: str) -> str:
        """The canonical name of the entity that has a name."""
        ...

    def joined(self, others: Sequence[Any]) -> EntityNames:
        """With the names that other indexes of the same kind hold of the same owner."""
        ...


class Index(Protocol):
    """Every owner's rows, derived from the log and rebuilt from it at will. Thread-safe."""

    def apply(self, changes: Sequence[RowChange]) -> None:
        """Take in committed changes; visible to the next search. Owners not loaded are left alone."""
        ...

    def search(
        self, requests: Sequence[SearchRequest], k: int, params: ScoreParams | Sequence[ScoreParams]
    ) -> list[list[Match]]:
        """The k best matches of each request, exactly. An item appears once per request. params: of all, or
        of each."""
        ...

    def mmr(
        self, vectors: NDArray[np.float32], relevance: NDArray[np.float32], k: int, weight: float
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """k relevant and different ones of n <= 1,024 candidates (index/kernels.py): values, positions (k,)
        in the order of choice. vectors (n, dim), relevance (n,)."""
        ...

    def row_keys(
        self, owner: int, generation: int = 0, rows: int = 0
    ) -> tuple[int, int, Sequence[tuple[bytes, int] | None]]:
        """(generation, a row id, item key and version of that row and each after it; None where removed).
        The first is the row id `rows`, unless rows were numbered anew since that generation: then it is 0."""
        ...

    def rows_since(self, owner: int, generation: int, rows: int) -> int | None:
        """How many row ids were given out after the first `rows`; None when the owner's rows were numbered
        anew since that generation."""
        ...

    def staying(self) -> AbstractContextManager[None]:
        """Meanwhile no owner's rows are numbered anew for want of memory."""
        ...

    def decides(self, owner: int, node: Any) -> bool:
        """Whether ScopePart.where may be this filter (a Node of ops/filter_grammar.py) for this owner."""
        ...

    def vector(self, match: Match) -> NDArray[np.float32] | None:
        """(dim,) float32 stored vector of a match; None when its row has left the index."""
        ...

    def to_device(self, arrays: Sequence[NDArray[np.float32]]) -> list[Any]:
        """Copies in the memory of the device that searches, which speak DLPack and
        `__cuda_array_interface__`; the arrays themselves where there is none, or it fails."""
        ...

    def names(self, part: ScopePart, at: int, known_at: int | None) -> EntityNames | None:
        """The entities of a scope at a moment (as in SearchRequest); None when it can have none."""
        ...

    def warm(self, owner: int, *, words: bool, entities: bool, wait: bool) -> int:
        """Load an owner's rows, with what searches by words or entities need, and to the device where there
        is one.
        Returns how many lists are on their way there. wait: until they are there, or there is no room."""
        ...

    def prepare(
        self,
        owners: Iterable[int],
        what: Literal["rows", "words", "entities"],
        within: float,
        *,
        patient: bool,
    ) -> bool:
        """Whether a search over these owners that is wanted within so many seconds may be made: what it needs
        of them is there, or was read now, since that was to take only moments. Else a thread reads it for the
        searches that follow; that is waited for as long as it is expected in time or, patient, as nothing is
        known of it. Raises what reading met, and DeadlineExceeded when the caller has given up."""
        ...

    def evict(self, owner: int) -> None:
        """Forget the device's copy of an owner's rows."""
        ...

    def rebuild_device(self) -> bool:
        """Have a device that failed answer again; whether it does. False where there is none."""
        ...

    def stop(self) -> None:
        """Nothing is begun by itself any more. Waits for nobody: the collector may call it. Idempotent."""
        ...

    def close(self) -> None:
        """As stop, and waits a while for what is under way. Idempotent."""
        ...

    def compact(self, owner: int) -> int:
        """Give back the memory of an owner's removed rows, if he is loaded; how many these were."""
        ...

    def plan(self) -> str: ...
    def stats(self) -> dict[str, int]:
        """What the pool counts, `owners` that are loaded, and `device_pages`."""
        ...

    def tiers(self) -> dict[str, Any]:
        """What of the pool lies on a device and what that did (TieredPool.tiers); empty for the host's."""
        ...

    def renew(self) -> Literal["none", "rewritten", "removed"]:
        """After an erasure: nothing of what a checkpoint held before is kept in a file, nor mapped. Tells
        what became of the checkpoint. Raises StoreError."""
        ...

    def discard(self) -> None:
        """Remove what checkpoint() wrote: these vectors are not the store's any more. Inside a change."""
        ...

    def checkpoint(self, least_changes: int = 0) -> bool:
        """Write what the next open would have to compute again; False when there is nowhere to write, or
        `least_changes` is given and fewer rows than that, or than a tenth of all, have changed since. Changes
        wait meanwhile, searches do not."""
        ...
