"""What lies on a device: a tiered pool, or the rows of an approximate pool, in two of these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendUnavailable
from ..ops.device_counts import added_up
from ..protocols import RowPool
from .tiered import TieredPool

I64 = NDArray[np.int64]


def warm(pool: RowPool, owners: I64, *, wait: bool) -> int:
    """Load owners' lists; how many are on their way. wait: until they are there, or there is no room."""
    return sum(part.warm(lists, wait=wait) for part, lists in _parts(pool, owners))


def evict(pool: RowPool, owners: I64) -> None:
    """Forget the device's copy of owners' lists."""
    for part, lists in _parts(pool, owners):
        part.evict(lists)


def rebuild(pool: RowPool) -> bool:
    """Start anew after a failure; whether a device answers now."""
    answers = [part.rebuild() for part, _ in _parts(pool, np.zeros(0, np.int64))]
    return bool(answers) and all(answers)


def stop(pool: RowPool) -> None:
    """A device that failed is not tried again by itself."""
    for part, _ in _parts(pool, np.zeros(0, np.int64)):
        part.stop()


def close(pool: RowPool) -> None:
    """As stop; a try that is under way has ended, or hangs in the driver (TieredPool.close)."""
    stop(pool)
    for part, _ in _parts(pool, np.zeros(0, np.int64)):
        part.close()


def tiers(pool: RowPool) -> dict[str, Any]:
    """As TieredPool.tiers, numbers of the pools added up; empty for a pool of the host."""
    return added_up(part.tiers() for part, _ in _parts(pool, np.zeros(0, np.int64)))


def failure(pool: RowPool) -> str | None:
    """Why a device answers nothing, where the pool has one; None while it does."""
    found = (part.failure for part, _ in _parts(pool, np.zeros(0, np.int64)))
    return next((reason for reason in found if reason is not None), None)


def put(pool: RowPool, arrays: Sequence[NDArray[Any]]) -> list[Any]:
    """Copies on the pool's device (TieredPool.put); the arrays themselves where it has none, or it fails."""
    for part, _ in _parts(pool, np.zeros(0, np.int64)):
        try:
            return part.put(arrays)
        except BackendUnavailable:
            break
    return list(arrays)


def _parts(pool: Any, owners: I64) -> list[tuple[TieredPool, I64]]:
    """The tiered pools, and the lists that the owners have in each."""
    apart = getattr(pool, "parts", None)
    parts = [(pool, owners)] if apart is None else apart(owners)
    return [(part, lists) for part, lists in parts if isinstance(part, TieredPool)]
