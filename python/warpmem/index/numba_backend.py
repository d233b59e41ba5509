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
from .numpy_ref import NumpyPool, PoolBackend, _Found, _List, _Ranking
from .segments import Segments, pack_filters

INSTALL = "pip install 'warpmem[numba]'"

_SCREEN_DIM = 64
_SCREEN_ROWS = 256
_PART_WORK = 1 << 22  # multiplications that are worth a thread

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

    _adds = False

    def __init__(
        self, dim: int, n_columns: int, threads: int = 1, *, storage: str = "f32", metric: str = "dot"
    ) -> None:
        super().__init__(dim, n_columns, storage=storage, metric=metric)
        self._threads = threads
        self._kernels = load("numba_kernels")
        self._operations = load("numba_ops")
        self._entries: dict[int, tuple[_List, tuple[NDArray[Any], ...], tuple[int, ...]]] = {}

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
        ids, starts, order = segments.grouped()
        here = np.array([list_id in lists for list_id in ids.tolist()], bool)
        if not here.any():
            return []
        each = np.diff(starts)[here]  # segments of each list
        order = order[np.repeat(here, np.diff(starts))]
        table = np.array([self._entry(list_id, lists[list_id]) for list_id in ids[here].tolist()], np.int64)
        work = np.concatenate(([0], np.cumsum(table[:, 0] * each)))
        of_query = segments.queries[order]
        kept = min(k, int(np.bincount(of_query, np.repeat(table[:, 0], each)).max()))
        parts = max(1, min(self._threads, int(work[-1]) * self._dim // _PART_WORK))
        size = (parts, len(queries), kept)
        best = (
            np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.uint32),
            np.empty(size, np.uint32), np.empty(size, np.int64), np.empty(size, np.int64),
        )  # fmt: skip
        counts = np.zeros(size[:2], np.int64)
        r = ranking
        arguments = (
            np.linspace(0, work[-1], parts + 1).astype(np.int64),
            table,
            (np.int64(self._n_columns), np.int64(self._dim)),
            _quantized_queries(queries),
            (
                of_query,
                segments.groups[order],
                segments.filters[order],
                np.concatenate(([0], np.cumsum(each))),
                work[:-1],
            ),
            pack_filters(segments.distinct),
            tuple(map(float, (r.min_similarity, r.w_similarity, r.w_recency, r.w_priority, r.half_life))),
            tuple(map(np.int64, (r.recency_column, r.priority_column, r.now, self._metric == "l2"))),
        )
        if parts == 1:
            self._kernels.scan_part(0, *arguments, tuple(array[0] for array in best), counts[0])
        else:
            with _parallel, self._operations.threads(parts):
                self._kernels.scan_parts(*arguments, best, counts)
        self._forget(lists)
        held = np.arange(kept) < counts[:, :, None]
        parts_of: list[Any] = [array[held] for array in best]
        return [_Found(np.nonzero(held)[1], *parts_of)]

    def _entry(self, list_id: int, rows: _List) -> tuple[int, ...]:
        """A row of `lists` as `numba_kernels.scan_parts` explains it; `lists` keeps the arrays alive."""
        known = self._entries.get(list_id)
        if known is None or known[0] is not rows:
            codes = self._screen(rows)
            arrays: tuple[Any, ...] = (*rows, *codes)
            addresses = (array.ctypes.data for array in arrays)
            entry = (len(rows.row_ids), list_id, *addresses, *([0] * (4 - len(codes))))
            known = self._entries[list_id] = (rows, codes, entry)  # two threads may both: the same values
        return known[2]

    def _screen(self, rows: _List) -> tuple[NDArray[Any], ...]:
        """Codes of a list that is long enough to pay for them, made at the first scan after a change."""
        if self._metric == "l2" or self._dim < _SCREEN_DIM or len(rows.row_ids) < _SCREEN_ROWS:
            return ()
        codes = _codes(len(rows.row_ids), self._dim)
        self._operations.quantize(rows.vectors, *codes)
        return codes

    def _forget(self, lists: Mapping[int, _List]) -> None:
        """Let go of the codes of lists that are no longer there."""
        if len(self._entries) <= len(lists):
            return
        for list_id in [i for i in tuple(self._entries) if i not in lists]:
            self._entries.pop(list_id, None)


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
