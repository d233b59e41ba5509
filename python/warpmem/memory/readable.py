"""What a Memory answers: searches, contexts, items, listings, histories and changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, Unpack

import msgspec

from ..config import Config
from ..embed.given import GivenVectors
from ..errors import InputError, WarpmemError
from ..ingest.media import to_media
from ..ops.clock import to_micros
from ..ops.tracing import NO_SPAN
from ..policy import modes
from ..policy.context import check, pack
from ..protocols import Log, Reranker, TokenCounter, Tracer
from ..types import (
    Change,
    ContextBlock,
    ItemPage,
    MemoryItem,
    Order,
    Ranking,
    Scope,
    ScopeWeight,
    SearchResult,
    Version,
)
from . import arguments
from .bounded import Bounded
from .condensing import Condenser, check_way
from .deadline import Deadline
from .joint import JointReader, MediaReader, Searching
from .options import SearchOptions
from .searches import Searches

if TYPE_CHECKING:
    from .browser import Browser
    from .reasoning import Reasoning
    from .reranking import Reranking
    from .serving import Current, Serving
    from .spaces import Spaces
    from .telemetry import Telemetry

_NEAR: Final = 10
"""Hits beside which the message that follows may stand."""
_LOOKING: Final = ("as_of", "known_at", "during", "min_similarity")
"""Arguments of a search that say of each item whether it is found, and of its neighbour nothing."""


class Readable:
    """The part of Memory that reads. See Memory."""

    _config: Config
    _log: Log
    _reasoning: Reasoning
    _counter: TokenCounter
    _current: Current
    _browser: Browser
    _reranking: Reranking
    _asking: Bounded
    _spaces: Spaces
    _telemetry: Telemetry
    _tracer: Tracer | None
    _check_open: Callable[[], None]

    def search(
        self,
        query: str | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        corpus_id: str | None = None,
        scope: Scope | None = None,
        scopes: Sequence[Scope | ScopeWeight] | None = None,
        k: int = 10,
        filters: Mapping[str, Any] | None = None,
        kinds: Sequence[str] | None = None,
        ranking: Ranking | None = None,
        min_similarity: float | None = None,
        as_of: datetime | None = None,
        known_at: datetime | None = None,
        during: tuple[datetime | None, datetime | None] | None = None,
        mode: Literal["dense", "lexical", "hybrid"] | None = None,
        rerank: bool | int | Reranker | None = None,
        vector: Any = None,
        image: Any = None,
        audio: Any = None,
        now: datetime | None = None,
        deadline: float | timedelta | None = None,
        explain: bool = False,
        return_vectors: Literal["numpy", "dlpack"] | None = None,
        quarantined: bool = False,
    ) -> SearchResult:
        """The k best items of the scopes by final score; fewer only when fewer match. Exact.

        Order: score descending, then the order of `scopes`, then earlier added first. `scopes` may hold
        ScopeWeight, which gives a scope a weight and a quota. `ranking`: see Ranking. `filters`: see
        policy/filters.py; applied inside the scan. `as_of`: what was true then; `known_at`: what had been
        recorded by then, in the version of then. `during=(first, end)`: what was true at some time from the
        first on and before the end, instead of at one; either may be None. `mode`: a preset of weights, see
        policy/modes.py; "hybrid" goes by meaning, words and words around; None is the configuration's.
        `now` stands in for the clock (expiry, recency). `vector` replaces embedding `query`. `deadline`:
        seconds; DeadlineExceeded afterwards, Overloaded at once where the embedder has too much to do. A
        search by meaning and words together is then answered by words alone, or by meaning alone where
        words take longer than is left: `degraded` names "dense" or "lexical", and the answer is exact
        without that part. An owner who is not in memory yet is read first; where that cannot be in time, a
        thread does it for the next search, and this one goes without words, or raises DeadlineExceeded
        where nothing takes the place of what it lacks: rows, words of mode "lexical", entities.
        `return_vectors`: result.vectors, (n, dim) float32 of length 1, "numpy" in host memory, "dlpack" on
        the device where one searches (backend "cuda"), for torch.from_dlpack or CuPy.
        `quarantined`: items in quarantine (of trust below 0.5) are found too. `kinds`: only items of these.
        `min_similarity`: a cosine, from -1 to 1; what is less similar is left out. `explain`: `parts` of each
        hit has every term of its score, and its weight. k times an owner's scopes <= 4096.

        `rerank`: a Reranker, or True for the store's own, puts the 50 best in order by what it reads; a
        number up to 1,000 is how many, fewer over many scopes. Equals keep the order above, and so do the
        hits behind; scores stay as they are, and with explain `parts` has its own. Where it is overloaded or
        the deadline passes meanwhile, `degraded` names "rerank" and the order is that above.

        With embedders for other modalities, a text is asked of every space whose embedder embeds texts, and
        of the others by its words if the search weighs words; the k best are those of all together, and
        `hit.space` tells where. What one space leaves out under load all do, so that scores can be compared;
        `degraded` also names a space that has nothing left. A `vector` is one of the text space. `image`,
        `audio`: bytes, the path of a file or a URI, in place of `query`; asks the space of such items alone.

        Raises InputError, Overloaded, and as the embedder and the reranker.
        """
        self._check_open()
        whose, shares = arguments.weighted_scopes(
            scopes, arguments.one_scope(scope, user_id, agent_id, run_id, corpus_id)
        )
        weights = modes.weights(mode, ranking, self._config.mode if query is not None else "dense")
        asked = Searches(
            scopes=(whose,), queries=None if query is None else (query,), vectors=vector, k=k,
            filters=filters, kinds=kinds, weights=weights, min_similarity=min_similarity, as_of=as_of,
            known_at=known_at, during=during, rerank=rerank, now=now, deadline=deadline,
            explain=explain, return_vectors=return_vectors, quarantined=quarantined,
            shares=None if shares is None else (shares,),
        )  # fmt: skip
        like = None
        if image is not None or audio is not None:
            if query is not None or vector is not None or (image is not None and audio is not None):
                raise InputError("search for a text or vector, or for one image or audio")
            like = self._like("audio", audio) if image is None else self._like("image", image)
        return self._find(asked, like)[0]

    def _joint(self, serving: Serving) -> Searching:
        if not self._spaces:
            return serving.reader
        embeds_texts = not isinstance(serving.embedder, GivenVectors)
        return JointReader(serving.reader, self._spaces, self._log, embeds_texts=embeds_texts)

    def _like(self, modality: str, value: Any) -> MediaReader:
        space = self._spaces.of(modality)
        if space is None:
            raise InputError(f"this store has no embedder for {modality}: name it in open(embedders=)")
        return MediaReader(space, to_media(value, modality))

    def search_many(
        self,
        queries: Sequence[str] | None = None,
        *,
        scopes: Sequence[Scope | ScopeWeight | Sequence[Scope | ScopeWeight]],
        vectors: Any = None,
        k: int = 10,
        filters: Mapping[str, Any] | None = None,
        kinds: Sequence[str] | None = None,
        ranking: Ranking | None = None,
        min_similarity: float | None = None,
        as_of: datetime | None = None,
        known_at: datetime | None = None,
        during: tuple[datetime | None, datetime | None] | None = None,
        mode: Literal["dense", "lexical", "hybrid"] | None = None,
        rerank: bool | int | Reranker | None = None,
        now: datetime | None = None,
        deadline: float | timedelta | None = None,
        explain: bool = False,
        return_vectors: Literal["numpy", "dlpack"] | None = None,
        quarantined: bool = False,
    ) -> tuple[SearchResult, ...]:
        """Query i in scopes[i], one or a list as `search` has it, all with one scan. `vectors`: (n, dim).
        Raises as `search`."""
        self._check_open()
        whose, shares = arguments.scopes_each(scopes, queries)
        weights = modes.weights(mode, ranking, self._config.mode if queries is not None else "dense")
        asked = Searches(
            scopes=whose, queries=queries, vectors=vectors, k=k, filters=filters, kinds=kinds,
            weights=weights, min_similarity=min_similarity, as_of=as_of,
            known_at=known_at, during=during, rerank=rerank, now=now, deadline=deadline,
            explain=explain, return_vectors=return_vectors, quarantined=quarantined, shares=shares,
        )  # fmt: skip
        return tuple(self._find(asked) if whose else ())

    def _find(self, asked: Searches, like: MediaReader | None = None) -> list[SearchResult]:
        tracer = self._tracer
        try:
            with (
                NO_SPAN if tracer is None else tracer.span("search", queries=len(asked.scopes)) as span,
                self._current.use() as serving,
            ):
                reader = self._joint(serving) if like is None else like
                found = self._reranking.search(reader, asked)
                if asked.return_vectors == "dlpack" and found:
                    moved = serving.index.to_device([result.vectors for result in found])
                    for result, vectors in zip(found, moved, strict=True):
                        result.vectors = vectors
                if tracer is not None:
                    skipped = ",".join(sorted({part for result in found for part in result.degraded}))
                    span.set(hits=sum(map(len, found)), degraded=skipped)
        except WarpmemError as error:
            self._telemetry.failed("search", error)
            raise
        self._telemetry.searched(found)
        return found

    def context(
        self,
        /,
        query: str | None = None,
        *,
        max_tokens: int = 1000,
        k: int = 50,
        cite: Literal["id", "number"] = "id",
        compress: Literal["sentences", "model"] | None = None,
        **search: Unpack[SearchOptions],
    ) -> ContextBlock:
        """What is known about `query` as text for a prompt, never over `max_tokens` by the store's token
        counter; "" where there is nothing or not even one item fits.

        Takes every argument of `search` but `return_vectors`. What goes in is worth most for its tokens, the
        best hit in any case where it fits; the message that follows one of the ten best in its run may go in
        beside it, and of a key that was superseded only the newest does. What was taken from an item word for
        word does not stand beside it. A line an item, its id as the citation (or, shorter, its number in
        `.citations`), under a heading with the date; all of it quoted in a tag that no text can close, see
        policy/context.py. `compress`: an item that takes more than an
        eighth of the budget shows only those of its sentences that speak of the query, picked by words and
        similarity or, "model", by the store's language model; a sentence is never cut. Where the model is
        overloaded or fails, or the `deadline` has passed, sentences are picked without it; where the embedder
        is or does, by words alone: `degraded` then names "model" or "similarity", beside what the search left
        out. Raises as `search`, and InputError where there is no language model.
        """
        max_tokens = check(max_tokens, cite)
        check_way(compress, query)
        if search.get("return_vectors") is not None:
            raise InputError("a context has no vectors: ask search(return_vectors=...) for them")
        deadline = Deadline(search.get("deadline"))
        model = self._reasoning.language_model if compress == "model" else None
        if model is not None and (deadline.left() is None or not self._reasoning.has_language_model):
            model()  # what it raises is said before anything is searched
        result = self.search(query, k=k, **search)
        hits = [hit.item for hit in result]
        following: dict[str, MemoryItem] = {}
        if not any(search.get(name) is not None for name in _LOOKING):
            now = search.get("now")
            at = self._log.now() if now is None else to_micros(now, "now")
            near = [item for item in hits[:_NEAR] if item.kind == "message"]
            following = self._browser.following(near, search.get("filters"), at)
        shown: dict[str, str] = {}
        degraded = result.degraded
        if compress is not None and query is not None:
            with self._current.use() as serving:
                condenser = Condenser(
                    self._counter, serving, model, self._asking, deadline, degrade=self._config.degrade
                )
                shown = condenser.shown(query, hits, max_tokens)
            self._telemetry.condensed(condenser.degraded)
            degraded += condenser.degraded
        block = pack(result, max_tokens, self._counter, cite, following=following, shown=shown)
        return msgspec.structs.replace(block, degraded=degraded) if degraded else block

    def get(self, id: str, *, scope: Scope | None = None) -> MemoryItem:
        """The current version of an item, whether or not it is still valid. Raises NotFound."""
        (item,) = self.get_many([id], scope=scope)
        return arguments.existing(item)

    def get_many(self, ids: Sequence[str], *, scope: Scope | None = None) -> tuple[MemoryItem | None, ...]:
        """Items by id, in order, as `get` has each; None where there is none. Raises InputError."""
        self._check_open()
        return self._browser.get_many(ids, arguments.check_scope(scope))

    def value(
        self,
        key: str,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        corpus_id: str | None = None,
        scope: Scope | None = None,
        as_of: datetime | None = None,
        quarantined: bool = False,
    ) -> MemoryItem | None:
        """The value that a key has now, or had at `as_of`; None where it has none.

        Keys are those of exactly this scope: one of a user and a run is another key than the user's. It is
        found by the key alone, whatever else there is. `quarantined`: that among values in quarantine.
        Raises InputError.
        """
        self._check_open()
        whose = arguments.required(arguments.one_scope(scope, user_id, agent_id, run_id, corpus_id))
        return self._browser.value(whose, key, as_of, quarantined)

    def list(
        self,
        scope: Scope | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        corpus_id: str | None = None,
        kinds: Sequence[str] | None = None,
        filters: Mapping[str, Any] | None = None,
        order: Order = "recorded",
        reverse: bool = False,
        limit: int = 100,
        cursor: str | None = None,
        include_past: bool = False,
        quarantined: bool = False,
    ) -> ItemPage:
        """One page of a scope's items by the time they were first recorded, or by `valid_from`.

        Current and unexpired items only, unless `include_past`; without those in quarantine, unless
        `quarantined`. `cursor` is the page's own, of a call with
        the same order; items added meanwhile neither repeat nor hide others. limit <= 10,000. Raises
        InputError.
        """
        self._check_open()
        whose = arguments.required(arguments.one_scope(scope, user_id, agent_id, run_id, corpus_id))
        return self._browser.page(
            whose, kinds, filters, order, reverse, limit, cursor, include_past, quarantined
        )

    def timeline(
        self,
        scope: Scope | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        corpus_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        kinds: Sequence[str] | None = None,
        key: str | None = None,
        reverse: bool = False,
        limit: int = 100,
        cursor: str | None = None,
    ) -> ItemPage:
        """One page of what was true in a scope and when, oldest first by `valid_from`, or newest with
        `reverse`.

        Everything that was true at some time from `since` on and before `until`, what was superseded or has
        expired included; an item's `valid_from` and `valid_to` say when. `key`: only the values of this key,
        one after the other. Corrected items stand there as they are now known. `cursor` and `limit`: as in
        `list`. Raises InputError.
        """
        self._check_open()
        whose = arguments.required(arguments.one_scope(scope, user_id, agent_id, run_id, corpus_id))
        return self._browser.timeline(whose, since, until, kinds, key, reverse, limit, cursor)

    def count(
        self,
        scope: Scope | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        corpus_id: str | None = None,
        kinds: Sequence[str] | None = None,
        filters: Mapping[str, Any] | None = None,
        include_past: bool = False,
        quarantined: bool = False,
    ) -> int:
        """How many items `list` would give on all of its pages. Raises InputError."""
        self._check_open()
        whose = arguments.required(arguments.one_scope(scope, user_id, agent_id, run_id, corpus_id))
        return self._browser.count(whose, kinds, filters, include_past, quarantined)

    def owners(self, *, after: Scope | None = None, limit: int = 1000) -> tuple[Scope, ...]:
        """The scopes of the store's owners in order of first use, those after `after`.

        An owner is listed even when all of its items were deleted, until it is erased. limit <= 10,000.
        """
        self._check_open()
        return self._browser.owners(arguments.check_scope(after), limit)

    def history(self, id: str, *, scope: Scope | None = None) -> tuple[Version, ...]:
        """Every version of an item, oldest first, its deletion included; without those that were erased, or
        lost. Raises NotFound."""
        self._check_open()
        return self._browser.history(id, arguments.check_scope(scope))

    def changes(self, since: int = 0, *, limit: int = 1000) -> tuple[Change, ...]:
        """The change feed after cursor `since`, oldest first: each change exactly once, in commit order.

        `since`: the `cursor` of the last change that was seen, 0 from the beginning. limit <= 10,000. Raises
        InputError.
        """
        self._check_open()
        return self._browser.changes(since, limit)
