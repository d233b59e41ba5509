"""Vectors that callers bring, from any array library, checked and brought to one form."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidVector
from ..ops.arrays import host_array


def as_vectors(value: Any, dimension: int, what: str) -> NDArray[np.float32]:
    """`value` as (n, dimension) float32, C-contiguous, finite, without an all-zero row.

    Takes NumPy arrays, anything with `__dlpack__` on the CPU (torch, JAX), anything with `__array__`, and
    lists of numbers; floats of any width and integers, converted to float32. A one-dimensional value is one
    row. The result may share memory with `value`. Raises InvalidVector; `what` names the argument in its
    message.
    """
    array = host_array(value, what)
    if (
        array.dtype == np.float32
        and array.shape == (dimension,)
        and array.flags.c_contiguous
        and 0.0 < float(np.vdot(array, array)) < np.inf
    ):
        # One vector at a time is the usual case: its squares add up to a number when it has one in each
        # place, and to more than nothing when one of them is not zero. What is left is looked at below.
        # Not np.dot, which warns where the sum is too large.
        return array[np.newaxis, :]
    if array.dtype.kind not in "fiu":
        raise InvalidVector(f"{what} must hold real numbers, not {array.dtype.name}")
    if array.ndim == 1:
        array = array[np.newaxis, :]
    if array.ndim != 2:
        raise InvalidVector(f"{what} must have 1 or 2 axes (a vector or rows of vectors), not {array.ndim}")
    if array.shape[1] != dimension:
        raise InvalidVector(f"{what}: expected {dimension} dimensions, not {array.shape[1]}")
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        rows = np.ascontiguousarray(array, dtype=np.float32)
    finite = np.isfinite(rows)
    if not finite.all():
        row = int(np.argmin(finite.all(axis=1)))
        bad = dimension - int(finite[row].sum())
        raise InvalidVector(
            f"{what}: {bad} of the {dimension} values in row {row} are NaN, infinite or too large for float32"
        )
    nonzero = rows.any(axis=1)
    if not nonzero.all():
        row = int(np.argmin(nonzero))
        raise InvalidVector(f"{what}: row {row} of {len(rows)} is all zero in float32 and has no direction")
    return rows
