"""Pools to save, and everything that can be asked of one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pools import make_rows
from warpmem._cpu import Pool

DIM = 70


def add(pool: Any, list_id: int, row_ids: list[int], vectors: NDArray[np.float32]) -> None:
    n = len(row_ids)
    ids = np.array(row_ids, np.int64)
    columns = np.stack([ids % 5, ids * 10], axis=1)[:, : pool.n_columns]
    ordinals = (ids % 1000).astype(np.uint32)
    pool.apply([], np.full(n, list_id), ids, ordinals, np.ascontiguousarray(columns), vectors)


def filled(dim: int = DIM, **options: Any) -> Pool:
    """Four lists with a block border, replaced and removed rows, a page without live rows."""
    pool = Pool(dim, 2, **options)
    rows = make_rows("normal", 5000, dim, 1)
    add(pool, 3, list(range(4500)), rows[:4500])
    add(pool, -7, list(range(64)), rows[:64])
    add(pool, 1 << 40, [5], rows[7:8])
    add(pool, 8, list(range(300)), rows[100:400])
    add(pool, 3, [9, 4000], rows[20:22])
    nothing = np.zeros(0, np.int64)
    gone = [(8, i) for i in range(70, 140)] + [(3, 1), (-7, 63)]
    pool.apply(gone, nothing, nothing, nothing.astype(np.uint32), np.zeros((0, 2), np.int64), rows[:0])
    return pool


def answers(pool: Any, queries: NDArray[np.float32]) -> list[bytes]:
    """Everything that can be asked, as bytes."""
    lists = pool.lists().tolist()
    bitmap = np.full(80, 0x5555_5555_5555_5555, np.uint64)
    found: list[Any] = [pool.lists()]
    for terms, words in (((), None), (((0, 0, 1, 3), (1, 0, 0, 30_000)), None), ((), bitmap)):
        segments = [(q, i, 0, terms, (), words) for q in range(len(queries)) for i in lists]
        found += pool.scan(queries, segments, 20)
        ranking = {"w_recency": 0.5, "half_life": 1000.0, "recency_column": 1, "now": 9000}
        found += pool.scan(queries[:1], segments[: len(lists)], 20, **ranking)
    for list_id in lists:
        rows = pool.rows(list_id)
        found += [*rows, pool.vectors(list_id, rows[0])]
    return [part.tobytes() for part in found]
