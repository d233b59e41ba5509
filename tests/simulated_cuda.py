"""Run with NUMBA_ENABLE_CUDASIM=1: numba's CUDA kernels in its simulator, against the reference.

The simulator runs every thread of a block as a thread of Python, so the cases are few and small.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from pools import make_rows, scan_all
from warpmem.index.numba_backend import NumbaBackend
from warpmem.index.numpy_ref import NumpyBackend
from warpmem.protocols import RowPool

NOW = 1_750_000_000_000_000
TOP = (1 << 63) - 1
CASES = [
    ("random", 65, 33), ("huge", 7, 64), ("denormals", 64, 5), ("duplicates", 129, 31),
    ("cancelling", 20, 70),
    ("random", 65, 33, "l2"), ("duplicates", 30, 70, "l2"),
]  # fmt: skip


def check(kind: str, n: int, dim: int, metric: str = "dot") -> int:
    """Plain, filtered and ranked scans of one data set. Returns how many rows were found."""
    rng = np.random.default_rng([n, dim])
    pools: dict[str, RowPool] = {
        "numpy": NumpyBackend().pool(dim, 3, metric=metric),
        "numba-cuda": NumbaBackend(device="cuda").pool(dim, 3, metric=metric),
    }
    assert pools["numba-cuda"].isa == "numba-cuda"
    columns = rng.integers(-3, 4, (n, 3))
    columns[:, 1] = rng.choice([NOW, NOW - 10**9, TOP, -TOP - 1, -5], n)
    columns[:, 2] = rng.uniform(-1, 1, n).view(np.int64) & TOP
    ids = rng.permutation(n)
    for pool in pools.values():
        pool.apply([], ids % 2, ids, (ids // 3).astype(np.uint32), columns, make_rows(kind, n, dim, n))
    queries = make_rows(kind, 2, dim, n + 1)
    words = rng.integers(0, 1 << 63, 1, dtype=np.uint64)
    terms: Any = [(0, 0, -2, 3), (0, 1, 1, 4)]
    plain: Any = [(0, 0, 0, [], [], None), (1, 1, 0, [], [], None)]
    filtered: Any = [
        (1, 0, 3, terms, [9, -3, 0, 2], words),
        (1, 1, 1, [], [], words),
        (1, 7, 0, [], [], None),
    ]
    weights = {
        "w_similarity": 0.7, "w_recency": 0.3, "w_priority": 0.2, "half_life": 1e9, "recency_column": 1,
        "priority_column": 2, "now": NOW,
    }  # fmt: skip
    found = scan_all(pools, queries, plain, 100)[4].sum()
    found += scan_all(pools, queries, filtered, 3, min_similarity=-1.0)[4].sum()
    found += scan_all(pools, queries, [*plain, *filtered], 5, **weights)[4].sum()
    return int(found)


if __name__ == "__main__":
    # The simulator's threads are new ones, which np.errstate does not reach.
    warnings.filterwarnings("ignore", "(overflow|invalid value) encountered", RuntimeWarning)
    print("equal bits, rows found:", sum(check(*case) for case in CASES))
