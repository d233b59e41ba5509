"""How long hybrid searches took, by which parts of one are left out that could not be in time with them.

A hybrid search has two halves, and either is an answer: by words where the embedder has too much to do, by
meaning where searching by words takes longer than there is time, or words have to be read from the log first
(index/read_ahead.py). What was left out stands in `degraded`; a
search without that is exact. Reranking is left out in reranking.py.
"""

from __future__ import annotations

from typing import Final

from ..ops.pressure import Pace

_OWNERS: Final = 4096


class Ladder:
    """How long searches by meaning and words took lately, by owners. Thread-safe.

    enabled: else nothing is left out, and what cannot be in time is an error.
    """

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._paces: dict[frozenset[int], Pace] = {}

    def pace(self, owners: frozenset[int]) -> Pace | None:
        """That of hybrid searches over these owners (their numbers), from the embedded query on; None where
        nothing may be left out."""
        if not self._enabled:
            return None
        found = self._paces.get(owners)
        if found is None:
            if len(self._paces) >= _OWNERS:
                self._paces = {}
            found = self._paces[owners] = Pace()
        return found
