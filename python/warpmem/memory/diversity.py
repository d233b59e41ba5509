"""Hits that are unlike each other: what `Ranking(diversity=...)` means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..protocols import Index
from ..records import Match

MOST: Final = 1024
"""Candidates of one choice, and so hits."""
_LEAST: Final = 50
_PER_HIT: Final = 4


def candidates(k: int) -> int:
    """Of how many of the best the k hits are chosen. Raises InputError."""
    if k > MOST:
        raise InputError(f"with diversity k must be an integer from 1 to {MOST}, not {k}")
    return min(MOST, max(_PER_HIT * k, _LEAST))


def choose(
    index: Index, matches: Sequence[Match], vectors: NDArray[np.float32], k: int, diversity: float
) -> tuple[list[int], list[dict[str, float]]]:
    """Places of the hits among the matches in the order of choice, and what explains each: the largest cosine
    with a hit before it, its weight, and the value that it was chosen by."""
    if not matches:
        return [], []
    scores = np.array([match[0] for match in matches], np.float32)
    values, places = index.mmr(vectors, scores, min(k, len(matches)), 1.0 - diversity)
    order = places.tolist()
    parts = []
    for position, (place, value) in enumerate(zip(order, values.tolist(), strict=True)):
        nearest = ((1.0 - diversity) * float(scores[place]) - value) / diversity if position else 0.0
        parts.append({"diversity": nearest, "weight_diversity": diversity, "mmr": value})
    return order, parts
