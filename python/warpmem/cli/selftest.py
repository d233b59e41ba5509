"""Does a search backend compute what the reference computes? A small random problem, compared bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..index.numpy_ref import NumpyBackend
from ..protocols import RowPool, SearchBackend
from ..records import Segment

_SEED = 20_260_601
_ROWS = 300
_LISTS = 3
_COLUMNS = 4
_RECENCY, _PRIORITY = 2, 3
_DIMENSIONS = (7, 64, 256)
_K = 25


def check(backend: SearchBackend) -> str | None:
    """None when `backend`, which must be available, gives the reference's bits, else where it differs."""
    reference = NumpyBackend()
    for dimension in _DIMENSIONS:
        rng = np.random.default_rng([_SEED, dimension])
        raw = rng.standard_normal((_ROWS + 4, dimension)).astype(np.float32)
        raw[10:20] = raw[0]  # equal rows, to be ordered by ordinal
        unit = reference.normalize(raw)
        if _bits(unit) != _bits(backend.normalize(raw)):
            return f"normalize differs at dimension {dimension}"
        rows, queries = unit[:_ROWS], unit[_ROWS:]
        columns = rng.integers(-3, 4, (_ROWS, _COLUMNS), dtype=np.int64)
        columns[:, _PRIORITY] = rng.random(_ROWS).view(np.int64)  # a positive float64 is its own order key
        pools = [_filled(which, rows, columns) for which in (reference, backend)]
        for name, segments, ranking in _problems(rng):
            expected, found = (pool.scan(queries, segments, _K, **ranking) for pool in pools)
            for i, part in enumerate(_PARTS):
                if _bits(expected[i]) != _bits(found[i]):
                    return f"{part} of the {name} scan differ at dimension {dimension}"
    return None


_PARTS = ("scores", "similarities", "list ids", "row ids", "counts")


def _filled(backend: SearchBackend, rows: NDArray[np.float32], columns: NDArray[np.int64]) -> RowPool:
    pool = backend.pool(rows.shape[1], _COLUMNS)
    ids = np.arange(len(rows), dtype=np.int64)
    pool.apply([], ids % _LISTS, ids, ids[::-1].astype(np.uint32), columns, rows)
    pool.apply([(int(i) % _LISTS, int(i)) for i in ids[::7]], *_nothing(rows.shape[1]))
    return pool


def _nothing(dimension: int) -> tuple[Any, ...]:
    return (
        np.empty(0, np.int64),
        np.empty(0, np.int64),
        np.empty(0, np.uint32),
        np.empty((0, _COLUMNS), np.int64),
        np.empty((0, dimension), np.float32),
    )


def _problems(rng: np.random.Generator) -> list[tuple[str, list[Segment], dict[str, Any]]]:
    """(name, segments for four queries, ranking): plain, filtered, ranked."""
    plain: list[Segment] = [(q, i, i, (), (), None) for q in range(4) for i in range(_LISTS)]
    bitmap = rng.integers(0, 1 << 63, (_ROWS + 63) // 64, dtype=np.uint64)
    terms = ((0, 0, -1, 2), (1, 1, 0, 3))
    filtered: list[Segment] = [(q, i, 0, terms, (-2, 0, 3), bitmap) for q in range(4) for i in range(_LISTS)]
    ranking = {
        "min_similarity": -0.5,
        "w_similarity": 0.7,
        "w_recency": 0.2,
        "w_priority": 0.1,
        "half_life": 2.5,
        "recency_column": _RECENCY,
        "priority_column": _PRIORITY,
        "now": 3,
    }
    return [("plain", plain, {}), ("filtered", filtered, {}), ("ranked", filtered, ranking)]


def _bits(array: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(array).tobytes()
