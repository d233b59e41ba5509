"""Training where an index is: k-means and codebooks by its CUDA device in turns with others, else by the
host. Either gives the same bits, so what is made of them never depends on where that was."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendUnavailable, DeadlineExceeded, Overloaded
from ..ops.cancel import current
from ..ops.devices import scheduler_of
from ..protocols import SearchBackend
from .cuda_backend import CudaBackend, CudaKernels
from .kernels import kmeans, pq_train

F32 = NDArray[np.float32]
_Made = TypeVar("_Made")


class Cluster(Protocol):
    """Spherical k-means. rows: (n, dim) of unit length. k: at most n."""

    def __call__(self, rows: F32, k: int, *, check: Callable[[], None] = ...) -> NDArray[np.int32]:
        """The cluster of each row, (n,). check: called now and then, ends it by what it raises."""
        ...


LEAST_WORK: Final = 1 << 25
"""Rows * dimension * clusters below which a thread of the host is through in some 15 ms: not worth a device's
memory and its turns. A device is expected to take some 50 us for each of the k steps of k-means++, however
small."""

LEAST_PIECE: Final = 1 << 20
"""Of codebooks, the same of each subspace, some 1 to 4 ms: these are trained one after the other, in a dozen
rounds of which a device is expected to take some 100 us for each, however small."""

PATIENCE: Final = 5.0
"""Seconds that turns of a device are waited for altogether, or as many as the host takes, if these are more:
then the host does it."""
_HOST_SECONDS: Final = 0.015 / LEAST_WORK
_HOST_PIECE_SECONDS: Final = 0.004 / LEAST_PIECE
"""What a thread of it takes for each."""


def _go_on() -> None:
    """Nothing ends it."""


class Training:
    """`kernels.kmeans` and `kernels.pq_train` of finite rows (n, dim) float32, with their arguments, results
    and errors, where the pools of a backend are. threads, isa: of the host. check: called now and then, ends
    it by what it raises. Thread-safe.

    A device works in its background lane, so that embedders and searches on it go before. The host does what
    is little, and what the device cannot do: it fails, lacks the memory, has too much to do or is kept busy
    by others.
    """

    def __init__(self, backend: SearchBackend | None = None, *, isa: str = "auto") -> None:
        self._backend = backend if isinstance(backend, CudaBackend) else None
        self._isa: Any = isa

    def kmeans(
        self, rows: F32, k: int, *, threads: int = 1, check: Callable[[], None] = _go_on, **options: Any
    ) -> tuple[F32, NDArray[np.int32], float]:
        """(centroids, assignments, objective)."""
        by_host = partial(kmeans, rows, k, threads=threads, isa=self._isa, **options)
        if rows.size * k < LEAST_WORK * threads or len(rows) < k:  # of which the host says what is wrong
            return _after(check, by_host)
        x = np.require(rows, np.float32, ["C", "A"])
        made: tuple[F32, NDArray[np.int32], float] = self._made(
            lambda device: device.kmeans(x, k, **options), by_host, check,
            _HOST_SECONDS * rows.size * k / threads,
        )  # fmt: skip
        return made

    def pq_train(
        self,
        rows: F32,
        pq_dim: int,
        pq_bits: int,
        *,
        threads: int = 1,
        check: Callable[[], None] = _go_on,
        **options: Any,
    ) -> F32:
        """Codebooks (pq_dim, 2^pq_bits, dim / pq_dim)."""
        by_host = partial(pq_train, rows, pq_dim, pq_bits, threads=threads, isa=self._isa, **options)
        if (rows.size << pq_bits) < LEAST_PIECE * pq_dim * threads or len(rows) < 1 << pq_bits:
            return _after(check, by_host)
        x = np.require(rows, np.float32, ["C", "A"])
        return self._made(
            lambda device: device.pq_train(x, pq_dim, pq_bits, **options), by_host, check,
            _HOST_PIECE_SECONDS * (rows.size << pq_bits) / threads,
        )  # fmt: skip

    def _made(
        self,
        by_device: Callable[[CudaKernels], _Made],
        by_host: Callable[[], _Made],
        check: Callable[[], None],
        host_seconds: float,
    ) -> _Made:
        """host_seconds: what the host takes, about."""
        if self._backend is None:
            return _after(check, by_host)
        scheduler = scheduler_of(self._backend.place)
        left = max(PATIENCE, host_seconds)
        try:
            with ExitStack() as turn:

                def take() -> None:
                    nonlocal left
                    turn.close()
                    check()
                    began = time.monotonic()
                    try:
                        turn.enter_context(scheduler.turn("background", timeout=max(0.0, left)))
                    except DeadlineExceeded as error:
                        cancellation = current.get()
                        if cancellation is not None:
                            cancellation.check()
                        raise Overloaded("others keep the device busy", host_seconds) from error
                    left -= time.monotonic() - began

                device = self._backend.kernels(take)
                take()
                return by_device(device)
        except (BackendUnavailable, Overloaded):
            return _after(check, by_host)


def cluster_by(backend: SearchBackend) -> Cluster:
    """What clusters where the pools of a backend are. Thread-safe."""
    return partial(_cluster, Training(backend))


def _cluster(
    training: Training, rows: F32, k: int, *, check: Callable[[], None] = _go_on
) -> NDArray[np.int32]:
    return training.kmeans(rows, k, seed=0, spherical=True, check=check)[1]


def _after(check: Callable[[], None], make: Callable[[], _Made]) -> _Made:
    check()
    return make()
