"""Searches whose best hits a reranker puts in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Final, TypeVar

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
from ..types import Hit, Owner, Ranking, SearchResult
from . import arguments
from .costs import CostLedger
from .deadline import Deadline
from .joint import Searching
from .searches import Searches

T = TypeVar("T")

_THREADS: Final = 32
"""Calls under a deadline at a time, those that were given up included; others wait for their turn."""
_RETRY_AFTER: Final = 1.0


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
        self._free = threading.Semaphore(_THREADS)

    def search(self, reader: Searching, asked: Searches) -> list[SearchResult]:
        """What the reader finds, its best hits in the order that the reranker gives them."""
        wanted, queries, scopes = asked.rerank, asked.queries, asked.scopes
        if wanted is None or wanted is False:
            return reader.search(asked)
        depth = RERANK
        if not isinstance(wanted, bool) and isinstance(wanted, int):
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
            check_text(query)
        deadline = Deadline(asked.deadline)
        k = arguments.check_count(asked.k, "k")
        if deadline.left() is None:
            reranker()  # what it raises is said before anything is searched
        widest = max(map(len, scopes))
        if not (isinstance(asked.ranking, Ranking) and asked.ranking.diversity):
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

        left, tracer = deadline.left(), self._tracer
        with NO_SPAN if tracer is None else tracer.span("rerank", texts=len(texts)):
            return ask() if left is None else self._within(left, ask)

    def _within(self, seconds: float, call: Callable[[], T]) -> T:
        """What `call` returns or raises within so many seconds. Afterwards it goes on by itself, in a thread
        that the interpreter waits for in the end: torn off, native code would bring the process down."""
        ends = time.monotonic() + seconds
        if seconds <= 0 or not self._free.acquire(timeout=seconds):
            raise DeadlineExceeded("the deadline passed before reranking")
        thread = ThreadPoolExecutor(1, "warpmem-rerank")
        try:
            future = thread.submit(call)
        except RuntimeError as error:  # the process may have no more threads, or is about to end
            self._free.release()
            raise Overloaded("no thread can be started for the reranker", _RETRY_AFTER) from error
        finally:
            thread.shutdown(wait=False)
        future.add_done_callback(lambda _: self._free.release())
        wait((future,), max(0.0, ends - time.monotonic()))
        if not future.done():
            raise DeadlineExceeded("the reranker did not answer before the deadline")
        return future.result()


def _shown(hit: Hit) -> str:
    """What a reranker reads: an image without a caption has only its name."""
    return hit.item.text or hit.item.blob or hit.item.modality


def _given(reranker: Reranker) -> Callable[[], Reranker]:
    return lambda: reranker


def _explained(hit: Hit, scores: NDArray[np.float32], place: int) -> Hit:
    if place < len(scores):
        hit.parts["rerank"] = float(scores[place])
    return hit
