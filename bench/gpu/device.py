"""The device under measurement, or NumPy in its place: its clock, its rates, its memory."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peers


class Device:
    """dry: arrays are NumPy's, the pool that is searched is the reference. module: an emulated
    `warpmem._cuda`, whose pools then take the reference's place."""

    def __init__(self, dry: bool, module: Any = None) -> None:
        self.dry, self.module = dry, module
        if dry:
            self.xp: Any = np
            self.name = "NumPy"
        else:
            import cupy

            self.xp = cupy
            self.name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode().replace(" ", "-")

    @property
    def reference(self) -> bool:
        """Whether the reference backend is what is measured."""
        return self.dry and self.module is None

    @property
    def threads(self) -> int:
        return 1 if self.dry else min(16, os.cpu_count() or 1)

    def backend(self, **options: Any) -> Any:
        """The backend that is measured. Unavailable where it cannot run."""
        if self.reference:
            from warpmem.index.numpy_ref import NumpyBackend

            return NumpyBackend()
        from warpmem.index.cuda_backend import CudaBackend  # type: ignore[import-not-found]

        made = CudaBackend(module=self.module, **options)
        reason = made.available()
        if reason is not None:
            raise peers.Unavailable(reason)
        return made

    def entry(self, name: str) -> Any:
        """A function of `warpmem._cuda`. Unavailable where the module has none of that name."""
        module = self.module
        if module is None:
            from warpmem import _cuda as module  # type: ignore[no-redef]
        found = getattr(module, name, None)
        if found is None:
            raise peers.Unavailable(f"warpmem._cuda has no entry {name} to time")
        return found

    def arrays(self, x: Any) -> Any:
        """An array of `xp` where the module can read it: the emulated one has memory of its own."""
        if self.module is None:
            return x
        return self.backend(vram_bytes=1 << 20).pool(1, 0).put([x])[0]

    def wait(self) -> None:
        """Until the device has nothing left to do."""
        if not self.dry:
            self.xp.cuda.Device().synchronize()

    def release(self) -> None:
        """Give back the memory that arrays had. A device that has failed cannot: who asks it next hears."""
        try:
            peers.release(self)
            if not self.dry:
                self.xp.get_default_memory_pool().free_all_blocks()
        except Exception as error:  # noqa: BLE001  # of torch or CuPy, also where nothing could handle it
            print(f"memory was not given back: {type(error).__name__}: {error}", file=sys.stderr, flush=True)

    def free_bytes(self) -> int:
        """Of device memory; of a dry run, little enough to be a bound."""
        return (1 << 30) if self.dry else int(self.xp.cuda.runtime.memGetInfo()[0])

    def times(self, call: Callable[[], object], rounds: int, seconds: float = 3.0) -> list[float]:
        """Milliseconds of calls, each to its end, behind one that warms up: `rounds` of them, or three and as
        many as `seconds` hold."""
        times: list[float] = []
        end = time.perf_counter() + seconds
        while len(times) <= rounds and (len(times) < 4 or time.perf_counter() < end):
            self.wait()
            started = time.perf_counter()
            call()
            self.wait()
            times.append((time.perf_counter() - started) * 1e3)
        return times[1:]

    def milliseconds(self, call: Callable[[], object], rounds: int, seconds: float = 3.0) -> float:
        """The median of `times`."""
        return statistics.median(self.times(call, rounds, seconds))

    def bandwidth(self) -> float:
        """Bytes per second that a copy reads and writes."""
        n = 1 << (18 if self.dry else 28)  # of random values: some devices move zeros faster
        source = self.xp.random.RandomState(0).standard_normal(n).astype(self.xp.float32)
        target = self.xp.empty_like(source)

        def copy() -> None:
            target[...] = source

        return 2 * source.nbytes / (self.milliseconds(copy, self._long(200)) * 1e-3)

    def _long(self, rounds: int) -> int:
        """So many that clocks which were idle have risen by the median; few in a dry run."""
        return 15 if self.dry else rounds

    def matrix_rate(self) -> tuple[float | None, str]:
        """Floating-point operations per second of a large product, and of which type: bf16 by torch, float16
        by CuPy where torch cannot; None where neither can."""
        n = 64 if self.dry else 8192

        def by_torch() -> tuple[Any, str]:
            torch = peers.torch_of(self)
            return torch.randn(n, n, device="cpu" if self.dry else "cuda").bfloat16(), "bf16"

        def by_arrays() -> tuple[Any, str]:
            random = self.xp.random.RandomState(0).standard_normal((n, n))
            a = random.astype(self.xp.float32 if self.dry else self.xp.float16)
            return a, str(a.dtype)

        for make in (by_torch, by_arrays):
            try:
                a, kind = make()
                return 2.0 * n**3 / (self.milliseconds(lambda a=a: a @ a, self._long(100)) * 1e-3), kind
            except peers.Unavailable:
                continue
            except Exception as error:  # noqa: BLE001  # what a library raises costs the floor, not the run
                print(f"no rate of products: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return None, "unknown"


def host_bytes() -> int:
    """Host memory that is still to be had. WARPMEM_GPU_HOST_GIB says it where the system does not: a virtual
    machine may begin with little and grow as it is used."""
    given = os.environ.get("WARPMEM_GPU_HOST_GIB")
    if given:
        return int(float(given) * 2**30)
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
