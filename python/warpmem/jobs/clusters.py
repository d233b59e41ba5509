"""Which different things go into one summary: like with like, and what is like nothing else alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..index.clustering import Cluster
from .summaries import Line

_BLOCK: Final = 512
_DIGITS: Final = 6
"""Of a cosine; more would let the order of a sum decide who is alone."""


def clustered(
    lines: Sequence[Line], rows: NDArray[np.float32], per_cluster: int, outliers: float, cluster: Cluster
) -> list[list[Line]]:
    """Lines in clusters of `per_cluster` on average by k-means, each in the order of time.

    rows: (len(lines), dimension) float32 of unit length, the lines' vectors. outliers: share of the lines
    that are clusters of their own, those said once whose nearest other line is farthest. Among six others
    the vector of such a line's summary would tell little of it."""
    alone = _outlying(lines, rows, int(outliers * len(lines)))
    clusters: dict[int, list[Line]] = {-1 - row: [lines[row]] for row in alone}
    rest = [row for row in range(len(lines)) if row not in alone]
    if rest:
        assigned = cluster(rows[rest], -(-len(rest) // per_cluster))
        for row, number in zip(rest, assigned.tolist(), strict=True):
            clusters.setdefault(number, []).append(lines[row])
    return list(clusters.values())


def _outlying(lines: Sequence[Line], rows: NDArray[np.float32], most: int) -> set[int]:
    once = np.flatnonzero([len(line.items) == 1 for line in lines])
    if not most or not once.size:
        return set()
    wide = rows.astype(np.float64)
    nearest = np.empty(once.size)
    for start in range(0, once.size, _BLOCK):
        block = once[start : start + _BLOCK]
        cosines = wide[block] @ wide.T
        cosines[np.arange(block.size), block] = -np.inf
        nearest[start : start + block.size] = cosines.max(axis=1)
    order = np.argsort(nearest.round(_DIGITS), kind="stable")
    return set(once[order[:most]].tolist())
