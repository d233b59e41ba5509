"""Every backend, each instruction set forced, and pools and data to compare them with."""

from __future__ import annotations

import platform
import re
from collections import Counter
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from emulated_cuda import emulated
from warpmem.index.cpu import CpuBackend
from warpmem.index.cuda_backend import CudaBackend
from warpmem.index.cupy_backend import CupyBackend
from warpmem.index.device_loader import DeviceLoader
from warpmem.index.numba_backend import NumbaBackend
from warpmem.index.numpy_ref import NumpyBackend
from warpmem.index.tiered import TieredPool
from warpmem.ops.devices import scheduler_of
from warpmem.protocols import RowPool
from warpmem.records import SegmentTable

N_COLUMNS = 3


class EagerPool(TieredPool):
    """Whatever is scanned is on the device by then, and unless something changes meanwhile the device answers
    for all of it."""

    changes = 0  # odd while one is made; there is one writer

    def apply(self, *args: Any, **options: Any) -> None:
        self.changes += 1
        try:
            super().apply(*args, **options)
        finally:
            self.changes += 1

    def scan(self, queries: Any, segments: Any, k: int, *, explain: bool = False, **options: Any) -> Any:
        before, wanted = self.changes, self._device_part(segments)
        self.warm(self.lists(), wait=True)
        found = super().scan(queries, segments, k, explain=True, **options)
        assert found[5]["device_failure"] is None and not found[5]["device_failed"]
        if before == self.changes and before % 2 == 0:
            assert found[5]["device_lists"] == wanted
        return found if explain else found[:5]

    def _device_part(self, segments: Any) -> int:
        """How many lists the device should answer for: not those that a query scans twice with one group."""
        if isinstance(segments, SegmentTable):
            pairs = zip(np.ravel(segments.queries), np.ravel(segments.lists), strict=False)
            asked = [(query, list_id, 0) for query, list_id in pairs]
        else:
            asked = [tuple(segment[:3]) for segment in segments if len(segment) == 6]
        twice = {part[1] for part, count in Counter(asked).items() if count > 1}
        return len(({part[1] for part in asked} - twice) & set(self.lists().tolist()))


class EagerCudaBackend(CudaBackend):
    """The CUDA backend, on a device or on the emulator, with pools of which the device answers everything."""

    def __init__(self, **options: Any) -> None:
        super().__init__(vram_bytes=1 << 28, least_work=0, **options)

    def _tiered(self, pool: RowPool, share: int = 1) -> RowPool:
        emulator = self._module is not None and self._module.__name__ == "_cuda"  # not of the package
        loader = DeviceLoader(scheduler_of("emulated" if emulator else self.place))
        open_cache = partial(self._open_cache, share, self._given.pinned(share), loader)
        return EagerPool(pool, open_cache, loader)


class EmulatedCudaBackend(EagerCudaBackend):
    """The same on the emulator, which takes minutes to build: it is built when it is first asked, and so
    never where a device takes its place."""

    @property
    def _module(self) -> ModuleType:
        return emulated().module

    @_module.setter
    def _module(self, module: None) -> None:
        assert module is None


def hardware_has(*names: str) -> bool:
    """Asks the operating system, not the code under test."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    flags = set(re.findall(r"^flags\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[0].split())
    return set(names) <= flags


def hardware_has_avx2() -> bool:
    return hardware_has("avx2", "fma")


def native_isas() -> list[str]:
    """The instruction sets that the native backend must have here."""
    wide = hardware_has("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni")
    narrow = hardware_has("avx2", "fma", "f16c")
    return ["avx512"] * wide + ["avx2"] * narrow + ["serial"]


def make_backends() -> dict[str, Any]:
    found: dict[str, Any] = {"numpy": NumpyBackend()}
    found |= {isa: CpuBackend(isa) for isa in native_isas()}
    found["cupy"] = CupyBackend(np)  # the same code with NumPy as its array module
    found["cuda"] = EmulatedCudaBackend()
    if NumbaBackend().available() is None:  # an extra: test_numba_cupy.py says when it is absent
        found["numba"] = NumbaBackend()
    return found


BACKENDS = make_backends()
ARRAYS: dict[str, CupyBackend] = {"cupy": CupyBackend(np)}
"""What computes k-means and PQ as the cupy backend does."""
KEEP_NO_DEAD = ("numpy", "numba", "cupy")
"""Backends whose lists are replaced as a whole, so that no dead row stays behind."""


def make_pools(dim: int, n_columns: int = N_COLUMNS) -> dict[str, RowPool]:
    pools: dict[str, RowPool] = {}
    for name, backend in BACKENDS.items():
        assert backend.available() is None
        pools[name] = backend.pool(dim, n_columns)
        assert pools[name].isa == name, "the instruction set that was forced is the one that runs"
    return pools


def without_adding(patch: pytest.MonkeyPatch) -> None:
    """Backends say that their pools take no added scores, as those of devices do."""
    for backend in (CpuBackend, NumpyBackend):
        patch.setattr(backend, "capabilities", backend.capabilities - {"added"})


def make_rows(kind: str, n: int, dim: int, seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    x: NDArray[Any] = rng.standard_normal((n, dim))
    if kind == "integers":
        x = rng.integers(-3, 4, (n, dim))
    elif kind == "zeros":
        x = np.where(rng.random((n, dim)) < 0.5, 0.0, -0.0)
    elif kind == "denormals":
        x = x * 1e-42
    elif kind == "huge":
        x = np.where(rng.random((n, dim)) < 0.5, 1e30, -1e30) * (1 + rng.random((n, dim)))
    elif kind == "mixed":
        x = x * 10.0 ** rng.integers(-40, 30, (n, dim))
    elif kind == "equal":
        x = np.broadcast_to(x[:1], (n, dim))
    elif kind == "duplicates":
        x = x[rng.integers(0, max(1, n // 8), n)]
    elif kind == "cancelling" and dim > 1:
        half = dim // 2
        big = x[:, :half] * 1e6
        x[:, :half] = big
        x[:, half : 2 * half] = -big.astype(np.float32)
    return np.ascontiguousarray(x, dtype=np.float32)


def scan_all(pools: dict[str, RowPool], *args: Any, **options: Any) -> tuple[NDArray[Any], ...]:
    """Scan with every pool; assert equal bits; return the result once."""
    results: dict[str, tuple[NDArray[Any], ...]] = {
        name: pool.scan(*args, **options) for name, pool in pools.items()
    }
    reference = results["numpy"]
    for name, result in results.items():
        for part, expected in zip(result, reference, strict=True):
            assert part.dtype == expected.dtype and part.shape == expected.shape
            assert part.tobytes() == expected.tobytes(), f"{name} differs from numpy"
    return reference
