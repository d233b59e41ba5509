"""k-means, PQ encode and PQ scan compiled by Numba: what `kernels_ref` defines, to the bit. And the int8
codes of the scan's screen."""

# mypy: disable-error-code="untyped-decorator,misc,assignment"
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np

from . import kernels_ref
from .kernels_ref import F32, F64, I32, I64, U8
from .numba_filters import jit
from .numba_kernels import dot, squared_distance

_LANES = 32
_CHUNK = 1 << 22


def kmeans_assign(x: F32, centroids: F32, spherical: bool) -> tuple[I32, F64]:
    """As `kernels_ref.kmeans_assign`: a matrix product screens, compiled canonical values decide."""
    n, dim = x.shape
    index, values = np.zeros(n, np.int32), np.zeros(n, np.float64)
    wide = centroids.astype(np.float64)
    squares = (wide * wide).sum(axis=1)
    half = squares * (0.0 if spherical else 0.5)
    longest = np.sqrt(squares.max())
    step = max(1, _CHUNK // max(len(centroids), dim))
    for start in range(0, n, step):
        rows = np.ascontiguousarray(x[start : start + step])
        rows64 = rows.astype(np.float64)
        screen = rows64 @ wide.T - half
        length = np.sqrt((rows64 * rows64).sum(axis=1))
        margin = 8.0 * (dim + 8) * 2.0**-53 * (length + longest) ** 2
        least = screen.max(axis=1) - margin
        end = start + len(rows)
        _decide(rows, wide, screen, least, bool(spherical), index[start:end], values[start:end])
    return index, values


def kmeans(
    x: F32, k: int, *, iterations: int, seed: int, init: str, sample: int | None, spherical: bool
) -> tuple[F32, I32, float]:
    """As `kernels_ref.kmeans`."""
    return kernels_ref.kmeans(
        x, k, iterations=iterations, seed=seed, init=init, sample=sample, spherical=spherical,
        assign=kmeans_assign,
    )  # fmt: skip


def pq_train(x: F32, pq_dim: int, pq_bits: int, *, iterations: int, seed: int) -> F32:
    """As `kernels_ref.pq_train`."""
    return kernels_ref.pq_train(x, pq_dim, pq_bits, iterations=iterations, seed=seed, assign=kmeans_assign)


def pq_encode(x: F32, codebooks: F32) -> U8:
    """As `kernels_ref.pq_encode`."""
    return kernels_ref.pq_encode(x, codebooks, kmeans_assign)


def pq_scan(codes: U8, luts: F32, k: int) -> tuple[F32, I64]:
    """As `kernels_ref.pq_scan`."""
    values = np.full((len(luts), k), -np.inf, np.float32)
    indexes = np.full((len(luts), k), -1, np.int64)
    n = len(codes)
    codes = np.require(codes, np.uint8, ["C", "W"])
    four_bits = luts.shape[2] == 16
    if four_bits:
        quantized, scale, bias = kernels_ref.pq_quantize_lut(luts)
    for q in range(len(luts)):
        total: Any = np.zeros(n, np.int32 if four_bits else np.float32)
        if four_bits:
            _sum_bytes(codes, quantized[q], total)
        else:
            _sum_floats(codes, np.array(luts[q]), total)
        at = np.arange(n)
        if n > k:
            at = np.flatnonzero(total >= np.partition(total, n - k)[n - k])
        order = at[np.lexsort((at, -total[at]))[:k]]
        best = total[order]
        if four_bits:
            best = (bias[q] + scale[q] * best).astype(np.float32) + np.float32(0)
        values[q, : order.size], indexes[q, : order.size] = best, order
    return values, indexes


@jit()
def _decide(
    rows: Any, centroids: Any, screen: Any, least: Any, spherical: Any, index: Any, values: Any
) -> None:
    """Of the centroids whose screen reaches `least`, the best by canonical value, the first among equals."""
    acc = np.empty(_LANES, np.float64)
    for i in range(rows.shape[0]):
        best = np.inf
        for c in range(centroids.shape[0]):
            if screen[i, c] >= least[i]:
                if spherical:
                    value = -dot(rows[i], centroids[c], acc)
                else:
                    value = squared_distance(rows[i], centroids[c], acc)
                if value < best:
                    best = value
                    index[i] = c
        values[i] = -best if spherical else best


@jit()
def _sum_floats(codes: Any, tables: Any, total: Any) -> None:
    for i in range(codes.shape[0]):
        s = tables[0, codes[i, 0]]
        for j in range(1, codes.shape[1]):
            s = np.float32(s + tables[j, codes[i, j]])
        total[i] = s + np.float32(0.0)


@jit()
def _sum_bytes(codes: Any, tables: Any, total: Any) -> None:
    for i in range(codes.shape[0]):
        s = np.int32(0)
        for j in range(codes.shape[1]):
            s = np.int32(s + np.int32(tables[j, codes[i, j]]))
        total[i] = s


@jit()
def quantize(rows: Any, codes: Any, scale: Any, hat: Any, error: Any) -> None:
    """int8 codes of rows (n, dim), their float32 scale, |scale codes| and |row - scale codes|, both rounded
    up."""
    n, dim = rows.shape
    up, least = 1.0 + 1e-6, np.float32(1.5e-45)
    for i in range(n):
        most = np.float32(0.0)
        for j in range(dim):
            most = max(most, abs(rows[i, j]))
        step = np.float32(most / np.float32(127.0))
        inverse = 1.0 / np.float64(step) if step > 0.0 else 0.0
        inside = 0
        outside = 0.0
        for j in range(dim):
            exact = np.float64(rows[i, j])
            code = min(max(np.rint(exact * inverse), -127.0), 127.0)
            codes[i, j] = np.int8(code)
            inside += np.int64(code) * np.int64(code)
            rest = exact - np.float64(step) * code
            outside += rest * rest
        scale[i] = step
        hat[i] = np.float32(np.float64(step) * np.sqrt(np.float64(inside)) * up) + least
        error[i] = np.float32(np.sqrt(outside) * up) + least


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Parallel kernels started from this thread use n threads, or as many as Numba has."""
    before = numba.get_num_threads()
    numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        numba.set_num_threads(before)
