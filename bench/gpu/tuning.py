"""The settings with which an inverted file is fastest at a recall: looked for alike for us and for peers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import checks

PROBES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
REFINES = (1, 2, 4, 8, 16, 32)
Setting = tuple[int, int]


def reaching(
    search: Callable[[Setting], Any], truth: Any, wanted: float, most_probes: int
) -> list[tuple[Setting, float]]:
    """((probes, refine), recall) for each refine with the fewest probes that reach `wanted`, as far as more
    refinement allows fewer. search(setting): row ids of all queries."""
    found: list[tuple[Setting, float]] = []
    limit = len(PROBES)
    for refine in REFINES:
        for i, probes in enumerate(PROBES[:limit]):
            if probes > most_probes:
                break
            reached = checks.recall(search((probes, refine)), truth)
            if reached >= wanted:
                found.append(((probes, refine), reached))
                limit = i
                break
    return found


def fastest(
    settings: Sequence[tuple[Setting, float]], milliseconds: Callable[[Setting], float]
) -> tuple[float, Setting, float]:
    """(milliseconds, setting, recall) of the one that takes least."""
    return min((milliseconds(setting), setting, reached) for setting, reached in settings)
