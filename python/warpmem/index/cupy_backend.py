"""The CuPy backend: the reference's lists on a CUDA device, scanned by array expressions.

The array module is an argument, so the same code runs and is tested with NumPy. It keeps to operations that
both modules have and that round alike: sums in a fixed order, a multiplication and its addition as two
operations, no library exponential. A change costs the length of the lists it touches, once on the host and
once more to copy them to the device.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendUnavailable
from ..protocols import RowPool
from .array_ops import ArrayOps
from .canonical import _TAYLOR
from .numpy_ref import NumpyPool, PoolBackend, _Found, _List, _Ranking, found_rows
from .segments import Filter, Segments, holds

INSTALL = "pip install cupy-cuda13x"

_LANES = 32
_INT64_MAX = (1 << 63) - 1
_WORK_BYTES = 256 << 20
_CACHE_BYTES = 4 << 30


class _DeviceList(NamedTuple):
    """A list's arrays as arrays of the array module."""

    source: _List
    row_ids: Any
    columns: Any
    vectors: Any


class CupyPool(NumpyPool):
    """RowPool on the arrays of `xp`. cache_bytes: of lists on the device; the least recently searched leave
    first."""

    _adds = False

    def __init__(
        self,
        dim: int,
        n_columns: int,
        xp: Any,
        cache_bytes: int = _CACHE_BYTES,
        *,
        storage: str = "f32",
        metric: str = "dot",
    ) -> None:
        super().__init__(dim, n_columns, storage=storage, metric=metric)
        self._xp = xp
        self._cache: OrderedDict[int, _DeviceList] = OrderedDict()
        self._cache_bytes = cache_bytes
        self._cache_lock = threading.Lock()

    @property
    def isa(self) -> str:
        return "cupy"

    def _search(
        self,
        lists: Mapping[int, _List],
        queries: NDArray[np.float32],
        segments: Segments,
        k: int,
        ranking: _Ranking,
    ) -> list[_Found]:
        found: list[_Found] = []
        xp = self._xp
        on_device = xp.asarray(queries)
        for list_id, positions in segments.by_list():
            if list_id not in lists:
                continue
            rows = self._on_device(list_id, lists[list_id])
            block = max(1, _WORK_BYTES // (8 * len(rows.row_ids)))
            for start in range(0, len(positions), block):
                some = positions[start : start + block]
                similarities = self._similarities(rows.vectors, on_device[xp.asarray(segments.queries[some])])
                for at, similarity in zip(some.tolist(), similarities, strict=True):
                    filter = segments.distinct[segments.filters[at]]
                    part = self._best(rows, filter, similarity, k, ranking)
                    where, score, near = (self._to_host(array) for array in part)
                    found.append(
                        found_rows(
                            rows.source, list_id, segments, np.full(len(where), at), where, score, near
                        )
                    )
        self._forget(lists)
        return found

    def _best(
        self, rows: _DeviceList, filter: Filter, similarity: Any, k: int, ranking: _Ranking
    ) -> tuple[Any, Any, Any]:
        """(positions, scores, similarities) of the k best rows of one segment. similarity: of every row."""
        xp = self._xp
        keep = similarity.astype(np.float64) >= ranking.min_similarity
        if len(filter.terms):
            keep &= holds(xp, filter.terms, filter.values, rows.columns)
        if filter.bitmap is not None:
            keep &= self._in_bitmap(rows.row_ids, filter.bitmap)
        at = xp.flatnonzero(keep)
        score = self._final_score(ranking, similarity[at], rows.columns[at])
        if len(at) > k:  # ties with the k-th stay: ordinals and ids decide among them
            near = xp.flatnonzero(score >= xp.partition(score, len(at) - k)[len(at) - k])
            at, score = at[near], score[near]
        return at, score, similarity[at]

    def _similarities(self, vectors: Any, queries: Any) -> Any:
        """(q, n) float32 canonical similarities."""
        xp = self._xp
        n, q = len(vectors), len(queries)
        out = xp.empty((q, n), np.float32)
        wide = queries.astype(np.float64)
        step = max(1, _WORK_BYTES // (3 * q * _LANES * 8))
        for at in range(0, n, step):
            block = vectors[at : at + step].astype(np.float64)
            acc = xp.zeros((q, len(block), _LANES), np.float64)
            for start in range(0, self._dim, _LANES):
                a = wide[:, None, start : start + _LANES]
                b = block[None, :, start : start + _LANES]
                if self._metric == "l2":
                    a = b = a - b
                part = a * b
                acc[:, :, : part.shape[2]] += part
            width = _LANES // 2
            while width:
                acc[:, :, :width] += acc[:, :, width : 2 * width]
                width //= 2
            with np.errstate(over="ignore"):
                values = acc[:, :, 0].astype(np.float32)
            out[:, at : at + step] = np.float32(0.0) - values if self._metric == "l2" else values
        return out

    def _in_bitmap(self, row_ids: Any, bitmap: NDArray[np.uint64]) -> Any:
        xp = self._xp
        words = xp.concatenate([xp.asarray(bitmap), xp.zeros(1, np.uint64)])
        inside = (row_ids >= 0) & (row_ids // 64 < len(bitmap))
        word = words[xp.where(inside, row_ids // 64, len(bitmap))]
        return (word >> (row_ids & 63).astype(np.uint64)) & np.uint64(1) != 0

    def _final_score(self, r: _Ranking, similarity: Any, columns: Any) -> Any:
        """As `numpy_ref._final_score`, on the arrays of `xp`."""
        xp = self._xp
        with np.errstate(over="ignore", invalid="ignore"):
            s = similarity.astype(np.float64) * r.w_similarity
            if r.w_recency != 0.0:
                then = columns[:, r.recency_column]
                wrapped = xp.subtract(np.uint64(r.now & ((1 << 64) - 1)), then.astype(np.uint64))
                age = xp.where(
                    then >= np.int64(r.now), np.uint64(0), xp.minimum(wrapped, np.uint64(_INT64_MAX))
                )
                s = s + self._exp2_neg(-(age.astype(np.float64) / r.half_life)) * r.w_recency
            if r.w_priority != 0.0:
                keys = columns[:, r.priority_column]
                bits = xp.where(keys >= 0, keys, keys ^ np.int64(_INT64_MAX))
                bits = xp.where(keys == np.int64(-_INT64_MAX - 1), np.int64(0), bits)  # missing: 0
                s = s + bits.view(np.float64) * r.w_priority
            s = xp.where(xp.isnan(s), -np.inf, s)
            return s.astype(np.float32) + np.float32(0.0)  # -0 becomes +0

    def _exp2_neg(self, x: Any) -> Any:
        """As `canonical.exp2_neg`; each step is an operation of its own, so a device cannot fuse them."""
        xp = self._xp
        flushed = ~(x >= -1022.0)
        x = xp.where(flushed, 0.0, x)
        n = xp.floor(x + 0.5)
        y = (x - n) * 0.6931471805599453
        p = xp.full_like(y, _TAYLOR[0])
        for coefficient in _TAYLOR[1:]:
            p = p * y
            p = p + coefficient
        scale = ((n.astype(np.int64) + 1023) << 52).view(np.float64)
        return xp.where(flushed, 0.0, p * scale)

    def _on_device(self, list_id: int, rows: _List) -> _DeviceList:
        """The list's arrays on the device, copied at the first scan after a change."""
        with self._cache_lock:
            kept = self._cache.pop(list_id, None)
            if kept is None or kept.source is not rows:
                kept = _DeviceList(
                    rows,
                    *(self._xp.asarray(a) for a in (rows.row_ids, rows.columns, rows.vectors)),
                )
            self._cache[list_id] = kept
            held = sum(_bytes(entry) for entry in self._cache.values())
            while held > self._cache_bytes and len(self._cache) > 1:
                _, gone = self._cache.popitem(last=False)
                held -= _bytes(gone)
            return kept

    def _forget(self, lists: Mapping[int, _List]) -> None:
        with self._cache_lock:
            for list_id in [i for i in self._cache if i not in lists]:
                del self._cache[list_id]

    def _to_host(self, array: Any) -> NDArray[Any]:
        host: NDArray[Any] = array if isinstance(array, np.ndarray) else array.get()
        return host


class CupyBackend(PoolBackend):
    """Exact scan by array expressions on a CUDA device. Thread-safe.

    xp: the array module; None for CuPy. NumPy in its place runs the same code on the host, for tests.
    """

    name = "cupy"
    capabilities = frozenset({"scan", "filter", "ranking", "kmeans", "pq"})

    def __init__(self, xp: Any = None) -> None:
        self._xp = xp

    def available(self) -> str | None:
        """None when usable here, else the reason and the remedy. Imports CuPy where it is installed."""
        if self._xp is not None:
            return None
        if find_spec("cupy") is None:
            return f"the package cupy is not installed ({INSTALL})"
        try:
            import cupy
        except ImportError as error:
            return f"cupy cannot be imported ({error})"
        try:
            devices = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            return f"cupy finds no CUDA device ({error})"
        if devices == 0:
            return "cupy finds no CUDA device"
        self._xp = cupy
        return None

    def _make(self, dim: int, n_columns: int, threads: int, *, storage: str, metric: str) -> RowPool:
        return CupyPool(dim, n_columns, self._module(), storage=storage, metric=metric)

    def operations(self) -> ArrayOps:
        """kmeans_assign, kmeans, pq_encode and pq_scan with the arguments of `kernels_ref`.
        BackendUnavailable."""
        return ArrayOps(self._module())

    def _module(self) -> Any:
        reason = self.available()
        if reason is not None:
            raise BackendUnavailable(f"backend cupy cannot run here: {reason}")
        return self._xp


def _bytes(entry: _DeviceList) -> int:
    return sum(int(array.nbytes) for array in entry[1:])
