"""Near-duplicates at an addition: found by the scan in the scope of each item, and kept from being added by
two writers at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..ops.clock import to_micros
from ..policy.reconcile import NEVER_DUPLICATE
from ..policy.similar import Near
from ..protocols import Index, Log
from ..records import ScopePart, ScoreParams, SearchRequest
from ..types import MemoryItem

_NEAREST: Final = 8
"""Stored items that an addition is compared with; others are farther."""
_LOCKS: Final = 64
_BLOCK: Final = 512


class NearDuplicates:
    """Finds what is near to new items. Thread-safe.

    threshold   cosine from which a text may be another wording of a stored one; None looks for none
    """

    def __init__(self, log: Log, index: Index, threshold: float | None) -> None:
        self._log = log
        self._index = index
        self._threshold = threshold
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    @property
    def looks(self) -> bool:
        """Whether it looks for any."""
        return self._threshold is not None

    def alone(self, items: Sequence[MemoryItem | None]) -> contextlib.AbstractContextManager[None]:
        """Meanwhile no other addition for their owners looks or adds: what it would add could not be seen."""
        return self._alone(items) if self.looks else contextlib.nullcontext()

    @contextlib.contextmanager
    def _alone(self, items: Sequence[MemoryItem | None]) -> Iterator[None]:
        owners = {item.scope.owner for item in items if item is not None and may_be_near(item)}
        with contextlib.ExitStack() as held:
            for number in sorted({hash(owner) % _LOCKS for owner in owners}):
                held.enter_context(self._locks[number])
            yield

    def stored(
        self, items: Sequence[MemoryItem | None], vectors: Sequence[NDArray[np.float32] | None]
    ) -> list[tuple[Near, ...]]:
        """For each item what is stored near it, nearest first; None stands for one that has nothing near, and
        in its place for a vector that is made later. vectors: (dim,) float32 each, normalised."""
        found: list[tuple[Near, ...]] = [()] * len(items)
        if self._threshold is None:
            return found
        asked: list[int] = []
        requests: list[SearchRequest] = []
        for number, item in enumerate(items):
            vector = vectors[number]
            if item is None or vector is None or not may_be_near(item):
                continue
            owner = self._log.owner(item.scope.owner)
            if owner is not None:
                asked.append(number)
                begins = to_micros(item.valid_from, "valid_from")
                requests.append(request_near(owner, item, vector, begins))
        if requests:
            params = ScoreParams(min_similarity=self._threshold)
            for number, matches in zip(asked, self._index.search(requests, _NEAREST, params), strict=True):
                found[number] = tuple(Near(match[2], match[3], match[1]) for match in matches)
        return found

    def together(
        self, items: Sequence[MemoryItem | None], vectors: Sequence[NDArray[np.float32] | None]
    ) -> dict[int, list[tuple[int, float]]]:
        """By item: (number, cosine) of the items before it in the same call that are near it, nearest
        first."""
        near: dict[int, list[tuple[int, float]]] = {}
        if self._threshold is None or len(items) < 2:
            return near
        known = [(i, vector) for i, vector in enumerate(vectors) if vector is not None]
        known = [(i, vector) for i, vector in known if (item := items[i]) is not None and may_be_near(item)]
        if len(known) < 2:
            return near
        asked = np.array([i for i, _ in known], np.int64)
        rows = np.stack([vector for _, vector in known])
        for start in range(0, len(asked), _BLOCK):
            cosines = rows[start : start + _BLOCK] @ rows.T
            for row, other in np.argwhere(cosines >= self._threshold).tolist():
                if other < start + row:
                    later, earlier = int(asked[start + row]), int(asked[other])
                    near.setdefault(later, []).append((earlier, float(cosines[row, other])))
        for pairs in near.values():
            pairs.sort(key=lambda pair: (-pair[1], pair[0]))
            del pairs[_NEAREST:]
        return near


def may_be_near(item: MemoryItem) -> bool:
    """Whether another wording of an item would add nothing: not so of what repeats by nature, and of values
    of a key, which their slot decides."""
    return item.kind not in NEVER_DUPLICATE and item.key is None


def request_near(owner: int, item: MemoryItem, vector: Any, at: int) -> SearchRequest:
    """What asks for items of the kind and within the scope of another that are true at `at` (microseconds)
    near its vector, (dim,) float32, normalised."""
    scope = item.scope
    agent = scope.agent_id if scope.owner.type == "user" else None
    run = scope.run_id if scope.owner.type in ("user", "agent") else None
    return SearchRequest(vector, (ScopePart(owner, agent, run),), at, None, (item.kind,))
