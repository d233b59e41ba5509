"""One search of a VectorIndex: owners, filter and ranking become segments and weights of one scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from ..errors import InputError
from ..ops.clock import SystemClock, to_micros
from ..records import Segment, SegmentTable
from ..types import Neighbors, RankBy
from .columns import Columns
from .filter_terms import ALL_ROWS, FilterCompiler, Program, compile_filter
from .inputs import F32, I64, lists_of_queries
from .row_store import Serving
from .tiered import DeviceRows

_MICROSECOND = timedelta(microseconds=1)
_FEW = 4
_clock = SystemClock()
_TRIES = 16


def search(
    serving: Serving,
    compiler: FilterCompiler,
    queries: F32 | DeviceRows,
    k: int,
    *,
    owners: Any,
    filters: Mapping[str, Any] | None,
    ranking: RankBy | None,
    options: dict[str, Any],
    explain: dict[str, Any] | None,
) -> Neighbors:
    """The k best rows of each of `queries`, (n, dim) as the pool takes them. options: more arguments of the
    pool's scan. explain: what the plan begins with, or None for no plan. Raises InputError, InvalidFilter."""
    n = len(queries)
    wanted = None if owners is None else lists_of_queries(owners, n)
    if ranking is not None:
        options |= _weights(ranking, compiler.columns)
    program = ALL_ROWS if filters is None else compiler.compile(filters)
    result = _scan(serving, queries, k, wanted, program, options)
    for attempt in range(_TRIES):
        if not (program.dictionaries and program.outgrown()):
            break
        # Rows came with strings that the filter did not know of. If they keep coming they are left out.
        assert filters is not None
        program = compile_filter(filters, compiler.columns, bounded=attempt + 1 == _TRIES)
        result = _scan(serving, queries, k, wanted, program, options)
    if result is None:
        shape = (n, k)
        ids, scores = np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32)
        return Neighbors(ids, scores, None if explain is None else {**explain, "segments": 0})
    if explain is None:
        return Neighbors(result[3], result[0])
    counted = result[5] if len(result) > 5 else {}
    plain = {name: value for name, value in counted.items() if not isinstance(value, np.ndarray)}
    return Neighbors(result[3], result[0], {**plain, **explain, "terms": len(program.terms)})


def _scan(
    serving: Serving,
    queries: F32 | DeviceRows,
    k: int,
    wanted: int | tuple[I64, I64] | None,
    program: Program,
    options: dict[str, Any],
) -> tuple[Any, ...] | None:
    """What the pool's scan returns; None when there is nothing to scan."""
    if program.never or len(queries) == 0:
        return None
    segments = _segments(serving, len(queries), wanted, program)
    scan: Any = serving.pool.scan  # of a tiered pool takes rows on its device, and only its are given them
    found: tuple[Any, ...] = scan(queries, segments, k, **options)
    return found


def _segments(
    serving: Serving, n: int, wanted: int | tuple[I64, I64] | None, program: Program
) -> Sequence[Segment] | SegmentTable:
    if isinstance(wanted, int):
        if n <= _FEW:  # a tuple is made and read faster than arrays
            return [(query, wanted, 0, program.terms, program.values, None) for query in range(n)]
        return SegmentTable(
            np.arange(n, dtype=np.int64), np.full(n, wanted, np.int64), program.terms, program.values
        )
    if wanted is not None:
        return SegmentTable(*wanted, program.terms, program.values)
    lists = serving.pool.lists()
    if n * len(lists) <= _FEW:
        return [
            (query, owner, 0, program.terms, program.values, None)
            for query in range(n)
            for owner in lists.tolist()
        ]
    return SegmentTable(
        np.repeat(np.arange(n, dtype=np.int64), len(lists)), np.tile(lists, n), program.terms, program.values
    )


def _weights(ranking: RankBy, columns: Columns) -> dict[str, Any]:
    """Arguments of RowPool.scan. Raises InputError for a column that is absent or of another type."""
    if not isinstance(ranking, RankBy):
        raise InputError(f"ranking must be a warpmem.RankBy, not {type(ranking).__name__}")
    weights: dict[str, Any] = {"w_similarity": float(ranking.similarity)}
    if ranking.recency_column is not None:
        place = columns.place(ranking.recency_column, "time", "ranking recency_column")
        weights |= {
            "w_recency": float(ranking.recency),
            "recency_column": place,
            "half_life": ranking.half_life / _MICROSECOND,
            "now": _clock.now() if ranking.now is None else to_micros(ranking.now, "ranking now"),
        }
    if ranking.priority_column is not None:
        place = columns.place(ranking.priority_column, "float64", "ranking priority_column")
        weights |= {"w_priority": float(ranking.priority), "priority_column": place}
    return weights
