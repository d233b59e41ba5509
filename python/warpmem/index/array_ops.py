"""k-means, PQ encode and PQ scan as array expressions: for CuPy, and with NumPy as the array module for
tests.

The definitions are those of `kernels_ref`, to the bit. Arguments and results are NumPy arrays, checked by the
caller.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import kernels_ref
from .kernels_ref import F32, F64, I32, I64, U8

_LANES = 32
_CHUNK = 1 << 22


class ArrayOps:
    """The operations on the arrays of `xp`."""

    def __init__(self, xp: Any) -> None:
        self._xp = xp

    def kmeans_assign(self, x: F32, centroids: F32, spherical: bool) -> tuple[I32, F64]:
        """As `kernels_ref.kmeans_assign`."""
        xp = self._xp
        n, dim = x.shape
        index, values = np.zeros(n, np.int32), np.zeros(n, np.float64)
        near = xp.asarray(centroids)
        wide = near.astype(np.float64)
        squares = (wide * wide).sum(axis=1)
        half = squares * (0.0 if spherical else 0.5)
        sign = -1.0 if spherical else 1.0
        step = max(1, _CHUNK // max(len(centroids), dim))
        for start in range(0, n, step):
            rows = xp.asarray(x[start : start + step])
            rows64 = rows.astype(np.float64)
            screen = rows64 @ wide.T - half
            length = xp.sqrt((rows64 * rows64).sum(axis=1))
            margin = 8.0 * (dim + 8) * 2.0**-53 * (length + xp.sqrt(squares.max())) ** 2
            candidates = screen >= (screen.max(axis=1) - margin)[:, None]
            of_row, of_centroid = xp.nonzero(candidates)
            exact = xp.full(screen.shape, np.inf)
            part = max(1, _CHUNK // _LANES)
            for at in range(0, len(of_row), part):
                r, c = of_row[at : at + part], of_centroid[at : at + part]
                exact[r, c] = sign * self._measure(rows[r], near[c], spherical)
            found = exact.argmin(axis=1)
            index[start : start + step] = self._to_host(found)
            values[start : start + step] = sign * self._to_host(exact[xp.arange(len(rows)), found])
        return index, values

    def kmeans(
        self, x: F32, k: int, *, iterations: int, seed: int, init: str, sample: int | None, spherical: bool
    ) -> tuple[F32, I32, float]:
        """As `kernels_ref.kmeans`: assignments on the arrays of `xp`, starts and means on the host."""
        return kernels_ref.kmeans(
            x, k, iterations=iterations, seed=seed, init=init, sample=sample, spherical=spherical,
            assign=self.kmeans_assign,
        )  # fmt: skip

    def pq_train(self, x: F32, pq_dim: int, pq_bits: int, *, iterations: int, seed: int) -> F32:
        """As `kernels_ref.pq_train`."""
        return kernels_ref.pq_train(
            x, pq_dim, pq_bits, iterations=iterations, seed=seed, assign=self.kmeans_assign
        )

    def pq_encode(self, x: F32, codebooks: F32) -> U8:
        """As `kernels_ref.pq_encode`."""
        return kernels_ref.pq_encode(x, codebooks, self.kmeans_assign)

    def pq_scan(self, codes: U8, luts: F32, k: int) -> tuple[F32, I64]:
        """As `kernels_ref.pq_scan`."""
        xp = self._xp
        four_bits = luts.shape[2] == 16
        on_device = xp.asarray(codes)
        if four_bits:
            quantized, scale, bias = kernels_ref.pq_quantize_lut(luts)
            tables = xp.asarray(quantized.astype(np.int64))
        else:
            tables = xp.asarray(luts)
        values = np.full((len(luts), k), -np.inf, np.float32)
        indexes = np.full((len(luts), k), -1, np.int64)
        for q in range(len(luts)):
            total = tables[q, 0][on_device[:, 0]]
            for s in range(1, codes.shape[1]):
                total = total + tables[q, s][on_device[:, s]]
            if not four_bits:
                total = total + np.float32(0)  # -0 becomes +0
            at = xp.arange(len(codes))
            if len(codes) > k:
                at = xp.flatnonzero(total >= xp.partition(total, len(codes) - k)[len(codes) - k])
            top, rows = self._to_host(total[at]), self._to_host(at)
            order = np.lexsort((rows, -top))[:k]
            best = top[order]
            if four_bits:
                best = (bias[q] + scale[q] * best).astype(np.float32) + np.float32(0)
            values[q, : order.size], indexes[q, : order.size] = best, rows[order]
        return values, indexes

    def _measure(self, rows: Any, others: Any, spherical: bool) -> Any:
        """(m,) canonical dot products or squared distances, row by row."""
        m, dim = rows.shape
        acc = self._xp.zeros((m, _LANES), np.float64)
        for start in range(0, dim, _LANES):
            a = rows[:, start : start + _LANES].astype(np.float64)
            b = others[:, start : start + _LANES].astype(np.float64)
            if not spherical:
                a = b = a - b
            product = a * b
            acc[:, : a.shape[1]] += product
        width = _LANES // 2
        while width:
            acc[:, :width] += acc[:, width : 2 * width]
            width //= 2
        return acc[:, 0]

    def _to_host(self, array: Any) -> Any:
        return array if isinstance(array, np.ndarray) else array.get()
