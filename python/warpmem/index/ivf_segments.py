"""(query, owner) pairs of a scan over owners with cells, and what becomes of them."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..records import Segment, SegmentTable

I64 = NDArray[np.int64]


class Pairs(Protocol):
    """queries, lists: (p,) int64, a pair each. filtered: whether rows may be left out."""

    queries: I64
    lists: I64
    filtered: bool

    def only(self, keep: NDArray[np.bool_]) -> Pairs: ...
    def over(self, cells: I64, counts: I64) -> list[Segment] | SegmentTable:
        """The same scan over counts[i] cells instead of list i; cells of one pair after another's."""
        ...


class PairTable:
    """Pairs of a SegmentTable."""

    def __init__(self, queries: I64, lists: I64, common: SegmentTable) -> None:
        self.queries, self.lists, self._common = queries, lists, common
        self.filtered = len(common.terms) > 0

    def only(self, keep: NDArray[np.bool_]) -> PairTable:
        return PairTable(self.queries[keep], self.lists[keep], self._common)

    def over(self, cells: I64, counts: I64) -> SegmentTable:
        return SegmentTable(np.repeat(self.queries, counts), cells, self._common.terms, self._common.values)


class PairList:
    """Pairs of segments."""

    def __init__(self, parts: list[Any]) -> None:
        self._parts = parts
        self.queries = np.array([part[0] for part in parts], np.int64)
        self.lists = np.array([part[1] for part in parts], np.int64)
        self.filtered = any(len(part[3]) > 0 or part[5] is not None for part in parts)
        self._bare = not self.filtered and not any(part[2] for part in parts)

    def only(self, keep: NDArray[np.bool_]) -> PairList:
        return PairList([part for part, kept in zip(self._parts, keep.tolist(), strict=True) if kept])

    def over(self, cells: I64, counts: I64) -> list[Segment] | SegmentTable:
        if self._bare:  # the same, without an object for each
            return SegmentTable(np.repeat(self.queries, counts), cells)
        ids = cells.tolist()
        segments: list[Segment] = []
        at = 0
        for (query, _, group, terms, values, bitmap), n in zip(self._parts, counts.tolist(), strict=True):
            segments += [(query, cell, group, terms, values, bitmap) for cell in ids[at : at + n]]
            at += n
        return segments


def join(a: Any, b: Any, k: int) -> Any:
    """The k best of two results with ranks, in the order of RowPool.scan."""
    both = [np.concatenate([x, y], axis=1) for x, y in zip(a[:4], b[:4], strict=True)]
    groups, ordinals = (
        np.concatenate([a[5][name], b[5][name]], axis=1).astype(np.int64) for name in ("groups", "ordinals")
    )
    scores, _, list_ids, row_ids = both
    absent = np.concatenate([np.arange(k) >= part[4][:, None] for part in (a, b)], axis=1)
    best = np.lexsort((list_ids, row_ids, ordinals, groups, -scores, absent), axis=-1)[:, :k]
    out = [np.take_along_axis(part, best, axis=1) for part in both]
    plan = {name: value for name, value in a[5].items() if name not in ("groups", "ordinals")}
    for name in ("rows_seen", "rows_rescored", "tiles", "device_lists"):
        if name in plan:
            plan[name] = a[5][name] + b[5][name]
    return (*out, np.minimum(a[4] + b[4], k).astype(np.int32), plan)
