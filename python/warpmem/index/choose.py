"""Which search backend runs: one pure function, so that it can be tested and printed without the hardware."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import BackendUnavailable

ORDER = ("cuda", "cpu", "cupy", "numba", "numpy")
"""Backends by preference."""

_INSTALL = {
    "cuda": "build warpmem with a CUDA toolkit: pip install . -Ccmake.define.WARPMEM_CUDA=ON",
    "cpu": "install a wheel of warpmem for this platform, or build one with a C++17 compiler: pip install .",
    "cupy": "pip install 'warpmem[cupy]', which needs a CUDA device",
    "numba": "pip install 'warpmem[numba]'",
    "numpy": "pip install numpy",
}


def choose_backend(requested: str, reasons: Mapping[str, str | None]) -> tuple[str, str]:
    """Pick a backend and say why.

    requested: a name of ORDER, or "auto" for the first available one. reasons: by name, None when the backend
    can run here, else why not; a backend that is not a key is not part of this build.

    Raises BackendUnavailable when a named backend, or under "auto" every backend, cannot run.
    """
    if requested == "auto":
        passed_over: list[str] = []
        for name in ORDER:
            if name not in reasons:
                continue
            reason = reasons[name]
            if reason is None:
                why = f"first available of {' > '.join(n for n in ORDER if n in reasons)}"
                return name, f"{why}; {'; '.join(passed_over)}" if passed_over else why
            passed_over.append(f"{name}: {reason}")
        raise BackendUnavailable(
            f"no search backend can run here: {'; '.join(passed_over) or 'none was built'}"
        )
    if requested not in ORDER:
        raise BackendUnavailable(f"unknown backend {requested!r}; choose auto or one of {', '.join(ORDER)}")
    reason = reasons.get(requested, "it is not part of this build")
    if reason is not None:
        raise BackendUnavailable(f"backend {requested} cannot run here: {reason}; {_INSTALL[requested]}")
    return requested, "asked for by name"
