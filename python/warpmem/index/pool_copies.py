"""Rows read out of a pool, to be changed, renumbered, or carried to another pool."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..protocols import RowPool
from .canonical import int8_preimage

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]

_CHUNK_NUMBERS = 1 << 23


def storable(vectors: F32, storage: str) -> F32:
    """What to store to find `vectors`, read from a pool of this storage, as they are."""
    return int8_preimage(vectors) if storage == "int8" else vectors


def _by_list(lists: I64) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """(list, positions in `lists`) of each list that occurs."""
    if len(lists) and (lists == lists[0]).all():
        yield int(lists[0]), np.arange(len(lists))
        return
    order = np.argsort(lists, kind="stable")
    ends = np.flatnonzero(np.diff(lists[order])) + 1
    for positions in np.split(order, ends):
        if len(positions):
            yield int(lists[positions[0]]), positions


def vectors(pool: RowPool, lists: I64, ids: I64, dim: int) -> F32:
    """(n, dim) the rows with these ids in these lists. KeyError when one is not there."""
    if len(ids) == 1:
        return pool.vectors(int(lists[0]), ids)
    out = np.empty((len(ids), dim), np.float32)
    for list_id, positions in _by_list(lists):
        out[positions] = pool.vectors(list_id, ids[positions])
    return out


def headers(pool: RowPool, lists: I64, ids: I64, n_columns: int) -> tuple[U32, I64]:
    """Ordinals (n,) and columns (n, n_columns) of rows that are in the pool."""
    ordinals = np.empty(len(ids), np.uint32)
    columns = np.empty((len(ids), n_columns), np.int64)
    for list_id, positions in _by_list(lists):
        there, its_ordinals, its_columns = pool.rows(list_id)
        if len(positions) == 1:
            at = np.flatnonzero(there == ids[positions])
        else:
            order = np.argsort(there)
            at = order[np.searchsorted(there, ids[positions], sorter=order)]
        ordinals[positions], columns[positions] = its_ordinals[at], its_columns[at]
    return ordinals, columns


def renumbered(pool: RowPool, dim: int, storage: str) -> Iterator[tuple[I64, I64, U32, I64, F32]]:
    """(lists, ids, ordinals, columns, vectors) in parts that, applied one after the other, number all rows
    from 0 in their order. In between the order holds too: a new number is never above the old one."""
    lists, ids, ordinals, columns = _all_headers(pool)
    order = np.lexsort((ids, ordinals))
    step = max(1, _CHUNK_NUMBERS // dim)
    for start in range(0, len(order), step):
        part = order[start : start + step]
        rows = storable(vectors(pool, lists[part], ids[part], dim), storage)
        numbers = np.arange(start, start + len(part), dtype=np.int64).astype(np.uint32)
        yield lists[part], ids[part], numbers, columns[part], rows


def copy_rows(source: RowPool, target: RowPool, dim: int, storage: str) -> None:
    """Add every row of one pool to another of the same storage, list by list."""
    step = max(1, _CHUNK_NUMBERS // dim)
    for list_id in source.lists().tolist():
        ids, ordinals, columns = source.rows(list_id)
        for start in range(0, len(ids), step):
            part = slice(start, start + step)
            some = ids[part]
            rows = storable(source.vectors(list_id, some), storage)
            target.apply((), np.full(len(some), list_id, np.int64), some, ordinals[part], columns[part], rows)


def _all_headers(pool: RowPool) -> tuple[I64, I64, U32, I64]:
    parts: list[tuple[Any, ...]] = []
    for list_id in pool.lists().tolist():
        ids, ordinals, columns = pool.rows(list_id)
        parts.append((np.full(len(ids), list_id, np.int64), ids, ordinals, columns))
    if not parts:
        none = np.zeros(0, np.int64)
        return none, none, np.zeros(0, np.uint32), np.zeros((0, pool.n_columns), np.int64)
    return cast(
        "tuple[I64, I64, U32, I64]", tuple(np.concatenate(column) for column in zip(*parts, strict=True))
    )
