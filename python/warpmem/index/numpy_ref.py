"""The reference backend: the pool of csrc/cpu and the canonical scorer, written in NumPy to be read.

It returns the bits that the native backends return. It is not fast, and a change costs the length of the
lists it touches: each list is a set of arrays that no one changes, replaced as a whole.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..protocols import RowPool
from ..records import Segment, Term
from .arguments import check_array, check_finite, integer, members_of, one_of
from .canonical import canonical_dot, canonical_l2, exp2_neg, key_to_f64, stored_rows

_MAX_K = 4096
_INT64_MAX = (1 << 63) - 1
_HALF_LIMIT = 65520.0  # from here on a number rounds to infinity


class _List(NamedTuple):
    """The live rows of one list, in order of addition. Never changed."""

    row_ids: NDArray[np.int64]
    ordinals: NDArray[np.uint32]
    columns: NDArray[np.int64]
    vectors: NDArray[np.float32]


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
        segments: Sequence[Segment],
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
        checked = [self._check_segment(segment, len(queries)) for segment in segments]

        lists = self._lists  # one moment in time
        n = len(queries)
        scores = np.full((n, k), -np.inf, np.float32)
        similarities = np.full((n, k), -np.inf, np.float32)
        found_lists = np.full((n, k), -1, np.int64)
        found_rows = np.full((n, k), -1, np.int64)
        counts = np.zeros(n, np.int32)
        for q, parts in enumerate(self._search(lists, queries, checked, k, ranking)):
            if not parts:
                continue
            score, similarity, group, ordinal, row_id, list_id = (
                np.concatenate(part) for part in zip(*parts, strict=True)
            )
            best = np.lexsort((list_id, row_id, ordinal, group, -score))[:k]
            m = counts[q] = len(best)
            scores[q, :m] = score[best]
            similarities[q, :m] = similarity[best]
            found_lists[q, :m] = list_id[best]
            found_rows[q, :m] = row_id[best]
        return scores, similarities, found_lists, found_rows, counts

    def _search(
        self,
        lists: Mapping[int, _List],
        queries: NDArray[np.float32],
        segments: Sequence[Segment],
        k: int,
        ranking: _Ranking,
    ) -> list[list[tuple[NDArray[Any], ...]]]:
        """By query, one tuple of arrays as `_candidates` returns them for each of its segments, in any order:
        at least the k best rows of the segment. The step that numba and cupy compute in their own way."""
        return [
            [
                self._candidates(lists[segment[1]], query, segment, ranking)
                for segment in segments
                if segment[0] == q and segment[1] in lists
            ]
            for q, query in enumerate(queries)
        ]

    def _candidates(
        self, rows: _List, query: NDArray[np.float32], segment: Segment, ranking: _Ranking
    ) -> tuple[NDArray[Any], ...]:
        """(score, similarity, group, ordinal, row_id, list_id) of the rows that pass the filters."""
        _, list_id, group, terms, values, bitmap = segment
        keep = np.ones(len(rows.row_ids), bool)
        for column, op, lo, hi in terms:
            cells = rows.columns[:, column]
            keep &= (
                (lo <= cells) & (cells <= hi)
                if op == 0
                else np.isin(cells, np.array(values[lo:hi], np.int64))
            )
        if bitmap is not None:
            inside = (rows.row_ids >= 0) & (rows.row_ids // 64 < len(bitmap))
            keep &= inside
            ids = rows.row_ids[keep]
            keep[keep] = (bitmap[ids // 64] >> (ids % 64).astype(np.uint64)) & np.uint64(1) != 0
        if self._metric == "l2":
            similarity = canonical_l2(rows.vectors[keep], query)
        else:
            with np.errstate(over="ignore"):
                similarity = canonical_dot(rows.vectors[keep], query).astype(np.float32)
        near = similarity.astype(np.float64) >= ranking.min_similarity
        keep[keep] = near
        similarity = similarity[near]
        n = len(similarity)
        return (
            _final_score(ranking, similarity, rows.columns[keep]),
            similarity,
            np.full(n, group, np.uint32),
            rows.ordinals[keep],
            rows.row_ids[keep],
            np.full(n, list_id, np.int64),
        )

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

    def _check_segment(self, segment: Segment, n_queries: int) -> Segment:
        query, list_id, group, terms, values, bitmap = members_of(segment, "segments", 6)
        query = integer(query, "segment query", 0, max(n_queries - 1, 0))
        if n_queries == 0:
            raise ValueError("a segment names query 0, but there are 0 queries")
        list_id = integer(list_id, "segment list_id")
        group = integer(group, "segment group", 0, (1 << 32) - 1)
        members = [integer(value, "membership value") for value in values]
        checked: list[Term] = []
        for term in terms:
            column, op, lo, hi = members_of(term, "terms", 4)
            if self._n_columns == 0:
                raise ValueError("a term names a column, but the pool has 0 columns")
            column = integer(column, "term column", 0, self._n_columns - 1)
            op = integer(op, "term op", 0, 1)
            lo, hi = integer(lo, "term lo"), integer(hi, "term hi")
            if op == 1:
                if not 0 <= lo <= hi <= len(members):
                    raise ValueError(
                        f"a membership term must slice within 0 and {len(members)}, not {lo}:{hi}"
                    )
                if members[lo:hi] != sorted(members[lo:hi]):
                    raise ValueError("membership values must be ascending")
            checked.append((column, op, lo, hi))
        if bitmap is not None:
            check_array(bitmap, "bitmap", np.uint64, (None,))
        return query, list_id, group, checked, members, bitmap

    def _empty(self) -> _List:
        return _List(
            np.zeros(0, np.int64),
            np.zeros(0, np.uint32),
            np.zeros((0, self._n_columns), np.int64),
            np.zeros((0, self._dim), np.float32),
        )


class NumpyBackend:
    """The reference, always available."""

    name = "numpy"
    capabilities = frozenset({"scan", "filter", "ranking"})

    def available(self) -> str | None:
        """None: NumPy is a dependency of warpmem."""
        return None

    def pool(self, dim: int, n_columns: int, *, storage: str = "f32", metric: str = "dot") -> RowPool:
        """A new, empty pool. ValueError outside dim 1..65536 or n_columns 0..1024, or for an unknown name.

        storage: how rows are kept, "f32", "f16" or "int8" (a scale a row, codes -127..127). metric: "dot", or
        "l2", whose similarity is the negated squared distance.
        """
        return NumpyPool(dim, n_columns, storage=storage, metric=metric)

    def normalize(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, dim) float32 to unit length. ValueError naming the first row that is zero or not finite."""
        return normalize(x)


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
