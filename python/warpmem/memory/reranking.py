"""Searches whose best hits a reranker puts in order."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..config import MAX_K, MAX_RERANK, RERANK
from ..embed.texts import estimated_tokens
from ..errors import DeadlineExceeded, InputError, Overloaded
from ..ops.tracing import NO_SPAN
from ..policy.metadata import check_text
from ..protocols import Reranker, Tracer
from ..reason.scores import as_scores
from ..types import Hit, Owner, SearchResult
from ..types.scalars import int_of
from . import arguments
from .bounded import Bounded
from .costs import CostLedger
from .deadline import Deadline
from .joint import Searching
from .searches import Searches


class Reranking:
    """What `rerank=` means. Thread-safe.

    default    the store's own reranker, made when it is first asked for; under a deadline, within it
    costs      where its time goes
    degrade    leave it out where it is overloaded or the deadline passes; else that is an error
    """

    def __init__(
        self, default: Callable[[], Reranker], costs: CostLedger, tracer: Tracer | None, *, degrade: bool
    ) -> None:
        self._default = default
        self._costs = costs
        self._tracer = tracer
        self._degrade = degrade
        self._bounded = Bounded("reranker")

    def search(self, reader: Searching, asked: Searches) -> list[SearchResult]:
        """What the reader finds, its best hits in the order that the reranker gives them."""
        wanted, queries, scopes = asked.rerank, asked.queries, asked.scopes
        if wanted is None or wanted is False:
            return reader.search(asked)
        depth = RERANK
        if int_of(wanted) is not None:
            depth = arguments.check_count(wanted, "rerank", MAX_RERANK)
            wanted = True
        reranker = self._default
        if wanted is not True:
            if isinstance(wanted, type) or not isinstance(wanted, Reranker):
                raise InputError(
                    "rerank must be True, a number of hits or a Reranker, not "
                    f"{wanted.__name__ if isinstance(wanted, type) else type(wanted).__name__}"
                )
            reranker = _given(wanted)
        if queries is None:
            raise InputError("a reranker reads the query: give its text beside the vector")
        for query in queries:
            check_text(query, "the query")
        deadline = Deadline(asked.deadline)
        k = arguments.check_count(asked.k, "k")
        if deadline.left() is None:
            reranker()  # what it raises is said before anything is searched
        widest = max(map(len, scopes))
        if not asked.weights.diversity:
            asked = msgspec.structs.replace(asked, k=max(k, min(depth, MAX_K // widest)))
        found = reader.search(asked, deadline)
        return [
            self._reranked(reranker, query, whose[0].owner, result, depth, k, deadline, asked.explain)
            for query, whose, result in zip(queries, scopes, found, strict=True)
        ]

    def _reranked(
        self,
        reranker: Callable[[], Reranker],
        query: str,
        owner: Owner,
        result: SearchResult,
        depth: int,
        k: int,
        deadline: Deadline,
        explain: bool,
    ) -> SearchResult:
        started = time.perf_counter()
        order, degraded = list(range(len(result))), result.degraded
        try:
            texts = [_shown(hit) for hit in result[:depth]]
            scores = self._scores(reranker, query, owner, texts, deadline)
            order[: len(scores)] = np.argsort(-scores, kind="stable").tolist()
        except (DeadlineExceeded, Overloaded):
            if not self._degrade:
                raise
            scores = np.empty(0, np.float32)
            degraded += ("rerank",)
        hits = tuple(_explained(result[i], scores, i) if explain else result[i] for i in order[:k])
        timings = {**result.timings, "rerank": time.perf_counter() - started}
        vectors = None if result.vectors is None else result.vectors[order[:k]]
        return SearchResult(hits, result.backend, result.plan, degraded, timings, vectors)

    def _scores(
        self,
        reranker: Callable[[], Reranker],
        query: str,
        owner: Owner,
        texts: list[str],
        deadline: Deadline,
    ) -> NDArray[np.float32]:
        """One score a text, within the deadline. Raises DeadlineExceeded, Overloaded, ModelError, and what
        making the reranker raises."""
        if not texts:
            return np.empty(0, np.float32)
        self._costs.check((owner,), "interactive", "rerank")

        def ask() -> NDArray[np.float32]:
            model = reranker()
            began = time.perf_counter()
            try:
                return as_scores(model.rerank(query, texts), len(texts), model.model_id)
            finally:
                sizes = [len(text.encode(errors="surrogatepass")) for text in (query, *texts)]
                self._costs.spend(
                    (owner, "interactive", "rerank", model.model_id), seconds=time.perf_counter() - began,
                    tokens=sum(estimated_tokens([query])) * len(texts) + sum(estimated_tokens(texts)),
                    size=sum(sizes), calls=1,
                )  # fmt: skip

        tracer = self._tracer
        with NO_SPAN if tracer is None else tracer.span("rerank", texts=len(texts)):
            return self._bounded.within(deadline, ask)


def _shown(hit: Hit) -> str:
    """What a reranker reads: an image without a caption has only its name."""
    return hit.item.text or hit.item.blob or hit.item.modality


def _given(reranker: Reranker) -> Callable[[], Reranker]:
    return lambda: reranker


def _explained(hit: Hit, scores: NDArray[np.float32], place: int) -> Hit:
    if place < len(scores):
        hit.parts["rerank"] = float(scores[place])
    return hit
