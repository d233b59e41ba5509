"""Every search backend of this build by name: the only file of the index that names them all."""

from __future__ import annotations

from ..protocols import SearchBackend
from .choose import ORDER, choose_backend
from .cpu import CpuBackend
from .cupy_backend import CupyBackend
from .numba_backend import NumbaBackend
from .numpy_ref import NumpyBackend

_NOT_BUILT = {"cuda": "the CUDA search backend is not part of this version"}
_BY_NAME_ONLY = {"numba": "it compiles for seconds at its first search, so it must be asked for by name"}


def backends(isa: str = "auto") -> dict[str, SearchBackend]:
    """Every search backend of this build, by name. isa: of the cpu backend."""
    return {"cpu": CpuBackend(isa), "cupy": CupyBackend(), "numba": NumbaBackend(), "numpy": NumpyBackend()}


def choose(name: str, isa: str = "auto") -> tuple[SearchBackend, str]:
    """(backend, why it was chosen) for a backend's name or "auto". Raises BackendUnavailable."""
    known = backends(isa)
    reasons: dict[str, str | None] = dict(_NOT_BUILT)
    if name == "auto":
        reasons.update(_BY_NAME_ONLY)
    # Asking can cost an import, so those behind the first that can run are not asked.
    chosen = False
    for candidate in ORDER if name == "auto" else (name,):
        if candidate in known and candidate not in reasons:
            reasons[candidate] = "not asked" if chosen else known[candidate].available()
            chosen = chosen or reasons[candidate] is None
    found, why = choose_backend(name, reasons)
    return known[found], why
