"""What callers of VectorIndex pass in, checked and made uniform. Every refusal is a typed error that changes
nothing."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import MAX_DIMENSION, MAX_K
from ..errors import InputError, InvalidVector
from ..ops.arrays import host_array
from ..types.scalars import float_of
from ..types.scalars import integer as integer

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

MAX_ID = (1 << 63) - 1
_MAX_THREADS = 1024
_USUAL_THREADS = 16
_HALF_LIMIT = np.float32(65520.0)  # from here on a number rounds to an infinite float16


def as_rows(value: Any, dim: int, what: str) -> F32:
    """`value` as (n, dim) float32, C-contiguous; one vector (dim,) is one row.

    Takes what `ops.arrays.host_array` takes, of any float or integer dtype, and copies only what is not such
    an array already. Raises InvalidVector; `what` names the argument.
    """
    if type(value) is np.ndarray and value.dtype == np.float32:
        array: NDArray[Any] = value
    else:
        array = host_array(value, what)
        if array.dtype.kind not in "fiu":
            raise InvalidVector(f"{what} must hold real numbers, not {array.dtype.name}")
    if array.ndim == 1:
        array = array[np.newaxis, :]
    if array.ndim != 2:
        raise InvalidVector(f"{what} must have 1 or 2 axes (a vector or rows of vectors), not {array.ndim}")
    if array.shape[1] != dim:
        raise InvalidVector(f"{what}: expected {dim} dimensions, not {array.shape[1]}")
    flags = array.flags
    if array.dtype == np.float32 and flags.c_contiguous and flags.aligned and array.dtype.isnative:
        return array
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return np.require(array, np.dtype(np.float32), ["C", "A"])


def require_finite(rows: F32, what: str) -> None:
    """Refuse NaN and infinities. Raises InvalidVector naming the first bad row."""
    flat = rows.reshape(-1)
    # One pass that no NaN and no infinity survives; an overflow of finite numbers takes the slow way.
    with np.errstate(over="ignore", invalid="ignore"):
        whole = math.isfinite(np.dot(flat, flat))
    if whole:
        return
    step = max(1, (1 << 20) // rows.shape[1])
    for start in range(0, len(rows), step):
        finite = np.isfinite(rows[start : start + step])
        if not finite.all():
            row = int(np.argmin(finite.all(axis=1)))
            bad = rows.shape[1] - int(finite[row].sum())
            raise InvalidVector(
                f"{what}: {bad} of the {rows.shape[1]} values in row {start + row} are NaN, infinite or too "
                "large for float32"
            )


def require_half(rows: F32, what: str) -> None:
    """Refuse what float16 cannot hold. Raises InvalidVector naming the row."""
    if rows.size and max(float(rows.max()), -float(rows.min())) >= _HALF_LIMIT:
        row = int(np.argmax(np.abs(rows).max(axis=1)))
        raise InvalidVector(
            f'{what}: row {row} exceeds 65504, the largest float16; scale it or use storage="f32"'
        )


def integers(value: Any, what: str) -> I64:
    """`value` as (n,) int64, none negative; one integer is an array of one. Raises InputError."""
    if type(value) is int:
        if not 0 <= value <= MAX_ID:
            raise InputError(f"{what} must be from 0 to {MAX_ID}, not {value}")
        return np.array([value], np.int64)
    array = _integers(value, what)
    if array.ndim == 0:
        array = array.reshape(1)
    if array.ndim != 1:
        raise InputError(f"{what}: expected 1 axis, not {array.ndim}")
    return _checked(array, what, 0)


def _integers(value: Any, what: str) -> NDArray[Any]:
    try:
        array = host_array(value, what)
    except InvalidVector as error:
        raise InputError(f"{what} must be integers, not {type(value).__name__}") from error
    if array.size == 0 and not isinstance(value, np.ndarray):
        array = array.astype(np.int64)  # NumPy takes an empty list for floats
    if array.dtype.kind not in "iu":
        raise InputError(f"{what} must be integers, not {array.dtype.name}")
    return array


def _checked(array: NDArray[Any], what: str, least: int) -> I64:
    if array.size:
        low, high = int(array.min()), int(array.max())
        if low < least or high > MAX_ID:
            raise InputError(f"{what} must be from 0 to {MAX_ID}, not {low if low < least else high}")
    return np.array(array, np.int64, order="C")  # a copy: it is kept, or handed out


def row_ids(value: Any, n: int | None, what: str = "ids") -> I64:
    """n distinct ids, or any number when n is None. Raises InputError."""
    ids = integers(value, what)
    if n is not None and len(ids) != n:
        raise InputError(f"{what}: expected {n} entries, one a vector, not {len(ids)}")
    if len(ids) > 1 and not (ids[1:] > ids[:-1]).all():
        ordered = np.sort(ids)
        twice = ordered[1:] == ordered[:-1]
        if twice.any():
            raise InputError(f"{what}: {int(ordered[1:][twice][0])} is given more than once")
    return ids


def lists_of_rows(owners: Any, n: int) -> I64:
    """(n,) the list of each row: 0 for no owner, one owner for all, or one a row. Raises InputError."""
    if owners is None:
        owners = 0
    if type(owners) is int and 0 <= owners <= MAX_ID:
        return np.full(n, owners, np.int64)
    lists = integers(owners, "owners")
    if np.ndim(owners) == 0:
        return np.full(n, lists[0], np.int64)
    if len(lists) != n:
        raise InputError(f"owners: expected {n} entries, one a vector, not {len(lists)}")
    return lists


def lists_of_queries(owners: Any, n: int) -> int | tuple[I64, I64]:
    """One owner for all queries, or (queries, lists): the pairs to search, in ascending order, each once.

    owners: an integer, (n,) with one a query, or (n, m) with several a query, padded with -1. Raises
    InputError.
    """
    if type(owners) is int:
        if not 0 <= owners <= MAX_ID:
            raise InputError(f"owners must be from 0 to {MAX_ID}, not {owners}")
        return owners
    array = _integers(owners, "owners")
    if array.ndim == 0:
        return int(_checked(array.reshape(1), "owners", 0)[0])
    if array.ndim > 2:
        raise InputError(f"owners: expected 1 or 2 axes, not {array.ndim}")
    if len(array) != n:
        raise InputError(f"owners: expected {n} entries, one a query, not {len(array)}")
    if array.ndim == 1:
        return np.arange(n, dtype=np.int64), _checked(array, "owners", 0)
    some = _checked(array, "owners", -1)
    queries = np.repeat(np.arange(n, dtype=np.int64), some.shape[1])
    flat = some.reshape(-1)
    order = np.lexsort((flat, queries))
    queries, flat = queries[order], flat[order]
    keep = flat >= 0
    keep[1:] &= (flat[1:] != flat[:-1]) | (queries[1:] != queries[:-1])
    return queries[keep], flat[keep]


def one_of(value: Any, what: str, known: tuple[str, ...]) -> str:
    """One of the names in `known`. Raises InputError."""
    if not isinstance(value, str) or value not in known:
        shown = repr(value) if isinstance(value, str) else type(value).__name__
        raise InputError(f"{what} must be one of {', '.join(known)}, not {shown}")
    return value


def dimension(value: Any) -> int:
    """A number of dimensions. Raises InputError."""
    return integer(value, "dim", 1, MAX_DIMENSION)


def count(value: Any) -> int:
    """How many neighbours a search asks for. Raises InputError."""
    return integer(value, "k", 1, MAX_K)


def thread_count(value: Any) -> int:
    """A number of threads; None is what the process may use, up to the usual. Raises InputError."""
    if value is not None:
        return integer(value, "threads", 1, _MAX_THREADS)
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        usable = os.cpu_count() or 1
    return min(usable, _USUAL_THREADS)


def wanted_recall(value: Any) -> float:
    """A recall above 0, up to 1. Raises InputError."""
    number = float_of(value)
    if number is None or not 0.0 < number <= 1.0:
        raise InputError("recall must be a number above 0 and up to 1")
    return number
