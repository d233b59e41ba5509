"""Every search backend of this build by name: the only file of the index that names them all."""

from __future__ import annotations

from ..protocols import SearchBackend
from .choose import ORDER, choose_backend
from .cpu import CpuBackend
from .cuda_backend import CudaBackend
from .cupy_backend import CupyBackend
from .device_options import DeviceOptions
from .numba_backend import NumbaBackend
from .numpy_ref import NumpyBackend

_BY_NAME_ONLY = {"numba": "it compiles for seconds at its first search, so it must be asked for by name"}
_USUAL = DeviceOptions()


def backends(isa: str = "auto", device: DeviceOptions = _USUAL) -> dict[str, SearchBackend]:
    """Every search backend of this build, by name. isa: of the cpu backend, and of the CPU's part of cuda.
    device: what the cuda backend is told of its own."""
    return {
        "cuda": CudaBackend(isa, **device._asdict()),
        "cpu": CpuBackend(isa),
        "cupy": CupyBackend(),
        "numba": NumbaBackend(),
        "numpy": NumpyBackend(),
    }


def choose(name: str, isa: str = "auto", device: DeviceOptions = _USUAL) -> tuple[SearchBackend, str]:
    """(backend, why it was chosen) for a backend's name or "auto". Raises BackendUnavailable."""
    known = backends(isa, device)
    reasons: dict[str, str | None] = dict(_BY_NAME_ONLY) if name == "auto" else {}
    # Asking can cost an import, so those behind the first that can run are not asked.
    chosen = False
    for candidate in ORDER if name == "auto" else (name,):
        if candidate in known and candidate not in reasons:
            reasons[candidate] = "not asked" if chosen else known[candidate].available()
            chosen = chosen or reasons[candidate] is None
    found, why = choose_backend(name, reasons)
    return known[found], why
