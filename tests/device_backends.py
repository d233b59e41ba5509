"""A plugin of pytest: the conformance suite with backends that compute on a CUDA device beside the others.

    PYTHONPATH=tests python -m pytest -p device_backends tests/conformance tests/gpu

Backends that cannot run here are left as they were, and the reasons are printed at the start.
"""

from __future__ import annotations

from typing import Any

import pools
from warpmem.index.cupy_backend import CupyBackend
from warpmem.index.numba_backend import NumbaBackend

REASONS: dict[str, str] = {}


def device_backends() -> dict[str, Any]:
    """By name, what computes on a device here; REASONS says why others do not."""
    candidates: dict[str, Any] = {
        "cuda": pools.EagerCudaBackend(),  # else the host would answer for what is not loaded yet
        "cupy": CupyBackend(),
        "numba-cuda": NumbaBackend(device="cuda"),
    }
    found = {}
    for name, backend in candidates.items():
        reason = backend.available()
        if reason is None:
            found[name] = backend
        else:
            REASONS[name] = reason
    return found


def pytest_report_header() -> list[str]:
    """Which backends compute on a device."""
    here = ", ".join(ON_DEVICE) or "none"
    return [f"on a CUDA device: {here}", *(f"  not {name}: {reason}" for name, reason in REASONS.items())]


def pytest_configure() -> None:
    """Only as a plugin: what is imported alone changes nothing."""
    pools.BACKENDS.update(ON_DEVICE)
    if "cupy" in ON_DEVICE:
        pools.ARRAYS["cupy on the device"] = ON_DEVICE["cupy"]
    pools.KEEP_NO_DEAD = (*pools.KEEP_NO_DEAD, "numba-cuda")


ON_DEVICE = device_backends()
