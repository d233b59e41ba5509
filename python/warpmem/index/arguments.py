"""Argument checks of the reference backend: the limits and errors of csrc/bindings/arrays.hpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_INT64_MAX = (1 << 63) - 1


def integer(value: Any, name: str, lo: int = -_INT64_MAX - 1, hi: int = _INT64_MAX) -> int:
    """An integer (anything with __index__) within [lo, hi]."""
    try:
        number = int(value.__index__())
    except AttributeError:
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}") from None
    if not lo <= number <= hi:
        raise ValueError(f"{name} must be within {lo} and {hi}, not {number}")
    return number


def one_of(value: Any, name: str, known: tuple[str, ...]) -> str:
    """`value`, one of the names in `known`."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}")
    return str(value)


def members_of(item: Any, name: str, n: int) -> Any:
    """`item` as a sequence of n members."""
    if not isinstance(item, Sequence):
        raise TypeError(f"each of {name} must be a sequence, not {type(item).__name__}")
    if len(item) != n:
        raise ValueError(f"each of {name} must have {n} members, not {len(item)}")
    return item


def check_array(array: Any, name: str, dtype: type[np.generic], shape: tuple[int | None, ...]) -> None:
    """Refuse anything but a C-contiguous array of this dtype and shape; None in `shape` is free."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array of {np.dtype(dtype)}, not {type(array).__name__}")
    if array.dtype != dtype:
        raise TypeError(f"{name} must be {np.dtype(dtype)}, not {array.dtype}")
    if array.ndim != len(shape):
        raise ValueError(f"{name}: expected {len(shape)} axes, not {array.ndim}")
    for axis, expected in enumerate(shape):
        if expected is not None and array.shape[axis] != expected:
            what = "entries" if axis == 0 else "dimensions" if dtype is np.float32 else "columns"
            raise ValueError(f"{name}: expected {expected} {what}, not {array.shape[axis]}")
    if not array.flags.c_contiguous:
        raise ValueError(f"{name} must be C-contiguous; pass numpy.ascontiguousarray(...)")


def check_finite(rows: NDArray[np.float32], name: str) -> None:
    """Refuse NaN and infinities, naming the first bad row."""
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if bad.size:
        raise ValueError(f"{name}: row {bad[0]} holds a NaN or an infinity")
