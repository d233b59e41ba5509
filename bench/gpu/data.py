"""Data made on the device: mixtures of clusters of unit length, the same for the same seed and device."""

from __future__ import annotations

from typing import Any

CHUNK = 1 << 17


def mixture(xp: Any, n: int, dim: int, seed: int, *, clusters: int = 1000, noise: float = 0.6) -> Any:
    """(n, dim) float32 rows of unit length around random centres, an array of `xp` (CuPy or NumPy)."""
    random = xp.random.RandomState(seed)
    centres = random.standard_normal((clusters, dim)).astype(xp.float32)
    rows = xp.empty((n, dim), xp.float32)
    for start in range(0, n, CHUNK):
        count = min(CHUNK, n - start)
        part = centres[random.randint(0, clusters, count)]
        part = part + xp.float32(noise) * random.standard_normal((count, dim)).astype(xp.float32)
        rows[start : start + count] = part / xp.linalg.norm(part, axis=1, keepdims=True)
    return rows


def to_host(array: Any) -> Any:
    """A NumPy array of the same values."""
    return array.get() if hasattr(array, "get") else array


def zipf_sizes(owners: int, most: int, least: int) -> list[int]:
    """Rows of each owner: most, most / 2, most / 3 ... and at least `least`."""
    return [max(least, most // (rank + 1)) for rank in range(owners)]
