"""Searches over several spaces, and those by an image or audio over one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import msgspec

from ..errors import DeadlineExceeded, InputError
from ..ops.clock import to_datetime
from ..policy.modes import Weights
from ..protocols import Log
from ..types import Hit, Media, Scope, SearchResult
from . import arguments
from .deadline import Deadline
from .division import Division, Shares
from .reader import Reader
from .searches import Searches
from .spaces import OtherSpace, Spaces
from .underway import Underway, in_time, leave_out_words


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
        began = time.perf_counter()
        ranking = asked.weights
        places = self._places(asked, ranking)
        if len(places) > 1:
            _check_joinable(ranking, asked)
        # For all of them one moment and one time that is left.
        now = to_datetime(self._log.now()) if asked.now is None else asked.now
        deadline = deadline or Deadline(asked.deadline)
        each = [
            (reader, msgspec.structs.replace(asked, now=now, weights=weights)) for reader, weights in places
        ]
        if len(each) == 1:
            reader, asked = each[0]
            return reader.search(asked, deadline)
        searches = [(reader, reader.underway(own, deadline)) for reader, own in each]
        _embed(searches)
        found = _found(searches)
        silent = tuple(reader.space for reader, _ in searches if reader.space not in found)
        first = searches[0][1]
        results = [
            _merged(of_query, whose, first.k, shares, silent)
            for *of_query, whose, shares in zip(*found.values(), asked.scopes, first.shares, strict=True)
        ]
        # What is in neither stage of the last query, which waited for the others, was spent before them.
        last = results[-1].timings
        prepare = time.perf_counter() - began - last["scan"] - last["fetch"]
        for result in results:
            result.timings["prepare"] = prepare
        return results

    def _places(self, asked: Searches, ranking: Weights) -> list[tuple[Reader, Weights]]:
        """The spaces that are asked, with their weights. Raises InputError where there are none."""
        places: list[tuple[Reader, Weights]] = []
        if asked.vectors is None and asked.queries is not None:
            texts = _weights("text", self._embeds_texts, ranking, asked)
            if texts is not None:
                places.append((self._texts, texts))
            for space in self._spaces:
                weights = _weights(space.name, space.embeds_texts, ranking, asked)
                if weights is not None and space.exists():
                    places.append((space.reader, weights))
        if not places and ranking.spaces.get("text", 1.0):  # it knows what is wrong
            places.append((self._texts, _of_space(ranking, "text")))
        if not places:
            raise InputError("the ranking leaves out every space that this search could be asked of")
        return places


def _embed(searches: Sequence[tuple[Reader, Underway]]) -> None:
    """Give all of them their vectors, or leave similarity out of all where one model has too much to do."""
    for reader, search in searches:
        reader.embed(search)
        if search.degraded:
            for _, each in searches:
                each.without_similarity()
            return


def _found(searches: Sequence[tuple[Reader, Underway]]) -> dict[str, list[SearchResult]]:
    """By space, what is found there; nothing of one that has nothing to answer by.

    Words are left out of all where they would be too late in all. Where that shows only on the way, what was
    found with them is asked for again if there is time for it, and else stays.
    """
    found = {}
    for place, (reader, search) in enumerate(searches):
        leave_out_words([each for _, each in searches[place:]])
        if search.answers:
            found[reader.space] = reader.found(search)
    worded = [(reader, search) for reader, search in searches if "lexical" not in search.degraded]
    if len(worded) < len(searches) and in_time([each for _, each in worded]):
        again = {space: results for space, results in found.items() if results[0].degraded}
        with suppress(DeadlineExceeded):
            for reader, search in worded:
                search.without_words()
                if search.answers:
                    again[reader.space] = reader.found(search)
            return again
    return found


class MediaReader:
    """The space of an image or audio, asked for what is like it."""

    def __init__(self, space: OtherSpace, media: Media) -> None:
        self._space = space
        self._media = media

    def search(self, asked: Searches, deadline: Deadline | None = None) -> list[SearchResult]:
        """As Reader.search, of one query."""
        began = time.perf_counter()
        reader = self._space.reader
        weights = _of_space(asked.weights, self._space.name)
        # () in the place of the vectors, which are made when all else is known to be right.
        asked = msgspec.structs.replace(asked, queries=None, vectors=(), weights=weights)
        search = reader.underway(asked, deadline or Deadline(asked.deadline))
        self._space.exists()
        search.deadline.check("embedding the query")
        owners = [tuple(scope.owner for scope in each) for each in asked.scopes]
        media = [self._media] * len(asked.scopes)
        made = self._space.of_media(media, "query", owners, search.deadline.left())
        search.vectors = self._space.normalize(made)
        return reader.found(search, began)


def _weights(name: str, embeds_texts: bool, ranking: Weights, asked: Searches) -> Weights | None:
    """Those of a text query in a space; None where it is not asked."""
    if not ranking.spaces.get(name, 1.0):
        return None
    if embeds_texts:
        return _of_space(ranking, name)
    kinds = None if asked.kinds is None else arguments.check_kinds(asked.kinds)
    if not Division(ranking, kinds).by_words or asked.min_similarity is not None:
        return None
    return _scaled(ranking, 0.0)


def _of_space(ranking: Weights, name: str) -> Weights:
    return _scaled(ranking, ranking.spaces.get(name, 1.0)) if ranking.spaces else ranking


def _scaled(ranking: Weights, factor: float) -> Weights:
    """The weights with so much of the similarity, those of its kinds too."""
    by_kind = {kind: _scaled(own, factor) for kind, own in ranking.by_kind.items()}
    return msgspec.structs.replace(
        ranking, similarity=ranking.similarity * factor, spaces={}, by_kind=by_kind
    )


def _check_joinable(ranking: Weights, asked: Searches) -> None:
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
    k: int,
    shares: Shares,
    silent: tuple[str, ...],
) -> SearchResult:
    """The k best by score, then by the order of the scopes, then earlier added first: within an owner ids
    are in that order. No scope gives more than its quota. silent: spaces that gave nothing under load."""

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
    return SearchResult(tuple(hits[:k]), first.backend, first.plan, (*degraded, *silent), timings)
