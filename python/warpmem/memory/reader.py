"""The reading side: embed the query, scan, fetch, check, and hand out hits."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..config import MAX_K
from ..errors import DeadlineExceeded, InputError, Overloaded, StoreCorrupt
from ..ops.clock import to_micros
from ..ops.pressure import Pace
from ..ops.tracing import NO_SPAN
from ..policy import modes
from ..policy.filters import CompiledFilter, compile_filter
from ..policy.metadata import check_text
from ..protocols import Index, Log, Tracer
from ..records import Match, Record, RowChange, ScopePart, SearchRequest
from ..types import Hit, Ranking, Scope, SearchResult
from . import arguments, diversity
from .cache import ItemCache, own
from .deadline import Deadline
from .division import Division, Joined, Shares
from .ladder import Ladder
from .masks import FilterMasks, Mask
from .scoring import least_similarity, params_of, parts_of
from .searches import Searches
from .vectors import Vectors

_TRIES = 16
_SPARE = 64


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
        queries, vectors, scopes = asked.queries, asked.vectors, asked.scopes
        deadline = deadline or Deadline(asked.deadline)
        k = arguments.check_count(asked.k, "k")
        _check_forms(asked)
        ranking = modes.weights(asked.mode, asked.ranking)
        shares: Sequence[Shares] = asked.shares or (None,) * len(scopes)
        depth = k
        if ranking.diversity:
            widest = max(len(each) if own is None else 1 for each, own in zip(scopes, shares, strict=True))
            depth = max(k, min(diversity.candidates(k), MAX_K // widest))
        kinds = None if asked.kinds is None else arguments.check_kinds(asked.kinds)
        division = Division(ranking, kinds)
        if division.by_text and queries is None:
            raise InputError("a search by words or entities needs a query text")
        blind = division.text_alone and vectors is None and asked.min_similarity is None
        compiled = None if asked.filters is None else compile_filter(asked.filters)
        now = self._log.now() if asked.now is None else to_micros(asked.now, "now")
        at = now if asked.as_of is None else to_micros(asked.as_of, "as_of")
        since = None
        if asked.during is not None:
            if asked.as_of is not None:
                raise InputError("give as_of or during, not both")
            since, at = arguments.check_period(asked.during, "during")
        known_at = None if asked.known_at is None else to_micros(asked.known_at, "known_at")
        degraded: tuple[str, ...] = ()
        pace = self._pace(scopes) if division.hybrid else None
        reserve = pace if asked.min_similarity is None else None
        embedded = None
        if not blind:
            embedded = self._query_vectors(asked, deadline, reserve)
            if embedded is None:
                ranking = self._ladder.by_words_alone(ranking, deadline)
                blind, degraded = True, ("dense",)
        if embedded is None:
            embedded = self._no_vectors(queries or (), len(scopes))
        elif pace is not None and (plain := self._ladder.without_words(ranking, deadline, pace)) is not None:
            ranking, degraded = plain, ("lexical",)
        if degraded:
            division = Division(ranking, kinds)
        pieces = [division.pieces(each, own) for each, own in zip(scopes, shares, strict=True)]
        least = least_similarity(asked.min_similarity)
        params = [params_of(piece.ranking, least, now) for each in pieces for piece in each]
        words = queries if division.by_text and queries is not None else ("",) * len(scopes)
        prepared = time.perf_counter()
        deadline.check("the scan")
        spare = 0
        for attempt in range(_TRIES):
            masks: dict[int, Mask] = {}
            requests = [
                SearchRequest(
                    embedded[i], self._parts(piece.scopes, compiled, masks, spare), at, known_at, piece.kinds,
                    words[i], asked.quarantined, piece.but, since,
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
            if pace is not None and not degraded:
                pace.seen(scanned - prepared)
            deadline.check("fetching the hits")
            records = self._records(found)
            if compiled is not None and spare:
                found = [_verified(matches, records, compiled, depth) for matches in found]
            # A row that came after its owner's mask was made may be the new version of one that passed. Then
            # the scan is made again, lets such rows through, and they are looked at afterwards.
            grown = [
                self._index.rows_since(owner, mask.generation, mask.rows) for owner, mask in masks.items()
            ]
            newest = max((rows for rows in grown if rows is not None), default=0)
            parts = (part for request in requests for part in request.parts if part.where is not None)
            if attempt + 1 == _TRIES or (
                None not in grown
                and newest <= spare
                and all(self._index.decides(part.owner, part.where) for part in parts)
            ):
                break
            spare = max(spare, _SPARE, 2 * newest)
        results = []
        plan = self._index.plan()
        answers = iter(found)
        for i, each in enumerate(pieces):
            mine = list(itertools.islice(answers, len(each)))
            joined = division.joined(each, mine, records, depth, shares[i])
            hits, kept = self._hits(joined, records, scopes[i], ranking, k, now, asked.explain, blind)
            done = time.perf_counter()
            timings = {"prepare": prepared - started, "scan": scanned - prepared, "fetch": done - scanned}
            result = SearchResult(hits, self._backend, plan, degraded, timings)
            if asked.return_vectors is not None:
                result.vectors = self._stored_vectors(kept)
            results.append(result)
        return results

    def embedded(self, asked: Searches, deadline: Deadline) -> NDArray[np.float32] | None:
        """(n, dimension) float32 of queries, which may be given to `search` as vectors; None where that would
        be answered by words alone. Raises as `search` where it has nothing to answer by."""
        kinds = None if asked.kinds is None else arguments.check_kinds(asked.kinds)
        hybrid = Division(modes.weights(asked.mode, asked.ranking), kinds).hybrid
        reserve = self._pace(asked.scopes) if hybrid and asked.min_similarity is None else None
        return self._query_vectors(asked, deadline, reserve)

    def _query_vectors(
        self, asked: Searches, deadline: Deadline, reserve: Pace | None
    ) -> NDArray[np.float32] | None:
        """reserve: how long what takes their place lasts, where something can; None where it has to."""
        vectors, count = asked.vectors, len(asked.scopes)
        if vectors is not None:
            if (
                count == 1
                and type(vectors) is np.ndarray
                and vectors.dtype == np.float32
                and vectors.shape == (self._dimension,)
            ):
                # What as_vectors would check beside the shape, normalize checks too.
                return self._vectors.normalize(vectors.reshape(1, -1))
            return self._vectors.normalize(self._vectors.given(vectors, count))
        if asked.queries is None:
            raise InputError("a search needs a query text or a vector")
        texts = [check_text(query) for query in asked.queries]
        deadline.check("embedding the query")
        owners = [tuple(scope.owner for scope in each) for each in asked.scopes]
        timeout = deadline.left() if reserve is None else self._ladder.time_to_embed(deadline, reserve)
        try:
            return self._vectors.normalize(self._vectors.embed(texts, "query", owners, timeout=timeout))
        except (Overloaded, DeadlineExceeded):
            if reserve is None or not self._ladder.enabled:
                raise
            return None

    def _pace(self, scopes: Sequence[Sequence[Scope]]) -> Pace:
        numbers = {self._log.owner(scope.owner) for each in scopes for scope in each}
        return self._ladder.pace(frozenset(number for number in numbers if number is not None))

    def _no_vectors(self, queries: Sequence[str], count: int) -> NDArray[np.float32]:
        """Of queries whose similarity has no weight: any direction does."""
        for query in queries:
            check_text(query)
        vectors = np.zeros((count, self._dimension), np.float32)
        vectors[:, 0] = 1.0
        return vectors

    def _stored_vectors(self, matches: Sequence[Match]) -> NDArray[np.float32]:
        """(n, dimension) float32 of matches, from the log for those that left the index since the scan."""
        out = np.empty((len(matches), self._dimension), np.float32)
        for i, match in enumerate(matches):
            vector = self._index.vector(match)
            if vector is None:
                # Vectors of the other spaces move along when the texts get another model.
                identity = self._vectors.identity if self.space == "text" else self._log.identity
                vector = self._log.vector(match[2], match[3], identity)
            out[i] = 0.0 if vector is None else vector
        return out

    def _parts(
        self,
        scopes: Sequence[Scope],
        compiled: CompiledFilter | None,
        masks: dict[int, Mask],
        spare: int,
    ) -> tuple[ScopePart, ...]:
        parts = []
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
                        masks[owner] = self._masks.get(owner, compiled)
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
        ranking: Ranking,
        k: int,
        now: int,
        explain: bool,
        blind: bool,
    ) -> tuple[tuple[Hit, ...], list[Match]]:
        hits = []
        kept = []
        covered: dict[int, bool] = {}  # by identity: items of one scope share one object
        plain = ranking == modes.PRESETS["dense"] and not explain
        matches = [match for match in joined.matches if match[2:4] in records]
        order: Sequence[int] = range(len(matches))
        if ranking.diversity:
            vectors = self._stored_vectors(matches)
            order, different = diversity.choose(self._index, matches, vectors, k, ranking.diversity)
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
                parts = parts_of(item, match, by, now, explain, blind)
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


def _check_forms(asked: Searches) -> None:
    arguments.check_flag(asked.explain, "explain")
    arguments.check_flag(asked.quarantined, "quarantined")
    if asked.return_vectors is not None and (
        not isinstance(asked.return_vectors, str) or asked.return_vectors not in ("numpy", "dlpack")
    ):
        raise InputError("return_vectors must be 'numpy', 'dlpack' or None")
