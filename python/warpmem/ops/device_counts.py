"""What several parts of a store tell of the device that they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def added_up(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts added up, but for what the parts tell of the device itself: `device`, `failures` and `rebuilds`
    of the first, and the first `failure` that is not None. Parts without a device tell nothing."""
    found = [part for part in parts if part]
    if not found:
        return {}
    out = dict(found[0])
    out["failure"] = next((part["failure"] for part in found if part["failure"] is not None), None)
    for part in found[1:]:
        for name, value in part.items():
            if name not in ("device", "failure", "failures", "rebuilds"):
                out[name] = out.get(name, 0) + value
    return out
