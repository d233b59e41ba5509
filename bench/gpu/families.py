"""The families of workloads in the order in which the time is given to them, each for a process of its own.

What a device or a library breaks in one of them (a CUDA error is for ever in its process) leaves the others.
Named without importing them, so that whoever only starts the processes needs no package.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

DIMS = (384, 768, 1536)
DRY_DIMS = (24, 40, 72)


@dataclass(frozen=True)
class Family:
    """module: in workloads/; dim: its place in DIMS, None for a family that chooses by itself; seconds: what
    it may take, peers included."""

    name: str
    module: str
    seconds: float
    dim: int | None = None

    def run(self, bench: Any) -> None:
        """All of its workloads."""
        module: Any = importlib.import_module(f"workloads.{self.module}")
        if self.dim is None:
            module.run(bench)
        else:
            module.run(bench, dim=(DRY_DIMS if bench.device.dry else DIMS)[self.dim])


FAMILIES = (
    Family("exact-384", "exact", 100.0, 0),
    Family("owners-384", "owners", 110.0, 0),
    Family("memory", "memory_search", 60.0),
    Family("changes", "changes", 40.0),
    Family("ivf_pq", "ivf_pq", 90.0),
    Family("vram_cache", "vram_cache", 90.0),
    Family("select_k", "select_k", 40.0),
    Family("training", "training", 60.0),
    Family("crossover", "crossover", 60.0),
    Family("exact-768", "exact", 100.0, 1),
    Family("owners-768", "owners", 110.0, 1),
    Family("exact-1536", "exact", 100.0, 2),
)
NAMES = tuple(family.name for family in FAMILIES)


def chosen(names: list[str]) -> list[Family]:
    """Those of these names, all for none, in their order."""
    return [family for family in FAMILIES if not names or family.name in names]
