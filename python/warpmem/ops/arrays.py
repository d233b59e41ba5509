"""Arrays that callers bring, from any array library, as NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidVector

_CPU_DEVICES = (1, 3, 11)  # DLPack: host memory; pinned by CUDA, by ROCm


def host_array(value: Any, what: str) -> NDArray[Any]:
    """`value` as a NumPy array in host memory, without a copy where it lies there already.

    Takes NumPy arrays, anything with `__dlpack__`, `__cuda_array_interface__` or `__array__`, and lists. What
    lies on a device is copied by a method of its library: `get()` (CuPy), `cpu()` (torch), `copy_to_host()`
    (Numba), `to_host()` (arrays of warpmem). Raises InvalidVector; `what` names the argument in its message.
    """
    if isinstance(value, np.ndarray):
        if isinstance(value, np.ma.MaskedArray):
            raise InvalidVector(f"{what} must not be a masked array; fill or drop what is masked first")
        return np.asarray(value)
    if isinstance(value, (str, bytes)) or value is None:
        raise InvalidVector(f"{what} must be an array or a list of numbers, not {type(value).__name__}")
    try:
        if _on_device(value):
            value = _fetch(value)
        if hasattr(value, "__dlpack__") and not isinstance(value, (np.ndarray, np.generic)):
            return np.from_dlpack(value)
        return np.asarray(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise InvalidVector(
            f"{what}: {type(value).__name__} cannot be read as an array of numbers in host memory; "
            "pass equal-length rows of numbers, and move tensors to the CPU as float32 without gradient first"
        ) from error


def _on_device(value: Any) -> bool:
    try:  # attributes that some libraries have on every array, and that raise where they do not apply
        if hasattr(value, "__dlpack_device__"):
            return int(value.__dlpack_device__()[0]) not in _CPU_DEVICES
        return getattr(value, "__cuda_array_interface__", None) is not None
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError):
        return False  # whoever reads it says what is wrong with it


def _fetch(value: Any) -> Any:
    """A copy in host memory. TypeError when its library offers none of the known methods."""
    for name in ("get", "cpu", "copy_to_host", "to_host"):
        method = getattr(value, name, None)
        if callable(method):
            return method()
    raise TypeError("no method copies it to host memory")
