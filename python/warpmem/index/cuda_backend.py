"""The CUDA backend: the native pool, with lists in a device's memory that the device scans."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import BackendUnavailable
from ..ops.devices import scheduler_of
from .cpu import CpuBackend
from .device_loader import DeviceLoader
from .device_options import DeviceOptions, PinnedPromise
from .device_recovery import recovery_of
from .tiered import TieredPool

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..protocols import RowPool

LEAST_WORK = 1 << 19
"""Rows * dimension * queries below which the host is through before a launch would be."""

_LEAST_DEFAULT = 64 << 20


def _load() -> tuple[ModuleType | None, str | None]:
    """The compiled module, or the reason it cannot be used."""
    try:
        from .. import _cuda
    except ImportError as error:
        return None, f"the compiled module warpmem._cuda cannot be imported ({error})"
    return _cuda, None


_tested: dict[tuple[ModuleType, int], str | None] = {}
_testing = threading.Lock()


def _distrust(module: ModuleType, device: int) -> str | None:
    """Why a device is not used: its kernels do not give the CPU's bits, or fail. Each is asked once a
    process, in a fraction of a second; without this a driver or a device that computes otherwise would be
    found by
    users."""
    with _testing:
        if (module, device) not in _tested:
            try:
                found = module.self_test(device)
                wrong = [name for name, family in found["families"].items() if family["mismatches"]]
                if not found["passed"]:
                    names = ", ".join(wrong) or "the scorer"
                    reason = (
                        f"CUDA device {device} gives other bits than the CPU ({names}): run warpmem doctor"
                    )
                else:
                    reason = None
            except (RuntimeError, OSError, MemoryError) as error:
                reason = f"the self-test of CUDA device {device} failed ({error}): run warpmem doctor"
            _tested[module, device] = reason
        return _tested[module, device]


class CudaKernels:
    """kmeans, kmeans_assign and pq_train of a device with the arguments and the bits of `_cpu.Kernels`.
    `threads` are of a host and mean nothing here. Raises as these do, and BackendUnavailable when the device
    fails or has not the memory. Thread-safe."""

    def __init__(self, module: ModuleType, device: int, between: Callable[[], object] | None) -> None:
        self._module = module
        self._options = {"device": device, "between": between}

    def kmeans(self, x: NDArray[np.float32], k: int, *, threads: int = 1, **options: Any) -> Any:
        return self._module.kmeans(x, k, **self._options, **options)

    def kmeans_assign(
        self, x: NDArray[np.float32], centroids: NDArray[np.float32], *, threads: int = 1, **options: Any
    ) -> Any:
        return self._module.kmeans_assign(x, centroids, **self._options, **options)

    def pq_train(
        self, x: NDArray[np.float32], pq_dim: int, pq_bits: int, *, threads: int = 1, **options: Any
    ) -> Any:
        return self._module.pq_train(x, pq_dim, pq_bits, **self._options, **options)


class CudaBackend:
    """Exact scan on a CUDA device, of lists that its memory holds; the CPU scans the others at the same time.
    Thread-safe.

    isa: of the CPU's part. device, vram_bytes, pinned_bytes, rebuild_ms: see DeviceOptions; memory is taken
    as lists are loaded. lanes: launches that may run at the same time; searches that find all of them busy
    share the next. least_work: rows * dimension * queries of a scan from which on the device is asked.
    """

    name = "cuda"
    capabilities = frozenset({"scan", "filter", "ranking", "kmeans", "file"})

    def __init__(
        self,
        isa: str = "auto",
        *,
        device: int = 0,
        vram_bytes: int | None = None,
        pinned_bytes: int | None = None,
        rebuild_ms: int = 1000,
        lanes: int = 2,
        least_work: int = LEAST_WORK,
        module: ModuleType | None = None,
    ) -> None:
        self._host = CpuBackend(isa)
        self._device = device
        self._given = DeviceOptions(device, vram_bytes, pinned_bytes, rebuild_ms)
        self._options = {"lanes": lanes, "least_work": least_work}
        self._module = module
        self._reason: str | None = None
        self._proven = False

    def available(self) -> str | None:
        """None when usable here, else the reason and the remedy."""
        if self._module is None and self._reason is None:
            self._module, self._reason = _load()
        if self._module is None:
            return self._reason
        reason: str | None = self._host.available() or self._module.unavailable_reason()
        if reason is None and not 0 <= self._device < self._module.device_count():
            count = self._module.device_count()
            reason = f"there is no CUDA device {self._device}; choose one of 0 to {count - 1}"
        return reason or _distrust(self._module, self._device)

    def pool(
        self,
        dim: int,
        n_columns: int,
        *,
        storage: str = "f32",
        metric: str = "dot",
        screen: str = "auto",
        threads: int = 1,
    ) -> RowPool:
        """A new, empty pool; arguments and errors as those of the CPU's. A device that fails from now on is
        no error: the CPU answers, and `TieredPool.tiers()` says why."""
        self._usable()
        return self._tiered(
            self._host.pool(dim, n_columns, storage=storage, metric=metric, screen=screen, threads=threads)
        )

    def save_pool(self, pool: RowPool, path: str, sections: Mapping[str, bytes]) -> None:
        """As the CPU's."""
        self._host.save_pool(pool, path, sections)

    def open_pool(self, path: str, *, threads: int = 1) -> tuple[RowPool, Mapping[str, bytes]]:
        """As the CPU's: the file is mapped, its lists are loaded to the device when asked for."""
        self._usable()
        pool, sections = self._host.open_pool(path, threads=threads)
        return self.adopt(pool), sections

    def adopt(self, pool: RowPool) -> RowPool:
        """A native pool, or an approximate one over native pools, from now on with the device. The two parts
        of an approximate pool, rows in cells and the others, share `vram_bytes` and `pinned_bytes`."""
        tier = getattr(pool, "tier", None)
        if tier is None:
            return self._tiered(pool)
        tier(partial(self._tiered, share=2))
        return pool

    def normalize(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, dim) float32 to unit length. ValueError naming the first row that is zero or not finite."""
        return self._host.normalize(x)

    @property
    def place(self) -> str:
        """The device, as `scheduler_of` knows it."""
        return f"cuda:{self._device}"

    def kernels(self, between: Callable[[], object] | None = None) -> CudaKernels:
        """What else the device computes. between: called when the device has been used for some 10 ms and is
        idle; what it raises ends the call. Raises BackendUnavailable."""
        return CudaKernels(self._usable(), self._device, between)

    def _tiered(self, pool: RowPool, share: int = 1) -> RowPool:
        loader = DeviceLoader(scheduler_of(self.place))
        self._recovery = recovery_of(self.place)  # kept: pools come and go, its counts stay
        pause = self._given.rebuild_ms / 1000
        open_cache = partial(self._open_cache, share, self._given.pinned(share), loader)
        return TieredPool(pool, open_cache, loader, self._recovery, pause)

    def _open_cache(self, share: int, pinned: PinnedPromise, loader: DeviceLoader, port: Any) -> Any:
        module = self._usable()
        limit = self._given.vram_bytes
        if limit is None:
            limit = max(_LEAST_DEFAULT, module.memory(self._device)["free"] // 2)
        return module.PageCache(
            port,
            device=self._device,
            limit=limit // share,
            pinned_bytes=pinned.bytes,
            manual=True,
            between=loader.between,
            **self._options,
        )

    def _usable(self) -> ModuleType:
        """The module. Who could be used once can be: what fails from then on is the device, and no error."""
        reason = None if self._proven else self.available()
        if reason is not None or self._module is None:
            raise BackendUnavailable(f"backend cuda cannot run here: {reason}")
        self._proven = True
        return self._module
