"""NumPy reference of select_k, k-means, product quantisation and mmr: the definitions, to the bit.

`csrc/cpu/{select_k,kmeans,nearest,pq,mmr}.cpp` and `csrc/core/pq_code.hpp` compute the same. Arguments are
checked by `kernels.py`; arrays here are C-contiguous, finite and of the right shape.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .canonical import canonical_dot

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]
Assign = Callable[[F32, F32, bool], tuple[I32, F64]]

_LANES = 32
_MASK = (1 << 64) - 1
BLOCK_ROWS = 32
_CHUNK = 1 << 22  # elements of a float64 temporary


class SplitMix64:
    """The generator behind every seed here (Steele, Lea, Flood, 2014)."""

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def uniform(self) -> float:
        """A number in [0, 1)."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        z = self._state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return ((z ^ (z >> 31)) >> 11) * 2.0**-53

    def below(self, n: int) -> int:
        """An integer in [0, n)."""
        return min(int(self.uniform() * n), n - 1)

    def draw(self, n: int, count: int) -> list[int]:
        """The first entries of a random permutation of 0..n-1, by swaps (Fisher and Yates)."""
        moved: dict[int, int] = {}
        chosen = []
        for i in range(count):
            j = i + self.below(n - i)
            chosen.append(moved.get(j, j))
            moved[j] = moved.get(i, i)
        return chosen


def canonical_squared_distance(rows: F32, other: F32) -> F64:
    """(n, dim) rows and one row (dim,), or row by row (n, dim) -> (n,) unrounded canonical squared distances.

    Element i goes to float64 accumulator i % 32; these are folded by 16, 8, 4, 2, 1.
    """
    n, dim = rows.shape
    acc = np.zeros((n, _LANES), np.float64)
    for start in range(0, dim, _LANES):
        difference = rows[:, start : start + _LANES].astype(np.float64) - other[..., start : start + _LANES]
        acc[:, : difference.shape[1]] += difference * difference
    width = _LANES // 2
    while width:
        acc[:, :width] += acc[:, width : 2 * width]
        width //= 2
    return acc[:, 0]


def select_k(scores: F32, k: int, ordinals: NDArray[np.uint32] | None) -> tuple[F32, I64]:
    """(n, columns) -> the k largest of each row; ties by ordinal, then by column."""
    n, columns = scores.shape
    values = np.full((n, k), -np.inf, np.float32)
    indexes = np.full((n, k), -1, np.int64)
    scores = scores + np.float32(0)  # -0 counts as +0
    ties = np.arange(columns) if ordinals is None else ordinals
    for r in range(n):
        order = np.lexsort((np.arange(columns), ties, -scores[r]))[:k]
        values[r, : order.size] = scores[r, order]
        indexes[r, : order.size] = order
    return values, indexes


def kmeans_assign(x: F32, centroids: F32, spherical: bool) -> tuple[I32, F64]:
    """The nearest centroid of each row by canonical squared distance (spherical: dot product), and the value.

    A float64 matrix product screens; where its error could hide the winner, canonical values decide.
    """
    n, dim = x.shape
    index = np.zeros(n, np.int32)
    values = np.zeros(n, np.float64)
    measure = canonical_dot if spherical else canonical_squared_distance
    sign = -1.0 if spherical else 1.0
    wide = centroids.astype(np.float64)
    half = np.zeros(len(wide)) if spherical else 0.5 * (wide * wide).sum(axis=1)
    longest = np.sqrt((wide * wide).sum(axis=1)).max()
    step = max(1, _CHUNK // max(len(centroids), dim))
    for start in range(0, n, step):
        rows = x[start : start + step]
        rows64 = rows.astype(np.float64)
        screen = rows64 @ wide.T - half
        length = np.sqrt((rows64 * rows64).sum(axis=1))
        margin = 8.0 * (dim + 8) * 2.0**-53 * (length + longest) ** 2
        candidates = screen >= (screen.max(axis=1) - margin)[:, None]
        of_row, centroid = np.nonzero(candidates)
        exact = np.full(screen.shape, np.inf)
        exact[of_row, centroid] = sign * measure(rows[of_row], centroids[centroid])
        found = exact.argmin(axis=1)
        index[start : start + step] = found
        values[start : start + step] = sign * exact[np.arange(len(rows)), found]
    return index, values


def _normalized(row: F32) -> F32 | None:
    squared = canonical_dot(row[None], row)[0]
    if not squared > 0.0:
        return None
    unit: F32 = (row.astype(np.float64) * (1.0 / np.sqrt(squared))).astype(np.float32)
    return unit


def _place(row: F32, spherical: bool) -> F32:
    unit = _normalized(row) if spherical else row
    return row if unit is None else unit


def _plus_plus(x: F32, k: int, spherical: bool, random: SplitMix64) -> F32:
    centroids = np.empty((k, x.shape[1]), np.float32)
    nearest = np.full(len(x), np.inf)
    chosen = random.below(len(x))
    for c in range(k):
        centroids[c] = _place(x[chosen], spherical)
        if c + 1 == k:
            break
        nearest = np.minimum(nearest, canonical_squared_distance(x, x[chosen]))
        running = np.add.accumulate(nearest)
        total = float(running[-1])
        if not total > 0.0:
            chosen = random.below(len(x))
            continue
        chosen = int(np.searchsorted(running, random.uniform() * total, side="right"))
        if chosen == len(x):
            chosen = int(np.flatnonzero(nearest)[-1])
    return centroids


def _update(x: F32, index: I32, centroids: F32, spherical: bool) -> NDArray[np.intp]:
    """Means in float64, rows added in their order; an empty cluster keeps its centroid. Returns the sizes."""
    k = len(centroids)
    counts = np.bincount(index, minlength=k)
    used = counts > 0
    means = np.empty(centroids.shape, np.float32)
    for j in range(x.shape[1]):
        sums = np.bincount(index, weights=x[:, j].astype(np.float64), minlength=k)
        means[used, j] = (sums[used] / counts[used]).astype(np.float32)
    for c in np.flatnonzero(used):
        mean = _normalized(means[c]) if spherical else means[c]
        if mean is not None:
            centroids[c] = mean
    return counts


def _train(
    x: F32,
    k: int,
    iterations: int,
    init: str,
    spherical: bool,
    random: SplitMix64,
    assign: Assign = kmeans_assign,
) -> F32:
    if init == "k-means++":
        centroids = _plus_plus(x, k, spherical, random)
    else:
        centroids = np.stack([_place(x[i], spherical) for i in random.draw(len(x), k)])
    moved, previous = True, None
    for _ in range(iterations):
        index, values = assign(x, centroids, spherical)
        if not moved and previous is not None and np.array_equal(index, previous):
            break
        empty = np.flatnonzero(_update(x, index, centroids, spherical) == 0)
        worst = np.lexsort((np.arange(len(x)), values if spherical else -values))
        moved = False
        for c, row in zip(empty, worst, strict=False):
            if not spherical and values[row] == 0.0:
                break
            centroids[c] = _place(x[row], spherical)
            moved = True
        previous = index
    return centroids


def kmeans(
    x: F32,
    k: int,
    *,
    iterations: int,
    seed: int,
    init: str,
    sample: int | None,
    spherical: bool,
    assign: Assign = kmeans_assign,
) -> tuple[F32, I32, float]:
    """Lloyd's algorithm; see `kernels.kmeans`. assign: another backend's way to compute kmeans_assign."""
    random = SplitMix64(seed)
    rows = x
    if sample is not None and sample < len(x):
        rows = np.ascontiguousarray(x[sorted(random.draw(len(x), sample))])
    centroids = _train(rows, k, iterations, init, spherical, random, assign)
    index, values = assign(x, centroids, spherical)
    return centroids, index, float(np.add.accumulate(values)[-1])


def pq_train(
    x: F32, pq_dim: int, pq_bits: int, *, iterations: int, seed: int, assign: Assign = kmeans_assign
) -> F32:
    """(n, dim) -> codebooks (pq_dim, 2^pq_bits, dim / pq_dim); subspace s is trained with seed + s. assign:
    as for kmeans."""
    parts = x.reshape(len(x), pq_dim, -1)
    books = []
    for s in range(pq_dim):
        rows = np.ascontiguousarray(parts[:, s])
        books.append(_train(rows, 1 << pq_bits, iterations, "random", False, SplitMix64(seed + s), assign))
    return np.stack(books)


def pack_codes(codes: U8, pq_bits: int) -> U8:
    """(n, pq_dim) numbers -> packed rows: a byte each, or two in one, the even subspace in the low nibble."""
    if pq_bits == 8:
        return codes
    if codes.shape[1] % 2:
        codes = np.pad(codes, ((0, 0), (0, 1)))
    packed: U8 = codes[:, ::2] | (codes[:, 1::2] << np.uint8(4))
    return packed


def unpack_codes(packed: U8, pq_dim: int, pq_bits: int) -> U8:
    """The inverse of pack_codes."""
    if pq_bits == 8:
        return packed
    codes = np.empty((len(packed), 2 * packed.shape[1]), np.uint8)
    codes[:, ::2] = packed & 15
    codes[:, 1::2] = packed >> 4
    return codes[:, :pq_dim]


def pq_interleave(packed: U8, pq_dim: int, pq_bits: int) -> U8:
    """Packed rows -> blocks of 32: (blocks, pq_dim, 32); for 4 bits 16, row j + 16 above row j."""
    codes = unpack_codes(packed, pq_dim, pq_bits)
    blocks = -(-len(codes) // BLOCK_ROWS)
    codes = np.pad(codes, ((0, blocks * BLOCK_ROWS - len(codes)), (0, 0)))
    turned = codes.reshape(blocks, BLOCK_ROWS, pq_dim).transpose(0, 2, 1)
    if pq_bits == 8:
        return np.ascontiguousarray(turned)
    paired: U8 = turned[:, :, :16] | (turned[:, :, 16:] << np.uint8(4))
    return paired


def pq_deinterleave(blocks: U8, rows: int) -> U8:
    """The inverse of pq_interleave."""
    pq_bits = 4 if blocks.shape[2] == 16 else 8
    if pq_bits == 4:
        blocks = np.concatenate([blocks & 15, blocks >> 4], axis=2)
    codes = blocks.transpose(0, 2, 1).reshape(-1, blocks.shape[1])[:rows]
    return np.ascontiguousarray(pack_codes(codes, pq_bits))


def pq_encode(x: F32, codebooks: F32, assign: Assign = kmeans_assign) -> U8:
    """Packed codes: of each piece the nearest entry by canonical distance, ties to the smaller number."""
    pq_dim, entries, _ = codebooks.shape
    parts = x.reshape(len(x), pq_dim, codebooks.shape[2])
    codes = np.empty((len(x), pq_dim), np.uint8)
    for s in range(pq_dim):
        codes[:, s] = assign(np.ascontiguousarray(parts[:, s]), codebooks[s], False)[0]
    return np.ascontiguousarray(pack_codes(codes, 4 if entries == 16 else 8))


def pq_decode(packed: U8, codebooks: F32) -> F32:
    """Rows (n, dim) of packed codes."""
    pq_dim, entries, dsub = codebooks.shape
    codes = unpack_codes(packed, pq_dim, 4 if entries == 16 else 8)
    return np.ascontiguousarray(codebooks[np.arange(pq_dim), codes].reshape(len(codes), pq_dim * dsub))


def pq_lut(queries: F32, codebooks: F32, metric: str) -> F32:
    """Tables (n, pq_dim, entries): canonical dot products, or negated canonical squared distances."""
    pq_dim, entries, dsub = codebooks.shape
    parts = queries.reshape(len(queries), pq_dim, dsub)
    luts = np.empty((len(queries), pq_dim, entries), np.float32)
    for q in range(len(queries)):
        for s in range(pq_dim):
            if metric == "ip":
                values = canonical_dot(codebooks[s], parts[q, s])
            else:
                values = -canonical_squared_distance(codebooks[s], parts[q, s])
            luts[q, s] = values.astype(np.float32) + np.float32(0)
    return luts


def pq_quantize_lut(luts: F32) -> tuple[U8, F64, F64]:
    """4-bit tables as bytes with scale and bias: an entry is about low of its subspace + scale * byte."""
    low = luts.min(axis=2).astype(np.float64)
    width = luts.max(axis=2).astype(np.float64) - low
    scale = width.max(axis=1) / 255.0
    bias = np.add.accumulate(low, axis=1)[:, -1] + 0.0
    quantized = np.zeros(luts.shape, np.uint8)
    for q in np.flatnonzero(scale > 0.0):
        steps = np.floor((luts[q].astype(np.float64) - low[q][:, None]) / scale[q] + 0.5)
        quantized[q] = steps.astype(np.uint8)
    return quantized, scale, bias


def pq_scan(codes: U8, luts: F32, k: int) -> tuple[F32, I64]:
    """Codes (n, pq_dim), not packed -> the k best rows of each table; see `kernels.pq_scan`."""
    n, pq_dim = codes.shape
    values = np.full((len(luts), k), -np.inf, np.float32)
    indexes = np.full((len(luts), k), -1, np.int64)
    if luts.shape[2] == 16:
        quantized, scale, bias = pq_quantize_lut(luts)
    for q in range(len(luts)):
        if luts.shape[2] == 16:
            sums = quantized[q][np.arange(pq_dim), codes].sum(axis=1, dtype=np.int64)
            order = np.lexsort((np.arange(n), -sums))[:k]
            values[q, : order.size] = (bias[q] + scale[q] * sums[order]).astype(np.float32) + np.float32(0)
        else:
            total = luts[q, 0, codes[:, 0]]
            for s in range(1, pq_dim):
                total = total + luts[q, s, codes[:, s]]
            total = total + np.float32(0)
            order = np.lexsort((np.arange(n), -total))[:k]
            values[q, : order.size] = total[order]
        indexes[q, : order.size] = order
    return values, indexes


def mmr(vectors: F32, relevance: F32, k: int, weight: float) -> tuple[F64, I64]:
    """(problems, n, dim), (problems, n) -> k candidates of each problem; see `kernels.mmr`."""
    problems, n, _ = vectors.shape
    values = np.full((problems, k), -np.inf)
    indexes = np.full((problems, k), -1, np.int64)
    for p in range(problems):
        left = relevance[p] > -np.inf
        gain = weight * np.where(left, relevance[p], 0.0).astype(np.float64)
        nearest = np.full(n, -np.inf)
        for step in range(min(k, int(left.sum()))):
            value = gain + 0.0 if step == 0 else gain - (1.0 - weight) * nearest + 0.0
            at = int(np.where(left, relevance[p] if step == 0 else value, -np.inf).argmax())
            values[p, step], indexes[p, step] = value[at], at
            left[at] = False
            nearest = np.maximum(nearest, canonical_dot(vectors[p], vectors[p, at]))
    return values, indexes
