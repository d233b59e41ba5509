"""The reference backend: the pool of csrc/cpu and the canonical scorer, written in NumPy to be read.

It returns the bits that the native backends return. It is not fast, and a change costs the length of the
lists it touches: each list is a set of arrays that no one changes, replaced as a whole.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendUnavailable
from ..protocols import RowPool
from ..records import Segment, SegmentTable
from .arguments import check_array, check_finite, integer, members_of, one_of
from .canonical import canonical_dot, canonical_l2, exp2_neg, key_to_f64, stored_rows
from .segments import Filter, Segments, added_of, check_segments, holds

_MAX_K = 4096
_INT64_MAX = (1 << 63) - 1
_HALF_LIMIT = 65520.0  # from here on a number rounds to infinity


class _List(NamedTuple):
    """The live rows of one list, in order of addition. Never changed."""

    row_ids: NDArray[np.int64]
    ordinals: NDArray[np.uint32]
    columns: NDArray[np.int64]
    vectors: NDArray[np.float32]


class _Found(NamedTuple):
    """Rows that may be among the k best of a query: arrays of one length."""

    queries: NDArray[np.int64]
    scores: NDArray[np.float32]
    similarities: NDArray[np.float32]
    groups: NDArray[np.uint32]
    ordinals: NDArray[np.uint32]
    row_ids: NDArray[np.int64]
    list_ids: NDArray[np.int64]


class _Ranking(NamedTuple):
    min_similarity: float
    w_similarity: float
    w_recency: float
    w_priority: float
    half_life: float
    recency_column: int
    priority_column: int
    now: int


class NumpyPool:
    """RowPool in NumPy. Writers take turns on a lock; a scan sees the lists as they were when it began."""

    _adds = True

    def __init__(self, dim: int, n_columns: int, *, storage: str = "f32", metric: str = "dot") -> None:
        self._storage = one_of(storage, "storage", ("f32", "f16", "int8"))
        self._metric = one_of(metric, "metric", ("dot", "l2"))
        self._dim = integer(dim, "dim", 1, 65536)
        self._n_columns = integer(n_columns, "n_columns", 0, 1024)
        self._lock = threading.Lock()
        self._lists: Mapping[int, _List] = MappingProxyType({})

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def n_columns(self) -> int:
        return self._n_columns

    @property
    def isa(self) -> str:
        return "numpy"

    @property
    def storage(self) -> str:
        return self._storage

    @property
    def metric(self) -> str:
        return self._metric

    def apply(
        self,
        removes: Sequence[tuple[int, int]],
        list_ids: NDArray[np.int64],
        row_ids: NDArray[np.int64],
        ordinals: NDArray[np.uint32],
        columns: NDArray[np.int64],
        vectors: NDArray[np.float32],
    ) -> None:
        check_array(list_ids, "list_ids", np.int64, (None,))
        n = len(list_ids)
        check_array(row_ids, "row_ids", np.int64, (n,))
        check_array(ordinals, "ordinals", np.uint32, (n,))
        check_array(columns, "columns", np.int64, (n, self._n_columns))
        check_array(vectors, "vectors", np.float32, (n, self._dim))
        check_finite(vectors, "vectors")
        if self._storage == "f16":
            big = np.flatnonzero((np.abs(vectors) >= _HALF_LIMIT).any(axis=1))
            if big.size:
                raise ValueError(f"vectors: row {big[0]} exceeds 65504, the largest float16")
        vectors = stored_rows(vectors, self._storage) if n else vectors
        gone: dict[int, set[int]] = {}
        for pair in removes:
            list_id, row_id = members_of(pair, "removes", 2)
            gone.setdefault(integer(list_id, "list_id"), set()).add(integer(row_id, "row_id"))
        added: dict[
            int, dict[int, int]
        ] = {}  # list id -> row id -> position in the arguments, the last one given
        for position, (list_id, row_id) in enumerate(zip(list_ids.tolist(), row_ids.tolist(), strict=True)):
            rows = added.setdefault(list_id, {})
            rows.pop(row_id, None)
            rows[row_id] = position
        with self._lock:
            lists = dict(self._lists)
            for list_id in {**gone, **added}:
                rows = added.get(list_id, {})
                old = lists.pop(list_id, None) or self._empty()
                stays = ~np.isin(old.row_ids, np.array([*gone.get(list_id, ()), *rows], np.int64))
                take = np.array(list(rows.values()), np.int64)
                new = _List(
                    np.concatenate([old.row_ids[stays], row_ids[take]]),
                    np.concatenate([old.ordinals[stays], ordinals[take]]),
                    np.concatenate([old.columns[stays], columns[take]]),
                    np.concatenate([old.vectors[stays], vectors[take]]),
                )
                if len(new.row_ids):
                    lists[list_id] = new
            self._lists = MappingProxyType(lists)

    def drop(self, list_ids: Sequence[int]) -> None:
        dropped = {integer(list_id, "list_id") for list_id in list_ids}
        with self._lock:
            self._lists = MappingProxyType({i: rows for i, rows in self._lists.items() if i not in dropped})

    def compact(self, list_id: int) -> None:
        """Nothing to do: dead rows are not kept."""
        integer(list_id, "list_id")

    def vectors(self, list_id: int, row_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        check_array(row_ids, "row_ids", np.int64, (None,))
        rows = self._lists.get(integer(list_id, "list_id")) or self._empty()
        position = {row_id: i for i, row_id in enumerate(rows.row_ids.tolist())}
        for row_id in row_ids.tolist():
            if row_id not in position:
                raise KeyError(f"row {row_id} is not in list {list_id}")
        return rows.vectors[np.array([position[row_id] for row_id in row_ids.tolist()], np.int64)]

    def lists(self) -> NDArray[np.int64]:
        """Ids of all lists, ascending, (n,) int64."""
        return np.array(sorted(self._lists), np.int64)

    def rows(self, list_id: int) -> tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.int64]]:
        """row_ids, ordinals (n,) and columns (n, n_columns) of a list's rows in the order they lie in."""
        rows = self._lists.get(integer(list_id, "list_id")) or self._empty()
        return rows.row_ids.copy(), rows.ordinals.copy(), rows.columns.copy()

    def stats(self) -> dict[str, int]:
        lists = self._lists.values()
        return {
            "lists": len(lists),
            "rows": sum(len(rows.row_ids) for rows in lists),
            "dead": 0,
            "pages": sum((len(rows.row_ids) + 63) // 64 for rows in lists),
            "bytes": sum(array.nbytes for rows in lists for array in rows),
        }

    def scan(
        self,
        queries: NDArray[np.float32],
        segments: Sequence[Segment] | SegmentTable,
        k: int,
        *,
        min_similarity: float = float("-inf"),
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
        check_array(queries, "queries", np.float32, (None, self._dim))
        check_finite(queries, "queries")
        k = integer(k, "k", 1, _MAX_K)
        ranking = _Ranking(
            min_similarity,
            w_similarity,
            w_recency,
            w_priority,
            half_life,
            recency_column,
            priority_column,
            now,
        )
        self._check_ranking(ranking)
        checked = check_segments(segments, len(queries), self._n_columns).adding(added, self._adds)
        lists = self._lists  # one moment in time
        n = len(queries)
        scores = np.full((n, k), -np.inf, np.float32)
        similarities = np.full((n, k), -np.inf, np.float32)
        found_lists = np.full((n, k), -1, np.int64)
        found_rows = np.full((n, k), -1, np.int64)
        counts = np.zeros(n, np.int32)
        parts = self._search(lists, queries, checked, k, ranking)
        if parts:
            found = _Found(*map(np.concatenate, zip(*parts, strict=True)))
            order = np.lexsort(
                (found.list_ids, found.row_ids, found.ordinals, found.groups, -found.scores, found.queries)
            )
            of_query = found.queries[order]
            rank = np.arange(len(order)) - np.searchsorted(of_query, of_query)
            best, of_query, rank = (array[rank < k] for array in (order, of_query, rank))
            scores[of_query, rank] = found.scores[best]
            similarities[of_query, rank] = found.similarities[best]
            found_lists[of_query, rank] = found.list_ids[best]
            found_rows[of_query, rank] = found.row_ids[best]
            counts[:] = np.bincount(of_query, minlength=n)
        return scores, similarities, found_lists, found_rows, counts

    def _search(
        self,
        lists: Mapping[int, _List],
        queries: NDArray[np.float32],
        segments: Segments,
        k: int,
        ranking: _Ranking,
    ) -> list[_Found]:
        """At least the k best rows of every segment, in any order. The step that numba and cupy compute in
        their own way."""
        return [
            self._candidates(lists[list_id], list_id, queries, segments, at, k, ranking)
            for list_id, positions in segments.by_list()
            if list_id in lists
            for at in positions.tolist()
        ]

    def _candidates(
        self,
        rows: _List,
        list_id: int,
        queries: NDArray[np.float32],
        segments: Segments,
        at: int,
        k: int,
        ranking: _Ranking,
    ) -> _Found:
        """Of one segment, the rows that pass the filters; of more than k the best, and all that equal the
        k-th."""
        keep = np.flatnonzero(_passes(rows, segments.distinct[segments.filters[at]]))
        query = queries[segments.queries[at]]
        if self._metric == "l2":
            similarity = canonical_l2(rows.vectors[keep], query)
        else:
            with np.errstate(over="ignore"):
                similarity = canonical_dot(rows.vectors[keep], query).astype(np.float32)
        near = similarity.astype(np.float64) >= ranking.min_similarity
        keep, similarity = keep[near], similarity[near]
        score = _final_score(ranking, similarity, rows.columns[keep])
        if segments.added:
            more = added_of(segments.added[at], rows.row_ids[keep])
            score = (score + more).astype(np.float32) + np.float32(0.0)
        if len(keep) > k:
            near = score >= np.partition(score, len(keep) - k)[len(keep) - k]
            keep, similarity, score = keep[near], similarity[near], score[near]
        return found_rows(rows, list_id, segments, np.full(len(keep), at), keep, score, similarity)

    def _check_ranking(self, ranking: _Ranking) -> None:
        if not ranking.min_similarity == ranking.min_similarity:
            raise ValueError("min_similarity must not be NaN")
        for name in ("w_similarity", "w_recency", "w_priority", "half_life"):
            if not np.isfinite(getattr(ranking, name)):
                raise ValueError(f"{name} must be finite")
        if not ranking.half_life > 0.0:
            raise ValueError("half_life must be above 0 microseconds")
        for name, weight in (("recency_column", ranking.w_recency), ("priority_column", ranking.w_priority)):
            column = integer(getattr(ranking, name), name, 0, 1024)
            if weight != 0.0 and column >= self._n_columns:
                raise ValueError(f"{name} is {column}, but the pool has {self._n_columns} columns")
        integer(ranking.now, "now")

    def _empty(self) -> _List:
        return _List(
            np.zeros(0, np.int64),
            np.zeros(0, np.uint32),
            np.zeros((0, self._n_columns), np.int64),
            np.zeros((0, self._dim), np.float32),
        )


class PoolBackend:
    """What the backends that extend NumpyPool have in common: options, their checks, normalisation."""

    name = "numpy"

    def available(self) -> str | None:
        """None when usable here, else the reason and the remedy in one sentence."""
        return None

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
        """A new, empty pool. ValueError outside dim 1..65536, n_columns 0..1024 or threads 1..1024, or for an
        unknown name; BackendUnavailable.

        storage: how rows are kept, "f32", "f16" or "int8" (a scale a row, codes -127..127); they are rounded
        to it and held as float32 all the same. metric: "dot", or "l2", whose similarity is the negated
        squared distance. screen ("auto", "int8" or "none") and threads are wishes, heeded where they can be.
        """
        one_of(screen, "screen", ("auto", "int8", "none"))
        threads = integer(threads, "threads", 1, 1024)
        reason = self.available()
        if reason is not None:
            raise BackendUnavailable(f"backend {self.name} cannot run here: {reason}")
        return self._make(dim, n_columns, threads, storage=storage, metric=metric)

    def _make(self, dim: int, n_columns: int, threads: int, *, storage: str, metric: str) -> RowPool:
        return NumpyPool(dim, n_columns, storage=storage, metric=metric)

    def normalize(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, dim) float32 to unit length. ValueError naming the first row that is zero or not finite."""
        return normalize(x)


class NumpyBackend(PoolBackend):
    """The reference, always available: NumPy is a dependency of warpmem."""

    capabilities = frozenset({"scan", "filter", "ranking", "added"})


def found_rows(
    rows: _List,
    list_id: int,
    segments: Segments,
    at: NDArray[np.int64],
    positions: NDArray[np.int64],
    scores: NDArray[np.float32],
    similarities: NDArray[np.float32],
) -> _Found:
    """Rows of one list: each with the segment that found it and its position in the list."""
    return _Found(
        segments.queries[at],
        scores,
        similarities,
        segments.groups[at],
        rows.ordinals[positions],
        rows.row_ids[positions],
        np.full(len(positions), list_id, np.int64),
    )


def _passes(rows: _List, filter: Filter) -> NDArray[np.bool_]:
    """(n,): which rows pass."""
    keep: NDArray[np.bool_] = holds(np, filter.terms, filter.values, rows.columns)
    if filter.bitmap is not None:
        keep &= (rows.row_ids >= 0) & (rows.row_ids // 64 < len(filter.bitmap))
        ids = rows.row_ids[keep]
        keep[keep] = (filter.bitmap[ids // 64] >> (ids % 64).astype(np.uint64)) & np.uint64(1) != 0
    return keep


def _final_score(
    r: _Ranking, similarity: NDArray[np.float32], columns: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The weighted sum, rounded once; NaN (an infinite similarity times weight 0) ranks last as -inf."""
    with np.errstate(over="ignore", invalid="ignore"):
        s = r.w_similarity * similarity.astype(np.float64)
        if r.w_recency != 0.0:
            then = columns[:, r.recency_column]
            wrapped = np.uint64(r.now & ((1 << 64) - 1)) - then.view(np.uint64)
            age = np.where(then >= r.now, np.uint64(0), np.minimum(wrapped, np.uint64(_INT64_MAX)))
            part = r.w_recency * exp2_neg(-(age.astype(np.float64) / r.half_life))
            s = s + part
        if r.w_priority != 0.0:
            part = r.w_priority * key_to_f64(columns[:, r.priority_column])
            s = s + part
        s = np.where(np.isnan(s), -np.inf, s)
        return s.astype(np.float32) + np.float32(0.0)  # -0 becomes +0


def normalize(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, dim) float32 to unit length. ValueError naming the first row that is zero or not finite."""
    check_array(x, "x", np.float32, (None, None))
    with np.errstate(invalid="ignore", over="ignore"):
        squared = canonical_dot(x, x)
    bad = np.flatnonzero(~((squared > 0.0) & np.isfinite(squared)))
    if bad.size:
        raise ValueError(f"row {bad[0]} is all zero, or holds a NaN or an infinity")
    inverse = 1.0 / np.sqrt(squared)
    unit: NDArray[np.float32] = (x.astype(np.float64) * inverse[:, None]).astype(np.float32)
    return unit
