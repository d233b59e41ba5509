"""A search of one space on its way, and what it leaves out to be in time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..config import MAX_K
from ..errors import DeadlineExceeded, InputError
from ..ops.clock import to_micros
from ..ops.pressure import Pace, time_before, too_late
from ..policy import modes
from ..policy.filters import compile_filter
from ..policy.metadata import check_text
from ..protocols import Index, Log
from . import arguments, diversity
from .deadline import Deadline
from .division import Division, Shares
from .scoring import least_similarity
from .searches import Searches

_TOO_LATE: Final = "the deadline would pass before the {} of these owners are read; this goes on meanwhile"


class Underway:
    """Searches of one space whose arguments are right: with their vectors, once these are made, and without
    what is left out under load. The constructor raises InputError, and InvalidText for a query that is none.

    similar   whether vectors have a part in it
    vectors   (n, dimension) float32, normalised; None until they are made, and where they have no part
    pace      how long it takes by meaning and words; None where nothing may be left out
    degraded  "dense" or "lexical", once that is left out
    """

    def __init__(self, asked: Searches, deadline: Deadline, log: Log, index: Index) -> None:
        self.asked = asked
        self.deadline = deadline
        self._log = log
        self._index = index
        self._owners: frozenset[int] | None = None
        self._has_rows = False
        self.k = self.depth = arguments.check_count(asked.k, "k")
        _check_forms(asked)
        self.ranking = asked.weights
        self.shares: Sequence[Shares] = asked.shares or (None,) * len(asked.scopes)
        if self.ranking.diversity:
            shares = zip(asked.scopes, self.shares, strict=True)
            widest = max(len(each) if own is None else 1 for each, own in shares)
            self.depth = max(self.k, min(diversity.candidates(self.k), MAX_K // widest))
        self._kinds = None if asked.kinds is None else arguments.check_kinds(asked.kinds)
        self.division = Division(self.ranking, self._kinds)
        self.queries = asked.queries
        if asked.queries is None:
            if self.division.by_text:
                raise InputError("a search by words or entities needs a query text")
            if asked.vectors is None:
                raise InputError("a search needs a query text or a vector")
        else:
            self.queries = [_check_query(query, beside=asked.vectors is not None) for query in asked.queries]
        self.compiled = None if asked.filters is None else compile_filter(asked.filters)
        self.now = log.now() if asked.now is None else to_micros(asked.now, "now")
        self.at = self.now if asked.as_of is None else to_micros(asked.as_of, "as_of")
        self.since = None
        if asked.during is not None:
            if asked.as_of is not None:
                raise InputError("give as_of or during, not both")
            self.since, self.at = arguments.check_period(asked.during, "during")
        self.known_at = None if asked.known_at is None else to_micros(asked.known_at, "known_at")
        self.least = least_similarity(asked.min_similarity)
        self.similar = (
            not self.division.text_alone or asked.vectors is not None or asked.min_similarity is not None
        )
        self.vectors: NDArray[np.float32] | None = None
        self.pace: Pace | None = None
        self.degraded: tuple[str, ...] = ()

    @property
    def owners(self) -> frozenset[int]:
        """The numbers of those whose scopes it looks at, as far as there are any."""
        if self._owners is None:
            numbers = {self._log.owner(scope.owner) for each in self.asked.scopes for scope in each}
            self._owners = frozenset(number for number in numbers if number is not None)
        return self._owners

    def without_similarity(self) -> None:
        self._without("dense", similarity=0.0)
        self.vectors = None

    def without_words(self) -> None:
        self._without("lexical", lexical=0.0, adjacent=0.0)

    def _without(self, part: str, **weights: float) -> None:
        self.ranking = modes.replaced(self.ranking, **weights)
        self.division = Division(self.ranking, self._kinds)
        self.degraded = (part,)

    def has_words(self) -> bool:
        """Whether the words that it asks for are there, or come in time: where it can do without them, early
        enough for an answer without them."""
        left = self.deadline.left()
        if left is None or not self.division.some_words:
            return True
        prepare = self._index.prepare
        self._has_rows = prepare(self.owners, "rows", left, patient=True)  # of all before words of any
        left = (self.deadline.left() or 0.0) if self._has_rows else 0.0
        if self.pace is None or self.degraded:
            there = prepare(self.owners, "words", left, patient=True)
        else:
            there = prepare(self.owners, "words", time_before(left, self.pace), patient=False)
        return there and self._has_rows

    def check_rows(self) -> None:
        """Raise DeadlineExceeded where what nothing can be answered without does not come in time."""
        left = self.deadline.left()
        if left is None:
            return
        if not self._has_rows and not self._index.prepare(self.owners, "rows", left, patient=True):
            raise DeadlineExceeded(_TOO_LATE.format("rows"))
        if self.division.some_entities:
            left = self.deadline.left() or 0.0
            if not self._index.prepare(self.owners, "entities", left, patient=True):
                raise DeadlineExceeded(_TOO_LATE.format("names"))

    @property
    def answers(self) -> bool:
        """Whether anything is left to answer by."""
        return self.vectors is not None or "lexical" not in self.degraded


def in_time(searches: Sequence[Underway]) -> bool:
    """Whether there is time for these, one after the other, by what is known of their paces."""
    paces = [each.pace for each in searches if each.pace is not None and not each.degraded]
    return not paces or not too_late(searches[0].deadline.left(), *paces)


def leave_out_words(searches: Sequence[Underway]) -> None:
    """Ask these without words if they, one after the other, would be too late with them: by what is known of
    their paces, or since words have to be read first. Raises DeadlineExceeded where all ask for words alone
    and those cannot be read in time."""
    if searches[0].deadline.left() is None:
        return
    if not in_time(searches):
        for each in searches:
            if each.pace is not None:
                each.pace.left_out()
        _without_words(searches)
        return
    have = [each.has_words() for each in searches]  # all are asked, so that all are read
    if all(have):
        return
    if all(each.pace is None or each.degraded for each in searches):
        raise DeadlineExceeded(_TOO_LATE.format("words"))
    _without_words(searches)


def _without_words(searches: Sequence[Underway]) -> None:
    for each in searches:
        each.without_words()


def _check_query(query: Any, *, beside: bool) -> str:
    """As check_text; a blank one has nothing to say beside a vector, and is no fault there."""
    return "" if beside and isinstance(query, str) and not query.strip() else check_text(query, "the query")


def _check_forms(asked: Searches) -> None:
    arguments.check_flag(asked.explain, "explain")
    arguments.check_flag(asked.quarantined, "quarantined")
    if asked.return_vectors is not None and (
        not isinstance(asked.return_vectors, str) or asked.return_vectors not in ("numpy", "dlpack")
    ):
        raise InputError("return_vectors must be 'numpy', 'dlpack' or None")
