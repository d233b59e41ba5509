"""How much of what items come from reaches them, where they may come from each other in a circle."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Derived(NamedTuple):
    """An item on what it comes from. most: more than this it never has. held: what comes from elsewhere.
    sources: those of the others that it comes from, by their keys."""

    most: float
    held: float
    sources: Sequence[bytes]


def reaching(items: Mapping[bytes, Derived]) -> dict[bytes, float]:
    """By key: the most that comes from elsewhere or through one source, and no more than the item's `most`.

    Items that come from nothing but each other have 0: none of them has more by another that has it from it.
    The widest paths by Dijkstra's algorithm, so each item is settled once.
    """
    come: dict[bytes, list[bytes]] = {}
    for key, item in items.items():
        for source in item.sources:
            come.setdefault(source, []).append(key)
    found: dict[bytes, float] = {}
    waiting = [(-min(item.most, item.held), key) for key, item in items.items()]
    heapq.heapify(waiting)
    while waiting:
        less, key = heapq.heappop(waiting)
        if key in found:
            continue
        found[key] = -less
        for child in come.get(key, ()):
            if child not in found:
                heapq.heappush(waiting, (-min(items[child].most, -less), child))
    return found
