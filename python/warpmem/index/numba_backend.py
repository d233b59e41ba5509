"""The Numba backend: the reference's lists, scanned by compiled Python: exact scan, filters and ranking.

It needs no compiler of its own and no wheel for the platform, and compiles at first use (some seconds, then
kept on disk). A change costs the length of the lists it touches, as in `numpy_ref`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendUnavailable
from ..protocols import RowPool
from .arguments import integer
from .numpy_ref import NumpyPool, PoolBackend, _Found, _List, _Ranking, found_rows
from .segments import Segments, pack_segments

INSTALL = "pip install 'warpmem[numba]'"

_PAGE = 64
_SCREEN_DIM = 64
_SCREEN_ROWS = 1024
_PART_WORK = 1 << 22  # multiplications that are worth a thread
_SEGMENTS = 64  # of one list in one call: bounds the memory of the heaps

_parallel = threading.Lock()  # Numba's fallback threading layer ends the process when two threads enter it
_loading = threading.Lock()


def load(name: str) -> ModuleType:
    """The module of this package that imports Numba. BackendUnavailable without Numba."""
    try:
        with _loading:
            return import_module(f".{name}", __package__)
    except ImportError as error:
        raise BackendUnavailable(f"backend numba cannot run here: {error}; {INSTALL}") from error


class NumbaPool(NumpyPool):
    """RowPool whose scan is compiled by Numba. threads: of one scan; with more than 1, large scans take
    turns."""

    def __init__(
        self, dim: int, n_columns: int, threads: int = 1, *, storage: str = "f32", metric: str = "dot"
    ) -> None:
        super().__init__(dim, n_columns, storage=storage, metric=metric)
        self._threads = threads
        self._kernels = load("numba_kernels")
        self._operations = load("numba_ops")
        self._codes: dict[int, tuple[_List, tuple[NDArray[Any], ...]]] = {}
        self._no_codes = _codes(0, dim)

    @property
    def isa(self) -> str:
        return "numba"

    def _search(
        self,
        lists: Mapping[int, _List],
        queries: NDArray[np.float32],
        segments: Segments,
        k: int,
        ranking: _Ranking,
    ) -> list[_Found]:
        found: list[_Found] = []
        prepared = _quantized_queries(queries)
        r = ranking
        weights = tuple(
            map(float, (r.min_similarity, r.w_similarity, r.w_recency, r.w_priority, r.half_life))
        )
        settings = tuple(map(np.int64, (r.recency_column, r.priority_column, r.now, self._metric == "l2")))
        for list_id, positions in segments.by_list():
            if list_id not in lists:
                continue
            rows = lists[list_id]
            screen = self._screen(list_id, rows)
            for start in range(0, len(positions), _SEGMENTS):
                some = positions[start : start + _SEGMENTS]
                packed = pack_segments(segments, some)
                parts = self._scan_list(rows, screen, prepared, packed, len(some), k, weights, settings)
                for at, (scores, similarities, where) in zip(some.tolist(), parts, strict=True):
                    of_segment = np.full(len(where), at)
                    found.append(found_rows(rows, list_id, segments, of_segment, where, scores, similarities))
        self._forget(lists)
        return found

    def _scan_list(
        self,
        rows: _List,
        screen: tuple[NDArray[Any], ...],
        queries: tuple[NDArray[Any], ...],
        packed: tuple[NDArray[Any], ...],
        s: int,
        k: int,
        weights: tuple[float, ...],
        settings: tuple[np.int64, ...],
    ) -> list[tuple[NDArray[Any], ...]]:
        """(scores, similarities, positions in the list) for each of the s segments, in no order."""
        n = len(rows.row_ids)
        wanted = min(self._threads, n * s * self._dim // _PART_WORK, -(-n // _PAGE))
        parts = max(1, wanted)
        ends = np.linspace(0, n, parts + 1).astype(np.int64)
        kept = min(k, n)
        scores = np.empty((parts, s, kept), np.float32)
        similarities = np.empty((parts, s, kept), np.float32)
        positions = np.empty((parts, s, kept), np.int64)
        counts = np.zeros((parts, s), np.int64)
        arrays = (rows.row_ids, rows.ordinals, rows.columns, rows.vectors)
        if parts == 1:
            self._kernels.scan_rows(
                0, n, arrays, screen, queries, packed, weights, settings,
                scores[0], similarities[0], positions[0], counts[0],
            )  # fmt: skip
        else:
            with _parallel, self._operations.threads(parts):
                self._kernels.scan_parts(
                    ends,
                    arrays,
                    screen,
                    queries,
                    packed,
                    weights,
                    settings,
                    scores,
                    similarities,
                    positions,
                    counts,
                )
        held = np.arange(kept) < counts[:, :, None]
        return [
            (scores[:, i][held[:, i]], similarities[:, i][held[:, i]], positions[:, i][held[:, i]])
            for i in range(s)
        ]

    def _screen(self, list_id: int, rows: _List) -> tuple[NDArray[Any], ...]:
        """Codes of a list that is long enough to pay for them, made at the first scan after a change."""
        if self._metric == "l2" or self._dim < _SCREEN_DIM or len(rows.row_ids) < _SCREEN_ROWS:
            return self._no_codes
        kept = self._codes.get(list_id)
        if kept is None or kept[0] is not rows:
            codes = _codes(len(rows.row_ids), self._dim)
            self._operations.quantize(rows.vectors, *codes)
            kept = self._codes[list_id] = (rows, codes)  # two threads may both make them: the same values
        return kept[1]

    def _forget(self, lists: Mapping[int, _List]) -> None:
        """Let go of the codes of lists that are no longer there."""
        for list_id in [i for i in tuple(self._codes) if i not in lists]:
            self._codes.pop(list_id, None)


class NumbaBackend(PoolBackend):
    """Exact scan compiled by Numba for this processor. Thread-safe; scans run without the GIL.

    device: "cpu", or "cuda" for a CUDA device or Numba's simulator. threads: of one large scan on the CPU, at
    least; a pool may ask for more, and gets no more than there are processors. A process that has scanned
    with more than one thread must not fork without exec.
    """

    name = "numba"
    capabilities = frozenset({"scan", "filter", "ranking", "kmeans", "pq"})

    def __init__(self, device: str = "cpu", threads: int = 1) -> None:
        if device not in ("cpu", "cuda"):
            raise ValueError(f"device must be cpu or cuda, not {device!r}")
        self._device = device
        self._threads = integer(threads, "threads", 1, max(1, os.cpu_count() or 1))

    def available(self) -> str | None:
        """None when usable here, else the reason and the remedy. Does not import Numba for the CPU."""
        if find_spec("numba") is None:
            return f"the package numba is not installed ({INSTALL})"
        if self._device == "cuda":
            reason: str | None = load("numba_cuda").unavailable()
            return reason
        return None

    def _make(self, dim: int, n_columns: int, threads: int, *, storage: str, metric: str) -> RowPool:
        if self._device == "cuda":
            pool: RowPool = load("numba_cuda").NumbaCudaPool(dim, n_columns, storage=storage, metric=metric)
            return pool
        threads = max(self._threads, min(threads, os.cpu_count() or 1))
        return NumbaPool(dim, n_columns, threads, storage=storage, metric=metric)

    def operations(self) -> ModuleType:
        """kmeans_assign, kmeans, pq_encode and pq_scan with the arguments of `kernels_ref`, on the CPU."""
        return load("numba_ops")


def _codes(n: int, dim: int) -> tuple[NDArray[Any], ...]:
    return (np.empty((n, dim), np.int8), *(np.empty(n, np.float32) for _ in range(3)))


def _quantized_queries(queries: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
    """queries as float64; as integers so small that a sum of dim products with int8 codes fits in an int32;
    the scale; |query| and |query - scale integers|, both rounded up."""
    dim = queries.shape[1]
    wide = queries.astype(np.float64)
    limit = min(32767, ((1 << 31) - 1) // (127 * dim))
    scale = np.abs(wide).max(axis=1, initial=0.0) / limit
    ints = np.rint(wide / np.where(scale > 0.0, scale, 1.0)[:, None]).astype(np.int16)
    rest = wide - scale[:, None] * ints
    norm, off = (np.sqrt((x * x).sum(axis=1)) * (1.0 + 1e-6) for x in (wide, rest))
    return wide, ints, scale, norm, off + norm * 1e-15
