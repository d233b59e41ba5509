"""The reading side: embed the query, scan, fetch, check, and hand out hits."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import MAX_K
from ..errors import DeadlineExceeded, Overloaded, StoreCorrupt
from ..ops import cancel
from ..ops.pressure import time_before
from ..ops.tracing import NO_SPAN
from ..policy import modes
from ..policy.filters import CompiledFilter
from ..protocols import Index, Log, Tracer
from ..records import Match, Record, RowChange, ScopePart, SearchRequest
from ..types import Hit, Scope, SearchResult
from . import arguments, diversity
from .cache import ItemCache, own
from .deadline import Deadline
from .division import Joined
from .ladder import Ladder
from .masks import FilterMasks, Mask
from .scoring import params_of, parts_of
from .searches import Searches
from .underway import Underway, leave_out_words
from .vectors import Vectors

_TRIES = 16
_SPARE = 64


class _Gone(Exception):
    """A match was deleted between the scan and the reading of its vector."""


class Reader:
    """Searches. Thread-safe.

    space: whose vectors it compares, "text" or a modality
    """

    def __init__(
        self,
        log: Log,
        index: Index,
        cache: ItemCache,
        vectors: Vectors,
        backend: str,
        ladder: Ladder,
        tracer: Tracer | None,
        space: str = "text",
    ) -> None:
        self._log = log
        self._index = index
        self._cache = cache
        self._vectors = vectors
        self._backend = backend
        self._ladder = ladder
        self._tracer = tracer
        self.space = space
        self._dimension = vectors.dimension
        self._masks = FilterMasks(log, index, cache)

    # -------------------------------------------------------------------------------------- search

    def search(self, asked: Searches, deadline: Deadline | None = None) -> list[SearchResult]:
        """One result for each query over its scopes, in one scan. `rerank` is not looked at. `deadline`: one
        that has begun already, instead of its own."""
        started = time.perf_counter()
        search = self.underway(asked, deadline or Deadline(asked.deadline))
        self.embed(search)
        leave_out_words((search,))
        return self.found(search, started)

    def underway(self, asked: Searches, deadline: Deadline) -> Underway:
        """What `embed` and then `found` go on with. Raises as Underway."""
        search = Underway(asked, deadline, self._log, self._index)
        if search.division.hybrid:
            search.pace = self._ladder.pace(search.owners)
        return search

    def embed(self, search: Underway) -> None:
        """Give it its vectors, or leave similarity out of it where the embedder has too much to do. Raises as
        Vectors.embed, and InvalidVector."""
        if not search.similar:
            return
        asked, deadline = search.asked, search.deadline
        if asked.vectors is not None:
            search.vectors = self._given(asked.vectors, len(asked.scopes))
            return
        assert search.queries is not None
        deadline.check("embedding the query")
        owners = [tuple(scope.owner for scope in each) for each in asked.scopes]
        reserve = search.pace if asked.min_similarity is None else None
        left = deadline.left()
        timeout = left if left is None or reserve is None else time_before(left, reserve)
        try:
            made = self._vectors.embed(search.queries, "query", owners, timeout=timeout)
        except (Overloaded, DeadlineExceeded):
            if reserve is None:
                raise
            cancellation = cancel.current.get()
            if cancellation is not None:
                cancellation.check()
            deadline.check("the search by words")
            search.without_similarity()
            return
        search.vectors = self._vectors.normalize(made)

    def found(self, search: Underway, started: float | None = None) -> list[SearchResult]:
        """One result for each query. started: when its preparation began (time.perf_counter), if not now.
        Raises DeadlineExceeded."""
        started = time.perf_counter() if started is None else started
        for _ in range(_TRIES):
            try:
                return self._found(search, started)
            except _Gone:
                search.deadline.check("the scan of what was not deleted meanwhile")
        raise StoreCorrupt("hits of the search have no vectors; reopen the store, or verify it")

    def _found(self, search: Underway, started: float) -> list[SearchResult]:
        asked, division, compiled, depth = search.asked, search.division, search.compiled, search.depth
        scopes, count = asked.scopes, len(asked.scopes)
        pieces = [division.pieces(each, own) for each, own in zip(scopes, search.shares, strict=True)]
        params = [params_of(piece.ranking, search.least, search.now) for each in pieces for piece in each]
        words = search.queries if division.by_text and search.queries is not None else ("",) * count
        vectors = self._any_vectors(count) if search.vectors is None else search.vectors
        search.check_rows()
        prepared = time.perf_counter()
        search.deadline.check("the scan")
        spare = 0
        with ExitStack() as staying:
            for attempt in itertools.count():
                if attempt == 1:
                    staying.enter_context(self._index.staying())
                masks: dict[int, Mask] = {}
                requests = [
                    SearchRequest(
                        vectors[i], self._parts(piece.scopes, search, masks, spare), search.at,
                        search.known_at, piece.kinds, words[i], asked.quarantined, piece.but, search.since,
                    )
                    for i, each in enumerate(pieces)
                    for piece in each
                ]  # fmt: skip
                parts_each = max(1, *(len(request.parts) for request in requests))
                fetched = max(depth, min(depth + spare * parts_each, MAX_K // parts_each))
                tracer = self._tracer
                with NO_SPAN if tracer is None else tracer.span("scan", queries=len(requests), k=fetched):
                    found = self._index.search(requests, fetched, params[0] if len(params) == 1 else params)
                scanned = time.perf_counter()
                if search.pace is not None and not search.degraded:
                    search.pace.seen(scanned - prepared)
                search.deadline.check("fetching the hits")
                records = self._records(found)
                if compiled is not None and spare:
                    found = [_verified(matches, records, compiled, depth) for matches in found]
                # A row that came after its owner's mask was made may be the new version of one that passed.
                # Then the scan is made again, lets such rows through, and they are looked at afterwards.
                # Where rows were numbered anew meanwhile the mask was one of other rows.
                grown = [
                    self._index.rows_since(owner, mask.generation, mask.rows) for owner, mask in masks.items()
                ]
                newest = max((rows for rows in grown if rows is not None), default=0)
                parts = (part for request in requests for part in request.parts if part.where is not None)
                if None not in grown and (
                    attempt + 1 >= _TRIES
                    or (
                        newest <= spare and all(self._index.decides(part.owner, part.where) for part in parts)
                    )
                ):
                    break
                spare = max(spare, _SPARE, 2 * newest)
        results = []
        plan = self._index.plan()
        answers = iter(found)
        for i, each in enumerate(pieces):
            mine = list(itertools.islice(answers, len(each)))
            joined = division.joined(each, mine, records, depth, search.shares[i])
            hits, kept = self._hits(joined, records, scopes[i], search)
            done = time.perf_counter()
            timings = {"prepare": prepared - started, "scan": scanned - prepared, "fetch": done - scanned}
            result = SearchResult(hits, self._backend, plan, search.degraded, timings)
            if asked.return_vectors is not None:
                result.vectors = self._stored_vectors(kept)
            results.append(result)
        return results

    def _given(self, vectors: Any, count: int) -> NDArray[np.float32]:
        if (
            count == 1
            and type(vectors) is np.ndarray
            and vectors.dtype == np.float32
            and vectors.shape == (self._dimension,)
        ):
            # What as_vectors would check beside the shape, normalize checks too.
            return self._vectors.normalize(vectors.reshape(1, -1))
        return self._vectors.normalize(self._vectors.given(vectors, count))

    def _any_vectors(self, count: int) -> NDArray[np.float32]:
        """Of queries whose similarity has no weight: any direction does."""
        vectors = np.zeros((count, self._dimension), np.float32)
        vectors[:, 0] = 1.0
        return vectors

    def _stored_vectors(self, matches: Sequence[Match]) -> NDArray[np.float32]:
        """(n, dimension) float32 of matches, from the log for those that left the index since the scan.
        Raises _Gone where one was deleted since."""
        out = np.empty((len(matches), self._dimension), np.float32)
        for i, match in enumerate(matches):
            vector = self._index.vector(match)
            if vector is None:
                # Vectors of the other spaces move along when the texts get another model.
                identity = self._vectors.identity if self.space == "text" else self._log.identity
                vector = self._log.vector(match[2], match[3], identity)
            if vector is None:
                raise _Gone
            out[i] = vector
        return out

    def _parts(
        self,
        scopes: Sequence[Scope],
        search: Underway,
        masks: dict[int, Mask],
        spare: int,
    ) -> tuple[ScopePart, ...]:
        parts = []
        compiled = search.compiled
        for scope in scopes:
            owner = self._log.owner(scope.owner)
            if owner is None:
                continue
            bitmap = where = None
            if compiled is not None:
                if self._index.decides(owner, compiled.node):
                    where = compiled.node
                else:
                    if owner not in masks:
                        masks[owner] = self._masks.get(owner, compiled, search.deadline)
                    bitmap = masks[owner].bitmap(spare)
            parts.append(ScopePart(owner, *arguments.attributes(scope), bitmap, where))
        return tuple(parts)

    def _records(self, found: Sequence[Sequence[Match]]) -> dict[tuple[bytes, int], Record]:
        """The record of every match, in the version that the scan saw.

        A match that was changed or deleted since the scan is found in the history; only an erased one is not.
        """
        wanted = list({match[2:4]: None for matches in found for match in matches})
        records: dict[tuple[bytes, int], Record] = {}
        for name, current in zip(wanted, self._cache.fetch([name[0] for name in wanted]), strict=True):
            if current is not None and current.item.version == name[1]:
                records[name] = current
            else:
                older = self._log.get_version(*name)
                if older is not None:
                    records[name] = older
        return records

    def _hits(
        self,
        joined: Joined,
        records: dict[tuple[bytes, int], Record],
        scopes: Sequence[Scope],
        search: Underway,
    ) -> tuple[tuple[Hit, ...], list[Match]]:
        ranking, explain = search.ranking, search.asked.explain
        hits = []
        kept = []
        covered: dict[int, bool] = {}  # by identity: items of one scope share one object
        plain = ranking == modes.PRESETS["dense"] and not explain
        matches = [match for match in joined.matches if match[2:4] in records]
        order: Sequence[int] = range(len(matches))
        if ranking.diversity:
            vectors = self._stored_vectors(matches)
            order, different = diversity.choose(self._index, matches, vectors, search.k, ranking.diversity)
        for position, place in enumerate(order):
            match = matches[place]
            score, similarity, key, version = match[:4]
            item = records[key, version].item
            seen = covered.get(id(item.scope))
            if seen is None:
                seen = covered[id(item.scope)] = any(scope.covers(item.scope) for scope in scopes)
            if not seen:
                raise StoreCorrupt(
                    f"the index returned item {item.id} outside the scopes of the search; reopen the store"
                )
            if plain:
                parts = {"similarity": similarity}
            else:
                by = ranking.by_kind.get(item.kind, ranking)
                parts = parts_of(item, match, by, search.now, explain, search.vectors is None)
            if explain and ranking.diversity:
                parts |= different[position]
            if explain and joined.weights is not None:
                parts["weight_scope"] = joined.weights[place]
            hits.append(Hit(own(item), score, parts, self.space))
            kept.append(match)
        return tuple(hits), kept

    def forget(self, changes: Sequence[RowChange]) -> None:
        """Drop what is known of owners of whom something was erased."""
        self._masks.forget(changes)


def _verified(
    matches: list[Match], records: dict[tuple[bytes, int], Record], compiled: CompiledFilter, k: int
) -> list[Match]:
    """The k best of the matches whose items pass the filter."""
    passed = (
        match
        for match in matches
        if (record := records.get(match[2:4])) is not None and compiled.matches(record.item)
    )
    return list(itertools.islice(passed, k))
