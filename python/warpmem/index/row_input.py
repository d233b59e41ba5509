"""Vectors that callers of VectorIndex pass in, and arrays they get back: in host memory or on a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import InvalidVector, NotSupported
from ..protocols import RowPool
from ..types import Neighbors
from . import inputs
from .inputs import F32
from .tiered import DeviceRows, TieredPool

_NORMALISE_ROWS = 8192


class RowInput:
    """Makes vectors (n, dim) float32, as an index's pool takes them: finite, and of unit length where the
    metric is cosine. normalize: the backend's."""

    def __init__(self, dim: int, metric: str, storage: str, normalize: Callable[[F32], F32]) -> None:
        self._dim = dim
        self._cosine = metric == "cosine"
        self._half = storage == "f16"
        self._normalize = normalize

    def vectors(self, value: Any, pool: RowPool) -> F32:
        """Rows to be kept: in host memory, which holds the truth. Raises InvalidVector."""
        there = self._fetch(value, "vectors", pool, unit=False)
        rows = self._checked(value if there is None else there.host, "vectors")
        if self._half and not self._cosine:
            inputs.require_half(rows, "vectors")
        return rows

    def queries(self, value: Any, pool: RowPool) -> F32 | DeviceRows:
        """Rows to be searched for. Float32 rows on the device of a tiered pool stay there; others are copied
        to host memory. Raises InvalidVector, BackendUnavailable when that device fails."""
        there = self._fetch(value, "queries", pool, unit=self._cosine)
        if there is None:
            return self._checked(value, "queries")
        if not self._cosine:
            inputs.require_finite(there.host, "queries")
        return there

    def _fetch(self, value: Any, what: str, pool: RowPool, *, unit: bool) -> DeviceRows | None:
        """None where the host's way has to do it, which copies the array or says what is wrong with it."""
        if isinstance(value, np.ndarray) or not isinstance(pool, TieredPool) or not pool.reads(value):
            return None
        try:
            rows = pool.fetch(value, unit=unit)
        except (TypeError, ValueError):
            return None
        if rows.host.shape[1] != self._dim:
            raise InvalidVector(f"{what}: expected {self._dim} dimensions, not {rows.host.shape[1]}")
        return rows

    def _checked(self, value: Any, what: str) -> F32:
        rows = inputs.as_rows(value, self._dim, what)
        if not self._cosine:
            inputs.require_finite(rows, what)
            return rows
        try:
            if len(rows) <= _NORMALISE_ROWS:
                return self._normalize(rows)
            unit = np.empty_like(rows)  # in parts, so that other threads get their turn
            for start in range(0, len(rows), _NORMALISE_ROWS):
                part = slice(start, start + _NORMALISE_ROWS)
                unit[part] = self._normalize(rows[part])
            return unit
        except ValueError:
            inputs.require_finite(rows, what)
            row = int(np.argmin(rows.any(axis=1)))
            raise InvalidVector(
                f"{what}: row {row} of {len(rows)} is all zero and has no direction"
            ) from None


def require_device(pool: RowPool, plan: str) -> TieredPool:
    """The pool, if results can lie on a device. plan: names the index in the message. Raises NotSupported."""
    if isinstance(pool, TieredPool):
        return pool
    raise NotSupported(
        f'results="device" needs an exact index with backend="cuda"; this one is: {plan}. '
        'Use results="host" and copy'
    )


def to_device(pool: TieredPool, found: Neighbors) -> Neighbors:
    """What was found, with ids and scores on the device. Raises BackendUnavailable."""
    ids, scores = pool.put([found.ids, found.scores])
    return Neighbors(ids, scores, found.plan)
