"""The k best of each row of a table of scores that lies on the device, beside torch.topk.

Floor: reading the scores once.
"""

from __future__ import annotations

import statistics
from typing import Any

import data
import numpy as np
import peers
from harness import Bench, Result, target

from warpmem.index import kernels

SEED = 21


def run(bench: Bench) -> None:
    xp, ratios = bench.device.xp, []
    family = "select_k, "
    for rows, columns in bench.sizes.select:
        for k in bench.sizes.ks:
            name = f"{family}{k} of {rows} x {columns}"
            if k > columns or not bench.wanted(name):
                continue

            def body(result: Result, rows: int = rows, columns: int = columns, k: int = k) -> None:
                scores = xp.random.RandomState(SEED).standard_normal((rows, columns)).astype(xp.float32)
                select = _ours(bench, scores, k)
                found = [np.asarray(data.to_host(part)) for part in select()]
                host = np.asarray(data.to_host(scores))
                bench.require(result, _right(host, found[0], found[1], k))
                floor = 4.0 * rows * columns / bench.copy
                bench.compare(result, select, floor, peers.selection(bench.device, scores, k))
                there = [peer["ratio"] for peer in result["peers"].values() if "ratio" in peer]
                ratios.extend(there)
                target(result, "torch.topk / ours", 1.0, min(there, default=None))

            bench.workload("select_k", name, 3.0, body)
    if ratios:

        def body_of_all(result: Result) -> None:
            result["ratios"] = sorted(round(ratio, 3) for ratio in ratios)
            target(result, "median of torch.topk / ours", 2.0, statistics.median(ratios))

        bench.workload("select_k", f"{family}median of {len(ratios)} shapes", 0.0, body_of_all)


def _ours(bench: Bench, scores: Any, k: int) -> Any:
    """A call that leaves (values, indexes) where the scores are."""
    if bench.device.reference:
        return lambda: kernels.select_k(scores, k, backend="numpy")
    selection = bench.device.entry("Selection")(*scores.shape, k)
    there = bench.device.arrays(scores)
    return lambda: selection(there)


def _right(scores: Any, values: Any, indexes: Any, k: int) -> bool:
    """Whether these are the k largest of each row, equal ones by index: of some rows."""
    for row in range(0, len(scores), max(1, len(scores) // 16)):
        least = np.partition(scores[row], len(scores[row]) - k)[-k]
        above = np.flatnonzero(scores[row] >= least)
        order = above[np.lexsort((above, -scores[row][above]))][:k]
        if not (np.array_equal(indexes[row], order) and np.array_equal(values[row], scores[row][order])):
            return False
    return True
