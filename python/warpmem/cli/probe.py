"""What the machine has: the only file outside index/ that looks at the compiled modules."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from typing import Any


def package_version(name: str) -> str | None:
    """Installed version of a distribution, or None. Imports nothing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def is_importable(module: str) -> bool:
    """Whether a top-level module can be found. Imports nothing."""
    return importlib.util.find_spec(module) is not None


def cuda() -> dict[str, Any]:
    """The CUDA side: built or not, driver, runtime, devices and their self-tests, or why there are none.

    Versions are CUDA's numbers, 13000 for 13.0; 0 stands for no driver. Never fails.
    """
    try:
        from .. import _cuda
    except ImportError as error:
        missing = importlib.util.find_spec("warpmem._cuda") is None
        reason = (
            "this build has no CUDA part; where nvcc is: pip install . -Ccmake.define.WARPMEM_CUDA=ON"
            if missing
            else f"warpmem._cuda cannot be loaded ({error})"
        )
        return {"built": not missing, "reason": reason, "devices": []}
    try:
        found: dict[str, Any] = {
            "built": True,
            "reason": _cuda.unavailable_reason(),
            "driver_version": _cuda.driver_version(),
            "runtime_version": _cuda.runtime_version(),
            "devices": _cuda.devices(),
        }
        for index, device in enumerate(found["devices"]):
            device["self_test"] = _cuda.self_test(index)
    except (RuntimeError, OSError) as error:
        return {"built": True, "reason": f"CUDA failed: {error}", "devices": []}
    return found
