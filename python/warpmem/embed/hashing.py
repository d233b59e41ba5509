"""A deterministic embedder without weights: feature hashing of words and character trigrams.

Weinberger, Dasgupta, Langford, Smola, Attenberg: Feature Hashing for Large Scale Multitask Learning (ICML
2009). Texts are near when they share words or parts of words; it knows no synonyms. For tests, and for places
where a few kilobytes must do.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..types.scalars import integer
from .texts import check_texts

MAX_DIMENSION = 65_536

_TOKEN = re.compile(r"\w+|[^\w\s]")
_TRIGRAM_WEIGHT = 0.5


class HashingEmbedder:
    """Embedder by feature hashing. Thread-safe; equal on every machine."""

    parallel = 4
    """A text takes less time than waking the thread that waits for it."""

    def __init__(self, dimension: int = 256) -> None:
        self._dimension = integer(dimension, "dimension", 1, MAX_DIMENSION)

    @property
    def model_id(self) -> str:
        return f"hashing-{self._dimension}-v1"

    @property
    def dimension(self) -> int:
        return self._dimension

    def embed(self, texts: Sequence[str], *, role: Literal["document", "query"]) -> NDArray[np.float32]:
        """(n, dimension) float32 sums of signed features. Raises InvalidText when a text holds no token."""
        checked = check_texts(texts)
        rows = np.zeros((len(checked), self._dimension), np.float32)
        for row, text in zip(rows, checked, strict=True):
            # Sums of halves far below 2**23 are exact in float32, so the order of features does not matter.
            for feature, weight in _features(text.lower()):
                code = _hash(feature)
                row[(code >> 1) % self._dimension] += weight if code & 1 else -weight
            if not row.any():  # every feature met its opposite
                row[(_hash(text) >> 1) % self._dimension] = 1.0
        return rows

    def forget(self) -> None:
        """Drop the parts of texts whose hashes were kept, of all embedders of this process."""
        _hash.cache_clear()


def _features(text: str) -> Iterator[tuple[str, float]]:
    for token in _TOKEN.findall(text):
        yield token, 1.0
        if token[0].isalnum():
            padded = f"<{token}>"
            for i in range(len(padded) - 2):
                yield f"#{padded[i : i + 3]}", _TRIGRAM_WEIGHT


@functools.lru_cache(maxsize=65_536)
def _hash(feature: str) -> int:
    return int.from_bytes(blake2b(feature.encode("utf-8"), digest_size=8).digest(), "little")
