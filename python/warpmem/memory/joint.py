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
from .reader import Reader, SearchOptions
from .spaces import OtherSpace, Spaces


class Searching(Protocol):
    """What answers searches: the Reader of one space, or several together."""

    def search(
        self,
        queries: Sequence[str] | None,
        vectors: Any,
        scopes: Sequence[Sequence[Scope]],
        options: SearchOptions,
        deadline: Deadline | None = None,
    ) -> list[SearchResult]: ...


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

    def search(
        self,
        queries: Sequence[str] | None,
        vectors: Any,
        scopes: Sequence[Sequence[Scope]],
        options: SearchOptions,
        deadline: Deadline | None = None,
    ) -> list[SearchResult]:
        """As Reader.search."""
        ranking = modes.weights(options.mode, options.ranking)
        asked: list[tuple[Reader, Ranking]] = []
        own = ranking.spaces.get("text", 1.0) != 0
        if vectors is None and queries is not None:
            for space in self._spaces:
                weights = _weights(space.name, space.embeds_texts, ranking, options)
                if weights is not None and space.exists():
                    asked.append((space.reader, weights))
            texts = _weights("text", self._embeds_texts, ranking, options)
            if texts is not None:
                asked.insert(0, (self._texts, texts))
        if own and not asked:  # it knows what is wrong
            asked.append((self._texts, _of_space(ranking, "text")))
        if not asked:
            raise InputError("the ranking leaves out every space that this search could be asked of")
        if len(asked) > 1:
            _check_joinable(ranking, options)
        # For all of them one moment and one time that is left.
        now = to_datetime(self._log.now()) if options.now is None else options.now
        options = msgspec.structs.replace(options, mode=None, now=now)
        deadline = deadline or Deadline(options.deadline)
        if len(asked) == 1:
            reader, weights = asked[0]
            return reader.search(
                queries, vectors, scopes, msgspec.structs.replace(options, ranking=weights), deadline
            )
        assert queries is not None  # a vector asks the texts alone
        found = _alike(asked, queries, scopes, options, deadline)
        shares: Sequence[Shares] = options.shares or (None,) * len(scopes)
        return [
            _merged(results, whose, options.k, own)
            for *results, whose, own in zip(*found, scopes, shares, strict=True)
        ]


def _alike(
    asked: Sequence[tuple[Reader, Ranking]],
    queries: Sequence[str],
    scopes: Sequence[Sequence[Scope]],
    options: SearchOptions,
    deadline: Deadline,
) -> list[list[SearchResult]]:
    """What each space finds, by scores that may be compared: a part that one of them has to leave out under
    load is left out of all, and a space that has no other is named in `degraded`. Raises as Reader.search."""
    made: list[Any] = []
    lost: tuple[str, ...] = ()
    for reader, weights in asked:
        vectors = reader.embedded(queries, scopes, weights, options, deadline) if weights.similarity else None
        if weights.similarity and vectors is None:
            lost = ("dense",)
            asked = [(each, modes.replaced(own, similarity=0.0)) for each, own in asked]
            made = [None] * len(asked)
            break
        made.append(vectors)
    found = _each(asked, made, queries, scopes, options, deadline)
    if any("lexical" in result.degraded for results in found for result in results):
        lost = ("lexical", *(reader.space for reader, weights in asked if not weights.similarity))
        able = [i for i, (_, weights) in enumerate(asked) if weights.similarity]
        asked = [(asked[i][0], modes.replaced(asked[i][1], lexical=0.0, adjacent=0.0)) for i in able]
        found = _each(asked, [made[i] for i in able], queries, scopes, options, deadline)
    for results in found:
        for result in results:
            result.degraded = lost
    return found


def _each(
    asked: Sequence[tuple[Reader, Ranking]],
    made: Sequence[Any],
    queries: Sequence[str],
    scopes: Sequence[Sequence[Scope]],
    options: SearchOptions,
    deadline: Deadline,
) -> list[list[SearchResult]]:
    return [
        reader.search(queries, vectors, scopes, msgspec.structs.replace(options, ranking=weights), deadline)
        for (reader, weights), vectors in zip(asked, made, strict=True)
    ]


class MediaReader:
    """The space of an image or audio, asked for what is like it."""

    def __init__(self, space: OtherSpace, media: Media) -> None:
        self._space = space
        self._media = media

    def search(
        self,
        queries: Sequence[str] | None,
        vectors: Any,
        scopes: Sequence[Sequence[Scope]],
        options: SearchOptions,
        deadline: Deadline | None = None,
    ) -> list[SearchResult]:
        """As Reader.search, of one query."""
        deadline = deadline or Deadline(options.deadline)
        ranking = _of_space(modes.weights(options.mode, options.ranking), self._space.name)
        deadline.check("embedding the query")
        owners = [tuple(scope.owner for scope in each) for each in scopes]
        made = self._space.of_media([self._media] * len(scopes), "query", owners, deadline.left())
        self._space.exists()
        options = msgspec.structs.replace(options, mode=None, ranking=ranking)
        return self._space.reader.search(None, made, scopes, options, deadline)


def _weights(name: str, embeds_texts: bool, ranking: Ranking, options: SearchOptions) -> Ranking | None:
    """Those of a text query in a space; None where it is not asked."""
    if not ranking.spaces.get(name, 1.0):
        return None
    if embeds_texts:
        return _of_space(ranking, name)
    wordy = all(own.lexical or own.adjacent for own in (ranking, *ranking.by_kind.values()))
    if not wordy or options.min_similarity is not None:
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


def _check_joinable(ranking: Ranking, options: SearchOptions) -> None:
    """Raises InputError for what has no meaning over several spaces."""
    what = None
    if options.return_vectors is not None:
        what = "return_vectors"
    elif ranking.diversity:
        what = "diversity"  # vectors of two models have no cosine
    if what is not None:
        raise InputError(f"{what} is for one space: leave the others out with Ranking(spaces={{...: 0}})")
    for shares in options.shares or ():
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
