"""Clusters of rows where their index computes: on its CUDA device in turns with others, else on the host.
Either gives the same bits, so what is made of clusters never depends on where that was."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendUnavailable, Overloaded
from ..ops.devices import scheduler_of
from ..protocols import SearchBackend
from .cuda_backend import CudaBackend
from .kernels import kmeans


class Cluster(Protocol):
    """Spherical k-means. rows: (n, dim) of unit length. k: at most n."""

    def __call__(
        self, rows: NDArray[np.float32], k: int, *, check: Callable[[], None] = ...
    ) -> NDArray[np.int32]:
        """The cluster of each row, (n,). check: called now and then, ends it by what it raises."""
        ...


LEAST_WORK: Final = 1 << 25
"""Rows * dimension * clusters below which the host is through in some 15 ms: not worth a device's memory and
its turns. A device is expected to take some 50 us for each of the k steps of k-means++, however small."""


def cluster_by(backend: SearchBackend) -> Cluster:
    """What clusters where the pools of a backend are. Thread-safe."""
    return partial(_by_device, backend) if isinstance(backend, CudaBackend) else _by_host


def _go_on() -> None:
    """Nothing ends it."""


def _by_host(rows: NDArray[np.float32], k: int, *, check: Callable[[], None] = _go_on) -> NDArray[np.int32]:
    check()
    _, assigned, _ = kmeans(rows, k, seed=0, spherical=True)
    return assigned


def _by_device(
    backend: CudaBackend, rows: NDArray[np.float32], k: int, *, check: Callable[[], None] = _go_on
) -> NDArray[np.int32]:
    """In the background lane of the device, so that embedders and searches on it go before. The host does
    what is little, and what the device cannot do: it fails, lacks the memory or has too much to do."""
    if rows.size * k < LEAST_WORK:
        return _by_host(rows, k, check=check)
    scheduler = scheduler_of(backend.place)
    try:
        with ExitStack() as turn:

            def take() -> None:
                turn.close()
                check()
                turn.enter_context(scheduler.turn("background"))

            x, kernels = np.require(rows, np.float32, ["C", "A"]), backend.kernels(take)
            take()
            _, assigned, _ = kernels.kmeans(x, k, seed=0, spherical=True)
            found: NDArray[np.int32] = assigned
            return found
    except (BackendUnavailable, Overloaded):
        return _by_host(rows, k, check=check)
