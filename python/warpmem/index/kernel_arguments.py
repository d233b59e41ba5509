"""Limits and checks of the arguments of `kernels.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendUnavailable, InputError, InvalidVector
from . import cpu, kernels_ref
from .cuda_backend import CudaBackend
from .cupy_backend import CupyBackend
from .numba_backend import NumbaBackend

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

_OPERATIONS: dict[str, Callable[[], Any]] = {"numba": NumbaBackend, "cupy": CupyBackend}

MAX_K = 4096
MAX_PQ_DIM = 4096
MAX_DIM = 65536
MAX_CENTROIDS = 1 << 24
MAX_COLUMNS = 1 << 31
MAX_LUT_SUM = 3e38
MAX_MMR = 1024


def native(backend: str, isa: str) -> Any | None:
    """The compiled kernels, or None for the reference."""
    if backend in _OPERATIONS:
        raise InputError(
            f"backend {backend} has kmeans, kmeans_assign, pq_train, pq_encode and pq_scan only; choose "
            "auto, cpu or numpy"
        )
    if backend == "cuda":
        raise InputError(
            "backend cuda has kmeans, kmeans_assign and pq_train only; choose auto, cpu or numpy"
        )
    if backend not in ("auto", "cpu", "numpy"):
        raise InputError(f"backend must be auto, cpu, numpy, numba, cupy or cuda, not {backend!r}")
    if backend == "numpy":
        return None
    module, reason = cpu._load()
    if module is None:
        if backend == "auto":
            return None
        raise BackendUnavailable(
            f"backend cpu cannot run here: {reason}; reinstall warpmem for this platform"
        )
    try:
        return module.Kernels(isa=isa)
    except ValueError as error:
        raise BackendUnavailable(f"backend cpu cannot run here: {error}") from None


def chosen(backend: str, isa: str) -> tuple[Any | None, Any]:
    """The compiled kernels or None, and what computes k-means and PQ without them: the reference or another
    backend's operations, which are called alike."""
    if backend not in _OPERATIONS:
        return native(backend, isa), kernels_ref
    _refuse_isa(backend, isa)
    return None, _OPERATIONS[backend]().operations()


def clustering(backend: str, isa: str, device: Any) -> tuple[Any | None, Any]:
    """As chosen, for k-means and codebooks: also the compiled kernels of a device."""
    number = integer(device, "device", 0, 1 << 16)
    if backend == "cuda":
        _refuse_isa(backend, isa)
        return CudaBackend(device=number).kernels(), None
    if number:
        raise InputError(f"device is the number of a device of backend cuda; backend {backend} has none")
    return chosen(backend, isa)


def _refuse_isa(backend: str, isa: str) -> None:
    if isa != "auto":
        raise InputError(f"isa forces an instruction set of backend cpu; backend {backend} has none")


def integer(value: Any, name: str, lo: int, hi: int) -> int:
    """An integer within [lo, hi]; a bool is none."""
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise InputError(f"{name} must be an integer, not {type(value).__name__}")
    number = int(value.__index__())
    if not lo <= number <= hi:
        raise InputError(f"{name} must be within {lo} and {hi}, not {number}")
    return number


def threads(value: Any) -> int:
    """A number of threads."""
    return integer(value, "threads", 1, 1024)


def seed(value: Any) -> int:
    """A seed: 63 bits."""
    return integer(value, "seed", 0, (1 << 63) - 1)


def floats(value: Any, name: str, axes: int) -> F32:
    """A float array of `axes` axes as C-contiguous, aligned float32."""
    array = np.asarray(value)
    if array.dtype not in (np.float16, np.float32, np.float64):
        raise InvalidVector(f"{name} must be float16, float32 or float64, not {array.dtype}")
    if array.ndim != axes:
        raise InvalidVector(f"{name}: expected {axes} axes, not {array.ndim}")
    with np.errstate(over="ignore"):  # what overflows is refused below as infinite
        return np.require(array, np.float32, ["C", "A"])


def matrix(value: Any, name: str, native: Any | None, dim: int | None = None) -> F32:
    """Rows of `dim` dimensions. The reference (no `native`) has them checked for finiteness here."""
    array = floats(value, name, 2)
    if dim is not None and array.shape[1] != dim:
        raise InvalidVector(f"{name}: expected {dim} dimensions, not {array.shape[1]}")
    if not 1 <= array.shape[1] <= MAX_DIM:
        raise InvalidVector(f"{name}: expected 1 to {MAX_DIM} dimensions, not {array.shape[1]}")
    if native is None:  # the compiled kernels look themselves
        require_finite(array, name)
    return array


def call(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """A compiled kernel; shapes and limits have been checked, so what it refuses is a value."""
    try:
        return function(*args, **options)
    except ValueError as error:
        raise InvalidVector(str(error)) from None


def require_finite(array: F32, name: str) -> None:
    """Refuse NaN and infinities, naming the first bad row."""
    for start in range(0, len(array), 65536):
        part = array[start : start + 65536]
        bad = np.flatnonzero(~np.isfinite(part.reshape(len(part), -1)).all(axis=1))
        if bad.size:
            raise InvalidVector(f"{name}: row {start + bad[0]} holds a NaN or an infinity")


def codebooks(value: Any, native: Any | None) -> F32:
    """Codebooks (pq_dim, 16 or 256, dsub)."""
    books = floats(value, "codebooks", 3)
    pq_dim, entries, dsub = books.shape
    if entries not in (16, 256):
        raise InvalidVector(f"codebooks: expected 16 or 256 entries a subspace, not {entries}")
    if not (1 <= pq_dim <= MAX_PQ_DIM and 1 <= dsub <= MAX_DIM):
        raise InvalidVector(
            f"codebooks: expected 1 to {MAX_PQ_DIM} subspaces of at least 1 dimension, not {pq_dim} of {dsub}"
        )
    if native is None:
        require_finite(books, "codebooks")
    return books


def bytes_of(value: Any, name: str, axes: int) -> U8:
    """A uint8 array of `axes` axes, C-contiguous."""
    array = np.asarray(value)
    if array.dtype != np.uint8:
        raise InputError(f"{name} must be uint8, not {array.dtype}")
    if array.ndim != axes:
        raise InputError(f"{name}: expected {axes} axes, not {array.ndim}")
    return np.require(array, np.uint8, ["C", "A"])


def codes(value: Any, pq_dim: int, pq_bits: int) -> U8:
    """Packed codes of the right size."""
    codes = bytes_of(value, "codes", 2)
    size = pq_dim if pq_bits == 8 else (pq_dim + 1) // 2
    if codes.shape[1] != size:
        raise InputError(f"codes: expected {size} bytes a row, not {codes.shape[1]}")
    return codes


def bits_of(value: Any) -> int:
    """pq_bits, 4 or 8."""
    if value not in (4, 8):
        raise InputError(f"pq_bits must be 4 or 8, not {value!r}")
    return int(value)


def require_blocks(rows: int, blocks: int) -> None:
    """Refuse a number of blocks that does not hold exactly these rows."""
    needed = -(-rows // kernels_ref.BLOCK_ROWS)
    if needed != blocks:
        raise InputError(f"{rows} rows need {needed} blocks, not {blocks}")


def require_training_rows(n: int, k: int) -> None:
    """Refuse fewer rows than centroids."""
    if n < k:
        raise InputError(f"x: {n} rows are too few for {k} centroids; give at least {k}")


def luts(value: Any, native: Any | None) -> F32:
    """Tables (n, pq_dim, 16 or 256) of which no sum overflows."""
    luts = floats(value, "luts", 3)
    if luts.shape[2] not in (16, 256):
        raise InvalidVector(f"luts: expected 16 or 256 entries a subspace, not {luts.shape[2]}")
    if not 1 <= luts.shape[1] <= MAX_PQ_DIM:
        raise InvalidVector(f"luts: expected 1 to {MAX_PQ_DIM} subspaces, not {luts.shape[1]}")
    if native is not None:
        return luts
    largest = np.abs(luts).max(axis=2).astype(np.float64).sum(axis=1)
    bad = np.flatnonzero(~(largest <= MAX_LUT_SUM))
    if bad.size:
        raise InvalidVector(f"luts: table {bad[0]} holds a NaN or an infinity, or its sums could overflow")
    return luts


def weight(value: Any) -> float:
    """A number in [0, 1]; a bool is none."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise InputError(f"weight must be a number, not {type(value).__name__}")
    if not 0.0 <= value <= 1.0:
        raise InputError(f"weight must be within 0 and 1, not {value}")
    return float(value)


def candidates(vectors: Any, relevance: Any, native: Any | None) -> tuple[F32, F32]:
    """Candidates (problems, n, dim) of a selection by mmr and their relevance (problems, n)."""
    rows, scores = floats(vectors, "vectors", 3), floats(relevance, "relevance", 2)
    if rows.shape[1] > MAX_MMR:
        raise InvalidVector(f"vectors: at most {MAX_MMR} candidates, not {rows.shape[1]}")
    if not 1 <= rows.shape[2] <= MAX_DIM:
        raise InvalidVector(f"vectors: expected 1 to {MAX_DIM} dimensions, not {rows.shape[2]}")
    if scores.shape != rows.shape[:2]:
        raise InvalidVector(f"relevance: expected shape {rows.shape[:2]}, not {scores.shape}")
    if native is None:
        require_finite(rows, "vectors")
        bad = np.flatnonzero(~(scores < np.inf).all(axis=1))
        if bad.size:
            raise InvalidVector(f"relevance: row {bad[0]} holds a NaN or an infinity")
    return rows, scores
