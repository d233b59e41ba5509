"""Segments of a scan for the pools written in Python: both forms of `records`, checked, as arrays.

The limits and errors are those of csrc/bindings/segments.hpp.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..records import AND, MEMBERSHIP, NOT, RANGE, Segment, SegmentTable, Term
from .arguments import check_array, check_finite, integer, members_of

MAX_DEPTH = 64
"""Of the stack that terms are read over."""

_MAX_COUNT = (1 << 31) - 1


class Filter(NamedTuple):
    """terms (t, 4) int64 as `records.Term`, values int64, bitmap uint64 words over row ids or None."""

    terms: NDArray[np.int64]
    values: NDArray[np.int64]
    bitmap: NDArray[np.uint64] | None


class Segments(NamedTuple):
    """Checked segments: `queries[i]` scans `lists[i]` with group `groups[i]` and `distinct[filters[i]]`."""

    queries: NDArray[np.int64]
    lists: NDArray[np.int64]
    groups: NDArray[np.uint32]
    filters: NDArray[np.int64]
    distinct: Sequence[Filter]
    added: Sequence[NDArray[np.float32] | None] = ()

    def adding(self, added: Sequence[NDArray[np.float32] | None] | None, able: bool) -> Segments:
        """With what is added to scores in each segment, checked."""
        if added is None:
            return self
        if not able:
            raise ValueError("this pool takes no added scores")
        if len(added) != len(self.queries):
            raise ValueError(
                f"added must have one entry for each of {len(self.queries)} segments, not {len(added)}"
            )
        for values in added:
            if values is not None:
                check_array(values, "added", np.float32, (None,))
                check_finite(values.reshape(1, -1), "added")
        return self._replace(added=tuple(added))

    def grouped(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Distinct lists, ascending; where each one's segments start in the third, and the end; positions of
        the segments, list by list, in the order of the call."""
        order = np.argsort(self.lists, kind="stable")
        ids = self.lists[order]
        first = np.flatnonzero(np.concatenate(([True], ids[1:] != ids[:-1]))[: len(ids)])
        return ids[first], np.append(first, len(ids)), order

    def by_list(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Each list with the positions of its segments, in the order of the call."""
        ids, starts, order = self.grouped()
        for list_id, start, end in zip(ids.tolist(), starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            yield list_id, order[start:end]


def added_of(values: NDArray[np.float32] | None, row_ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n,): what `values` by row id, or nothing, adds to these rows; 0 outside of it."""
    found = np.zeros(len(row_ids))
    if values is not None:
        known = (row_ids >= 0) & (row_ids < len(values))
        found[known] = values[row_ids[known]]
    return found


def check_segments(segments: Sequence[Segment] | SegmentTable, n_queries: int, n_columns: int) -> Segments:
    """TypeError or ValueError for what is neither form, or names a query or column that is not there."""
    if n_queries > _MAX_COUNT:
        raise ValueError(f"a scan takes at most {_MAX_COUNT} queries")
    if isinstance(segments, SegmentTable):
        return _check_table(segments, n_queries, n_columns)
    numbers: list[tuple[int, int, int, int]] = []
    distinct: list[Filter] = []
    last: tuple[Any, Any, Any] | None = None
    everything, kept = -1, -1  # the filter that refuses nothing, the last other one
    for segment in segments:
        query, list_id, group, terms, values, bitmap = members_of(segment, "segments", 6)
        query = integer(query, "segment query", 0, max(n_queries - 1, 0))
        if n_queries == 0:
            raise ValueError("a segment names query 0, but there are 0 queries")
        list_id = integer(list_id, "segment list_id")
        group = integer(group, "segment group", 0, (1 << 32) - 1)
        if len(terms) == 0 and len(values) == 0 and bitmap is None:
            if everything < 0:
                everything = len(distinct)
                distinct.append(check_filter((), (), None, n_columns))
            numbers.append((query, list_id, group, everything))
            continue
        if last is None or terms is not last[0] or values is not last[1] or bitmap is not last[2]:
            kept = len(distinct)
            distinct.append(check_filter(terms, values, bitmap, n_columns))
            last = (terms, values, bitmap)
        numbers.append((query, list_id, group, kept))
    table = np.array(numbers, np.int64).reshape(len(numbers), 4)
    return Segments(
        np.ascontiguousarray(table[:, 0]),
        np.ascontiguousarray(table[:, 1]),
        table[:, 2].astype(np.uint32),
        np.ascontiguousarray(table[:, 3]),
        distinct,
    )


def _check_table(table: SegmentTable, n_queries: int, n_columns: int) -> Segments:
    check_array(table.queries, "segment queries", np.int64, (None,))
    n = len(table.queries)
    check_array(table.lists, "segment lists", np.int64, (n,))
    filters = [check_filter(table.terms, table.values, None, n_columns)]
    queries = table.queries.copy()
    bad = np.flatnonzero((queries < 0) | (queries >= n_queries))
    if bad.size:
        raise ValueError(f"segment {bad[0]} names query {queries[bad[0]]}, but there are {n_queries} queries")
    return Segments(queries, table.lists.copy(), np.zeros(n, np.uint32), np.zeros(n, np.int64), filters)


def check_filter(
    terms: Sequence[Term], values: Sequence[int], bitmap: NDArray[np.uint64] | None, n_columns: int
) -> Filter:
    """One filter, or TypeError or ValueError."""
    members = [integer(value, "membership value") for value in values]
    checked: list[Term] = []
    depth = 0
    for position, term in enumerate(terms):
        column, op, lo, hi = members_of(term, "terms", 4)
        op = integer(op, "term op", RANGE, NOT)
        if op >= AND:
            for value, name in ((column, "column"), (lo, "lo"), (hi, "hi")):
                integer(value, f"term {name} of AND, OR and NOT", 0, 0)
            column = lo = hi = 0
        elif n_columns == 0:
            raise ValueError("a term names a column, but the pool has 0 columns")
        else:
            column = integer(column, "term column", 0, n_columns - 1)
            lo, hi = integer(lo, "term lo"), integer(hi, "term hi")
        if op == MEMBERSHIP:
            if not 0 <= lo <= hi <= len(members):
                raise ValueError(f"a membership term must slice within 0 and {len(members)}, not {lo}:{hi}")
            if members[lo:hi] != sorted(members[lo:hi]):
                raise ValueError("membership values must be ascending")
        needed = 0 if op < AND else 1 if op == NOT else 2
        if depth < needed or (op < AND and depth == MAX_DEPTH):
            raise ValueError(
                f"term {position} meets {depth} tests on the stack: NOT needs 1, AND and OR need 2, and "
                f"there is room for {MAX_DEPTH}"
            )
        depth += 1 if op < AND else 0 if op == NOT else -1
        checked.append((column, op, lo, hi))
    if bitmap is not None:
        check_array(bitmap, "bitmap", np.uint64, (None,))
    rows = np.array(checked, np.int64).reshape(len(checked), 4)
    return Filter(rows, np.array(members, np.int64), bitmap)


def holds(xp: Any, terms: NDArray[np.int64], values: NDArray[np.int64], columns: Any) -> Any:
    """(n,) bool of the array module `xp`: which of the rows with these columns (n, c) satisfy the terms."""
    stack: list[Any] = []
    for column, op, lo, hi in terms.tolist():
        if op < AND:
            cells = columns[:, column]
            if op == RANGE:
                stack.append((cells >= np.int64(lo)) & (cells <= np.int64(hi)))
            else:
                stack.append(xp.isin(cells, xp.asarray(values[lo:hi])))
        elif op == NOT:
            stack.append(~stack.pop())
        else:
            upper, lower = stack.pop(), stack.pop()
            stack.append(lower & upper if op == AND else lower | upper)
    keep = xp.ones(len(columns), bool)
    for test in stack:
        keep &= test
    return keep


def pack_filters(filters: Sequence[Filter]) -> tuple[NDArray[Any], ...]:
    """Filters one after the other: terms (t, 4) and their ends (f + 1,), values and ends, bitmap words and
    ends; each bitmap stands behind a word that is 1, and where there is none stands a single 0."""
    one, none = np.ones(1, np.uint64), np.zeros(1, np.uint64)
    words = [part for f in filters for part in ((none,) if f.bitmap is None else (one, f.bitmap))]
    return (
        np.concatenate([f.terms for f in filters]),
        _ends([len(f.terms) for f in filters]),
        np.concatenate([f.values for f in filters]),
        _ends([len(f.values) for f in filters]),
        np.concatenate(words),
        _ends([1 if f.bitmap is None else 1 + len(f.bitmap) for f in filters]),
    )


def _ends(lengths: Sequence[int]) -> NDArray[np.int64]:
    ends = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=ends[1:])
    return ends
