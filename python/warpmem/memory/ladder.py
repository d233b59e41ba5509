"""What a search leaves out when it could not answer in time with it. Reranking is left out in reranking.py.

A hybrid search has two halves, and either is an answer: by words where the embedder has too much to do, by
meaning where searching by words takes longer than there is time. What was left out stands in `degraded`; a
search without that is exact.
"""

from __future__ import annotations

from typing import Final

from ..ops import cancel
from ..ops.pressure import Pace, embedding_time, too_late
from ..policy import modes
from ..types import Ranking
from .deadline import Deadline

_OWNERS: Final = 4096


class Ladder:
    """How long searches by meaning and words took lately, by owners, and what follows of it. Thread-safe.

    enabled: else nothing is left out, and what cannot be in time is an error.
    """

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self._paces: dict[frozenset[int], Pace] = {}

    def pace(self, owners: frozenset[int]) -> Pace:
        """That of hybrid searches over these owners (their numbers), from the embedded query on."""
        found = self._paces.get(owners)
        if found is None:
            if len(self._paces) >= _OWNERS:
                self._paces = {}
            found = self._paces[owners] = Pace()
        return found

    def time_to_embed(self, deadline: Deadline, pace: Pace) -> float | None:
        """Seconds for the embedder of a hybrid search."""
        left = deadline.left()
        return embedding_time(left, pace) if self.enabled else left

    def by_words_alone(self, ranking: Ranking, deadline: Deadline) -> Ranking:
        """The weights of a hybrid search whose embedder refused or was too late. Raises DeadlineExceeded when
        nobody waits for it any more."""
        cancellation = cancel.current.get()
        if cancellation is not None:
            cancellation.check()
        deadline.check("the search by words")
        return modes.replaced(ranking, similarity=0.0)

    def without_words(self, ranking: Ranking, deadline: Deadline, pace: Pace) -> Ranking | None:
        """The weights of a hybrid search that would be too late with its words; None where it is in time."""
        if not (self.enabled and too_late(deadline.left(), pace)):
            return None
        pace.left_out()
        return modes.replaced(ranking, lexical=0.0, adjacent=0.0)
