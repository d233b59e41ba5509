"""The fastest setting of a system that reaches a recall, found on queries that are not measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from systems import F32, I64, Setting, System
from timing import processor

Recall = Callable[[I64], float]
Search = Callable[[F32], I64]


def one_by_one(search: Search, queries: F32) -> I64:
    return np.concatenate([search(queries[i : i + 1]) for i in range(len(queries))])


def reaching(
    system: System, search: Search, queries: F32, recall: Recall, wanted: float, n_rows: int
) -> list[Setting]:
    """Of each ladder the first setting that reaches the recall."""
    found = []
    for ladder in system.ladders(n_rows):

        def reached(i: int, ladder: Sequence[Setting] = ladder) -> bool:
            system.choose(ladder[i])
            return recall(search(queries)) >= wanted

        low, high = 0, len(ladder) - 1
        if not reached(high):
            continue
        if found and ladder[low] > found[-1] and reached(low):  # more cells, and as little else as can be
            found.append(ladder[low])
            break
        while low < high:
            half = (low + high) // 2
            low, high = (low, half) if reached(half) else (half + 1, high)
        found.append(ladder[low])
    return found


def fastest(
    system: System, search: Search, settings: list[Setting], queries: F32, batch: int
) -> Setting | None:
    """The setting that takes the least processor time, one query or all of them a call."""

    def spent(setting: Setting) -> float:
        system.choose(setting)
        if batch == 1:
            return processor(lambda: one_by_one(search, queries[:100]), 2)
        return processor(lambda: search(queries), 2)

    return min(settings, key=spent, default=None)


def tune(
    system: System,
    search: Search,
    queries: F32,
    recall: Recall,
    wanted: float,
    n_rows: int,
    batches: Sequence[int],
) -> dict[int, Setting | None]:
    """By batch: the fastest setting that reaches the recall, None where none does."""
    settings = reaching(system, search, queries, recall, wanted, n_rows)
    return {batch: fastest(system, search, settings, queries, batch) for batch in batches}


def mean_recall(shares: Callable[[I64], NDArray[np.float64]]) -> Recall:
    return lambda found: float(shares(found).mean())
