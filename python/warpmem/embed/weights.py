"""Whether the weights behind a name are those of before: by the vectors of one fixed text."""

from __future__ import annotations

import threading
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelMismatch

PROBE: Final = "The same words give the same vector as long as the model is the same."
SAME: Final = 0.995
"""Least cosine of the probe's two vectors: half precision and other batches stay above 0.999."""


def cosine(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Of two (dim,) float32 that are not zero."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


class Weights:
    """What the weights made of the probe at first; shared by all who are asked in each other's place.
    Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.first: NDArray[np.float32] | None = None

    def compare(self, vector: NDArray[np.float32], model_id: str) -> None:
        """Raises ModelMismatch when this vector of the probe is not that of the same weights."""
        with self._lock:
            if self.first is None:
                self.first = vector.copy()
            first = self.first
        found = cosine(first, vector)
        if found < SAME:
            raise ModelMismatch(
                f"{model_id!r} has other weights than at first: one text's two vectors have the cosine "
                f"{found:.3f}, not at least {SAME}; let the server serve the model that made the vectors"
            )

    def forget(self) -> None:
        """The next vector of the probe is the first."""
        with self._lock:
            self.first = None
