"""Data made on the device: mixtures of clusters of unit length, the same for the same seed and device.

They are made chunk by chunk, so that any part can be made again without the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

CHUNK = 1 << 17
CLUSTERS = 1000
NOISE = 0.6


def blocks(
    xp: Any, n: int, dim: int, seed: int, *, start: int = 0, centres: int | None = None
) -> Iterator[tuple[int, Any]]:
    """(first row, rows) from the chunk of `start` on: (at most CHUNK, dim) float32, arrays of `xp` (CuPy or
    NumPy). centres: the seed of the clusters' centres, where it is another mixture's."""
    middles = xp.random.RandomState(seed if centres is None else centres).standard_normal((CLUSTERS, dim))
    middles = middles.astype(xp.float32)
    for chunk in range(start // CHUNK, -(-n // CHUNK)):
        random = xp.random.RandomState((seed * 1_000_003 + chunk + 1) % (1 << 32))
        count = min(CHUNK, n - chunk * CHUNK)
        # A device draws whole chunks, so that the rows of a shorter mixture are the first of a longer one.
        # NumPy's draws are so by themselves.
        drawn = random.randint(0, CLUSTERS, CHUNK)[:count]
        noise = random.standard_normal((CHUNK if hasattr(xp, "cuda") else count, dim))[:count]
        part = middles[drawn] + xp.float32(NOISE) * noise.astype(xp.float32)
        yield chunk * CHUNK, part / xp.linalg.norm(part, axis=1, keepdims=True)


def mixture(xp: Any, n: int, dim: int, seed: int, *, centres: int | None = None, dtype: Any = None) -> Any:
    """(n, dim) rows of unit length around random centres, float32 or of `dtype`."""
    rows = xp.empty((n, dim), xp.float32 if dtype is None else dtype)
    for first, part in blocks(xp, n, dim, seed, centres=centres):
        rows[first : first + len(part)] = part
    return rows


def to_host(array: Any) -> Any:
    """A NumPy array of the same values."""
    if hasattr(array, "to_host"):  # of warpmem._cuda
        return array.to_host()
    return array.get() if hasattr(array, "get") else array


def zipf_sizes(owners: int, most: int, least: int) -> list[int]:
    """Rows of each owner: most, most / 2, most / 3 ... and at least `least`."""
    return [max(least, most // (rank + 1)) for rank in range(owners)]


def zipf_trace(random: Any, n: int, length: int, exponent: float) -> Any:
    """(length,) int64: independent draws of 0 .. n - 1 by Zipf's law. random: a NumPy Generator."""
    weights = (1.0 + random.permutation(n)) ** -exponent
    return random.choice(n, length, p=weights / weights.sum())
