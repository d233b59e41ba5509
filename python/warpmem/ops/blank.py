"""Rows that wait for their vector: zeros stand in its place, which no vector of unit length is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def blank_rows(vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(n,) bool: which rows of (n, dim) float32 have no vector yet."""
    blank: NDArray[np.bool_] = vectors[:, 0] == 0
    if blank.any():
        at = np.flatnonzero(blank)
        blank[at] = ~vectors[at].any(axis=1)
    return blank


def is_blank(vector: Any) -> bool:
    """Whether (dim,) float32 stands for a vector that is not there yet."""
    return not np.any(vector)
