"""The canonical arithmetic of csrc/core/score.hpp in NumPy, to the bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LANES = 32
_INT64_MAX = (1 << 63) - 1
_LN2 = 0.6931471805599453
# 1/13! ... 1/0!: Taylor series of e^y, highest power first.
_TAYLOR = (
    1.6059043836821613e-10,
    2.08767569878681e-09,
    2.505210838544172e-08,
    2.755731922398589e-07,
    2.7557319223985893e-06,
    2.48015873015873e-05,
    0.0001984126984126984,
    0.001388888888888889,
    0.008333333333333333,
    0.041666666666666664,
    0.16666666666666666,
    0.5,
    1.0,
    1.0,
)


def canonical_dot(rows: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.float64]:
    """Unrounded canonical dot products: (n, dim) rows with a query (dim,), or row by row with (n, dim).

    Returns (n,) float64. Element i goes to float64 accumulator i % 32; these are folded by 16, 8, 4, 2, 1.
    """
    n, dim = rows.shape
    acc = np.zeros((n, _LANES), np.float64)
    for start in range(0, dim, _LANES):
        a = rows[:, start : start + _LANES].astype(np.float64)
        b = query[..., start : start + _LANES].astype(np.float64)
        acc[:, : a.shape[1]] += a * b
    return _fold(acc)


def _fold(acc: NDArray[np.float64]) -> NDArray[np.float64]:
    width = _LANES // 2
    while width:
        acc[:, :width] += acc[:, width : 2 * width]
        width //= 2
    return acc[:, 0]


def stored_rows(vectors: NDArray[np.float32], storage: str) -> NDArray[np.float32]:
    """(n, dim) rows as a pool of this storage returns them: "f32", "f16" (round to even) or "int8"."""
    if storage == "f32":
        return vectors
    if storage == "f16":
        return vectors.astype(np.float16).astype(np.float32)
    exact = np.abs(vectors).max(axis=1).astype(np.float64) / 127.0
    scale = exact.astype(np.float32)
    down = np.nextafter(scale, np.float32(0.0))
    scale = np.where(scale.astype(np.float64) > exact, down, scale)
    scale[scale < np.float32(2.0**-120)] = 0.0
    inverse = np.divide(np.float32(1.0), scale, out=np.zeros_like(scale), where=scale > 0.0)
    codes = np.clip(np.rint(vectors * inverse[:, None]), np.float32(-127.0), np.float32(127.0))
    rows: NDArray[np.float32] = scale[:, None] * (codes + np.float32(0.0))  # an integer has no -0
    return rows


def int8_preimage(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, dim) vectors that int8 storage keeps as `rows`, which it has returned: quantising what was read
    would choose other scales, because a scale times 127 is rounded."""
    peak = np.abs(rows).max(axis=1)
    near = (peak.astype(np.float64) / 127.0).astype(np.float32)
    out = rows.copy()
    left = np.flatnonzero(peak > 0.0)
    for scale in (near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(0.0))):
        some, of_some = rows[left], scale[left][:, None]
        same = (of_some * np.rint(some / of_some) == some).all(axis=1)
        at = left[same]
        # The scale is the largest float32 not above peak / 127, so the peak must not lie below 127 scales.
        low = peak[at].astype(np.float64) < 127.0 * scale[at].astype(np.float64)
        raised = np.nextafter(peak[at], np.float32(np.inf))
        target = np.where(low, raised, peak[at])
        is_peak = np.abs(out[at]) == peak[at][:, None]
        out[at] = np.where(is_peak, np.copysign(target[:, None], out[at]), out[at])
        left = left[~same]
    return out


def canonical_l2(rows: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) float32 negated squared distances of (n, dim) rows to a query (dim,): float64 differences, squared
    in the accumulators and the fold of `canonical_dot`. Larger is nearer; +0 where they agree."""
    difference = query.astype(np.float64) - rows.astype(np.float64)
    squares = np.zeros((len(rows), _LANES), np.float64)
    for start in range(0, rows.shape[1], _LANES):
        part = difference[:, start : start + _LANES]
        squares[:, : part.shape[1]] += part * part
    with np.errstate(over="ignore"):
        distance = _fold(squares).astype(np.float32)
    return np.float32(0.0) - distance


def exp2_neg(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """2^x for x <= 0 by operations that every platform rounds alike; 0 below 2^-1022, exactly 1 at 0."""
    flushed = ~(x >= -1022.0)
    x = np.where(flushed, 0.0, x)
    n = np.floor(x + 0.5)
    y = (x - n) * _LN2
    p = np.full_like(y, _TAYLOR[0])
    for coefficient in _TAYLOR[1:]:
        p = p * y
        p = p + coefficient
    scale = ((n.astype(np.int64) + 1023) << 52).view(np.float64)
    return np.where(flushed, 0.0, p * scale)


def key_to_f64(keys: NDArray[np.int64]) -> NDArray[np.float64]:
    """The float64 numbers whose order-preserving int64 images these are; 0 for the least, a missing value."""
    bits = np.where(keys >= 0, keys, keys ^ np.int64(_INT64_MAX))
    return np.where(keys == -_INT64_MAX - 1, np.int64(0), bits).view(np.float64)
