"""Searches over several spaces, and those by an image or audio over one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from ..errors import InputError
from ..ops.clock import to_datetime
from ..policy import modes
from ..protocols import Log
from ..types import Hit, Media, Ranking, Scope, SearchResult
from . import arguments
from .deadline import Deadline
from .division import Shares
from .reader import Reader
from .searches import Searches
from .spaces import OtherSpace, Spaces


class Searching(Protocol):
    """What answers searches: the Reader of one space, or several together."""

    def search(self, asked: Searches, deadline: Deadline | None = None) -> list[SearchResult]: ...


class JointReader:
    """Texts and every other space in which the query means something. Thread-safe.

    A space whose embedder embeds texts is asked by similarity; another one by words alone, if the search
    weighs words. A vector is of the text space, which alone is asked then. Each space gives its k best, and
    the k best of those are the k best of all.

    texts   of the text space; embeds_texts: whether its embedder does, else its vectors are given
    """

    def __init__(self, texts: Reader, spaces: Spaces, log: Log, *, embeds_texts: bool) -> None:
        self._texts = texts
        self._embeds_texts = embeds_texts
        self._spaces = spaces
        self._log = log

    def search(self, asked: Searches, deadline: Deadline | None = None) -> list[SearchResult]:
        """As Reader.search."""
        ranking = modes.weights(asked.mode, asked.ranking)
        places: list[tuple[Reader, Ranking]] = []
        own = ranking.spaces.get("text", 1.0) != 0
        if asked.vectors is None and asked.queries is not None:
            for space in self._spaces:
                weights = _weights(space.name, space.embeds_texts, ranking, asked)
                if weights is not None and space.exists():
                    places.append((space.reader, weights))
            texts = _weights("text", self._embeds_texts, ranking, asked)
            if texts is not None:
                places.insert(0, (self._texts, texts))
        if own and not places:  # it knows what is wrong
            places.append((self._texts, _of_space(ranking, "text")))
        if not places:
            raise InputError("the ranking leaves out every space that this search could be asked of")
        if len(places) > 1:
            _check_joinable(ranking, asked)
        # For all of them one moment and one time that is left.
        now = to_datetime(self._log.now()) if asked.now is None else asked.now
        asked = msgspec.structs.replace(asked, mode=None, now=now)
        deadline = deadline or Deadline(asked.deadline)
        if len(places) == 1:
            reader, weights = places[0]
            return reader.search(msgspec.structs.replace(asked, ranking=weights), deadline)
        found = _alike(places, asked, deadline)
        shares: Sequence[Shares] = asked.shares or (None,) * len(asked.scopes)
        return [
            _merged(results, whose, asked.k, own)
            for *results, whose, own in zip(*found, asked.scopes, shares, strict=True)
        ]


def _alike(
    places: Sequence[tuple[Reader, Ranking]], asked: Searches, deadline: Deadline
) -> list[list[SearchResult]]:
    """What each space finds, by scores that may be compared: a part that one of them has to leave out under
    load is left out of all, and a space that has no other is named in `degraded`. Raises as Reader.search."""
    made: list[Any] = []
    lost: tuple[str, ...] = ()
    for reader, weights in places:
        vectors = None
        if weights.similarity:
            vectors = reader.embedded(msgspec.structs.replace(asked, ranking=weights), deadline)
            if vectors is None:
                lost = ("dense",)
                places = [(each, modes.replaced(own, similarity=0.0)) for each, own in places]
                made = [None] * len(places)
                break
        made.append(vectors)
    found = _each(places, made, asked, deadline)
    if any("lexical" in result.degraded for results in found for result in results):
        lost = ("lexical", *(reader.space for reader, weights in places if not weights.similarity))
        able = [i for i, (_, weights) in enumerate(places) if weights.similarity]
        places = [(places[i][0], modes.replaced(places[i][1], lexical=0.0, adjacent=0.0)) for i in able]
        found = _each(places, [made[i] for i in able], asked, deadline)
    for results in found:
        for result in results:
            result.degraded = lost
    return found


def _each(
    places: Sequence[tuple[Reader, Ranking]], made: Sequence[Any], asked: Searches, deadline: Deadline
) -> list[list[SearchResult]]:
    return [
        reader.search(msgspec.structs.replace(asked, ranking=weights, vectors=vectors), deadline)
        for (reader, weights), vectors in zip(places, made, strict=True)
    ]


class MediaReader:
    """The space of an image or audio, asked for what is like it."""

    def __init__(self, space: OtherSpace, media: Media) -> None:
        self._space = space
        self._media = media

    def search(self, asked: Searches, deadline: Deadline | None = None) -> list[SearchResult]:
        """As Reader.search, of one query."""
        deadline = deadline or Deadline(asked.deadline)
        ranking = _of_space(modes.weights(asked.mode, asked.ranking), self._space.name)
        deadline.check("embedding the query")
        owners = [tuple(scope.owner for scope in each) for each in asked.scopes]
        media = [self._media] * len(asked.scopes)
        made = self._space.of_media(media, "query", owners, deadline.left())
        self._space.exists()
        asked = msgspec.structs.replace(asked, queries=None, vectors=made, mode=None, ranking=ranking)
        return self._space.reader.search(asked, deadline)


def _weights(name: str, embeds_texts: bool, ranking: Ranking, asked: Searches) -> Ranking | None:
    """Those of a text query in a space; None where it is not asked."""
    if not ranking.spaces.get(name, 1.0):
        return None
    if embeds_texts:
        return _of_space(ranking, name)
    wordy = all(own.lexical or own.adjacent for own in (ranking, *ranking.by_kind.values()))
    if not wordy or asked.min_similarity is not None:
        return None
    return _scaled(ranking, 0.0)


def _of_space(ranking: Ranking, name: str) -> Ranking:
    return _scaled(ranking, ranking.spaces.get(name, 1.0)) if ranking.spaces else ranking


def _scaled(ranking: Ranking, factor: float) -> Ranking:
    """The weights with so much of the similarity, those of its kinds too."""
    by_kind = {kind: _scaled(own, factor) for kind, own in ranking.by_kind.items()}
    return msgspec.structs.replace(
        ranking, similarity=ranking.similarity * factor, spaces={}, by_kind=by_kind
    )


def _check_joinable(ranking: Ranking, asked: Searches) -> None:
    """Raises InputError for what has no meaning over several spaces."""
    what = None
    if asked.return_vectors is not None:
        what = "return_vectors"
    elif ranking.diversity:
        what = "diversity"  # vectors of two models have no cosine
    if what is not None:
        raise InputError(f"{what} is for one space: leave the others out with Ranking(spaces={{...: 0}})")
    for shares in asked.shares or ():
        owners = {share.scope.owner for share in shares or ()}
        if shares and any(share.quota is not None for share in shares) and len(owners) < len(shares):
            raise InputError(
                "quotas of scopes of one owner are for one space: leave the others out with "
                "Ranking(spaces={...: 0})"
            )


def _merged(
    results: Sequence[SearchResult],
    scopes: Sequence[Scope],
    k: Any,
    shares: Shares,
) -> SearchResult:
    """The k best by score, then by the order of the scopes, then earlier added first: within an owner ids
    are in that order. No scope gives more than its quota."""

    def rank(hit: Hit) -> int:
        return next(i for i, scope in enumerate(scopes) if scope.covers(hit.item.scope))

    hits = sorted(
        (hit for result in results for hit in result), key=lambda hit: (-hit.score, rank(hit), hit.item.id)
    )
    if shares is not None and any(share.quota is not None for share in shares):
        given: Counter[int] = Counter()
        within = []
        for hit in hits:
            place = rank(hit)
            quota = shares[place].quota
            given[place] += 1
            if quota is None or given[place] <= quota:
                within.append(hit)
        hits = within
    timings: dict[str, float] = {}
    for result in results:
        for stage, seconds in result.timings.items():
            timings[stage] = timings.get(stage, 0.0) + seconds
    first = results[0]
    degraded = dict.fromkeys(what for result in results for what in result.degraded)
    kept = tuple(hits[: arguments.check_count(k, "k")])
    return SearchResult(kept, first.backend, first.plan, tuple(degraded), timings)
