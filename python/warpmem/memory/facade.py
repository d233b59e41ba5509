"""Memory: the store an agent talks to. Orchestration only; the work is in writer.py and reader.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from msgspec import UNSET, UnsetType

from ..config import Config
from ..errors import InputError, NotSupported
from ..ingest.messages import to_new_items
from ..policy import modes
from ..policy.context import pack
from ..policy.schema import Schemas
from ..protocols import Embedder, Log, Reranker, SearchBackend, TokenCounter
from ..types import (
    AddResult,
    Change,
    ContextBlock,
    Durability,
    ItemPage,
    ItemUpdate,
    MemoryItem,
    Order,
    Ranking,
    Scope,
    SearchResult,
    Stats,
    Version,
)
from . import arguments
from .browser import Browser
from .cache import ItemCache
from .embedding_cache import EmbeddingCache
from .erasable import Erasable
from .eraser import Eraser
from .lifetime import Lifetime
from .maintenance import Maintained
from .portable import Portable
from .reader import SearchOptions
from .reasoning import Reasoned, Reasoning
from .reembed import Reembedding
from .reranking import Reranking
from .serving import Current, Parts
from .writer import Defaults


class Memory(Maintained, Erasable, Portable, Reasoned):
    """A durable, searchable memory. Thread-safe; use as a context manager or call close().

    Methods that name whose data take `user_id=, agent_id=, run_id=, corpus_id=` or `scope=Scope(...)`. There
    is no default scope. Methods by id take an optional `scope`; with one, an item of another owner is
    NotFound. Made by `warpmem.open(path)`. All may also raise StoreClosed, StoreCorrupt or StoreReadOnly.
    """

    def __init__(
        self,
        config: Config,
        log: Log,
        parts: Parts,
        backend: SearchBackend,
        embedder: Embedder,
        counter: TokenCounter,
        schemas: Schemas,
        backend_reason: str,
        reasoning: Reasoning,
    ) -> None:
        self._config = config
        self._log = log
        self._parts = parts
        self._backend = backend
        self._counter = counter
        self._schemas = schemas
        self._backend_reason = backend_reason
        self._reasoning = reasoning
        self._reranking = Reranking(reasoning.reranker)
        self._cache = ItemCache(log, config.item_cache)
        self._embeddings = EmbeddingCache(config.embedding_cache_bytes)
        self._browser = Browser(log, self._cache)
        self._current = Current(log, self._serve(log.identity, embedder))
        self._reembedding = Reembedding(log, self._current)
        self._lifetime = Lifetime(self, log.close)
        self._check_open = self._lifetime.check
        log.subscribe(self._cache.forget)
        log.subscribe(self._current.apply)
        self._eraser = Eraser(log, self._current)

    # ----------------------------------------------------------------------------------------- write

    def add(
        self,
        content: Any,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        corpus_id: str | None = None,
        scope: Scope | None = None,
        kind: str | None = None,
        metadata: dict[str, Any] | None = None,
        priority: float | None = None,
        key: str | None = None,
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
        expires_at: datetime | None = None,
        vector: Any = None,
        idempotency_key: str | None = None,
        infer: Literal["none"] = "none",
        durability: Durability | None = None,
    ) -> AddResult | tuple[AddResult, ...]:
        """Remember `content`: a string, a Message or {"role", "content"}, a NewItem, or a list of them.

        A list gives a tuple of results and is stored whole or not at all. When it returns, the change is as
        durable as `durability` says and the next search in this process sees it. `kind` defaults to "fact"
        ("message" for chat messages). `vector`: (dim,) or (n, dim) float, NumPy or DLPack; replaces
        embedding. An item whose `valid_from` lies ahead is found from then on. Raises InputError, Conflict,
        EmbeddingError, Overloaded, DiskFull.
        """
        self._check_open()
        if not isinstance(infer, str) or infer != "none":
            raise NotSupported("this version stores what it is given: infer must be 'none'")
        items, was_list = to_new_items(content, kind)
        defaults = Defaults(
            scope=arguments.one_scope(scope, user_id, agent_id, run_id, corpus_id), kind=kind,
            metadata=metadata, priority=priority, key=key, valid_from=valid_from, valid_to=valid_to,
            expires_at=expires_at, vector=vector,
        )  # fmt: skip
        if key is not None and len(items) > 1:
            raise InputError(f"one key cannot name {len(items)} items; give each NewItem its own key")
        arguments.check_durability(durability)
        results = self._current.write(
            lambda serving: serving.writer.add(
                items, defaults, idempotency_key=idempotency_key, durability=durability
            ),
            own_vectors=vector is not None or any(item.vector is not None for item in items),
        )
        return results if was_list else results[0]

    def add_many(
        self,
        items: Sequence[Any],
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        corpus_id: str | None = None,
        scope: Scope | None = None,
        kind: str | None = None,
        vectors: Any = None,
        idempotency_key: str | None = None,
        durability: Durability | None = None,
    ) -> tuple[AddResult, ...]:
        """Remember up to 10,000 things in one atomic change; NewItem.scope may differ from item to item.

        `vectors`: (n, dim) float for all of them. Raises as `add`.
        """
        if isinstance(items, (str, Mapping)) or not isinstance(items, Sequence):
            raise InputError(f"add_many takes a list, not {type(items).__name__}")
        results = self.add(
            list(items), scope=arguments.one_scope(scope, user_id, agent_id, run_id, corpus_id), kind=kind,
            vector=vectors, idempotency_key=idempotency_key, durability=durability,
        )  # fmt: skip
        assert isinstance(results, tuple)
        return results

    def update(
        self,
        id: str,
        *,
        text: str | UnsetType = UNSET,
        metadata: dict[str, Any] | UnsetType = UNSET,
        priority: float | UnsetType = UNSET,
        entities: Sequence[str] | UnsetType = UNSET,
        sources: Sequence[str] | UnsetType = UNSET,
        trust: float | UnsetType = UNSET,
        valid_from: datetime | UnsetType = UNSET,
        valid_to: datetime | UnsetType | None = UNSET,
        expires_at: datetime | UnsetType | None = UNSET,
        vector: Any = UNSET,
        expected_version: int | None = None,
        scope: Scope | None = None,
        durability: Durability | None = None,
    ) -> MemoryItem:
        """Correct what was known: same id, next version; the old version stays in history and under
        `known_at`.

        What is not given stays; `metadata` replaces all of it. A changed text is embedded again. Raises
        NotFound, VersionConflict when `expected_version` is not the current one, InputError.
        """
        self._check_open()
        arguments.check_durability(durability)
        if expected_version is not None:
            arguments.check_count(expected_version, "expected_version", (1 << 31) - 1)
        fields = ItemUpdate(
            text=text, metadata=metadata, priority=priority, entities=entities, sources=sources, trust=trust,
            valid_from=valid_from, valid_to=valid_to, expires_at=expires_at, vector=vector,
        )  # fmt: skip
        known = arguments.check_scope(scope)
        return self._current.write(
            lambda serving: serving.editor.update(id, fields, known, expected_version, durability),
            own_vectors=vector is not UNSET,
        )

    def delete(self, id: str, *, scope: Scope | None = None, durability: Durability | None = None) -> None:
        """Hide and unindex an item at once, in all its versions; its history stays. Raises NotFound."""
        self._check_open()
        arguments.check_durability(durability)
        self._current.now.editor.delete(id, scope=arguments.check_scope(scope), durability=durability)

    def delete_all(
        self,
        scope: Scope | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        corpus_id: str | None = None,
        durability: Durability | None = None,
    ) -> int:
        """Delete every item of a scope in one atomic change; returns how many."""
        self._check_open()
        arguments.check_durability(durability)
        whose = arguments.required(arguments.one_scope(scope, user_id, agent_id, run_id, corpus_id))
        return self._current.now.editor.delete_all(whose, durability=durability)

    # ------------------------------------------------------------------------------------------ read

    def search(
        self,
        query: str | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        corpus_id: str | None = None,
        scope: Scope | None = None,
        scopes: Sequence[Scope] | None = None,
        k: int = 10,
        filters: Mapping[str, Any] | None = None,
        kinds: Sequence[str] | None = None,
        ranking: Ranking | None = None,
        min_similarity: float | None = None,
        as_of: datetime | None = None,
        known_at: datetime | None = None,
        mode: Literal["dense", "lexical", "hybrid"] | None = None,
        rerank: bool | int | Reranker | None = None,
        vector: Any = None,
        now: datetime | None = None,
        deadline: float | timedelta | None = None,
        explain: bool = False,
        return_vectors: Literal["numpy", "dlpack"] | None = None,
    ) -> SearchResult:
        """The k best items of the scopes by final score; fewer only when fewer match. Exact.

        Order: score descending, then the order of `scopes`, then earlier added first. `filters`: see
        policy/filters.py; applied inside the scan. `as_of`: what was true then; `known_at`: what had been
        recorded by then, in the version of then. `mode`: a preset of weights, see policy/modes.py; "hybrid"
        goes by meaning, words and words around; None is the configuration's. `now` stands in for the clock
        (expiry, recency). `vector` replaces embedding `query`. `deadline`: seconds; DeadlineExceeded
        afterwards, Overloaded at once where the embedder has too much to do. `return_vectors`:
        result.vectors: (n, dim) float32 of length 1. k times an owner's scopes <= 4096.

        `rerank`: a Reranker, or True for the store's own, puts the 50 best in order by what it reads; a
        number up to 1,000 is how many, fewer over many scopes. Equals keep the order above, and so do the
        hits behind; scores stay as they are, and with explain `parts` has its own. Where it is overloaded or
        the deadline passes meanwhile, `degraded` names "rerank" and the order is that above.

        Raises InputError, Overloaded, and as the embedder and the reranker.
        """
        self._check_open()
        whose = arguments.search_scopes(
            scopes, arguments.one_scope(scope, user_id, agent_id, run_id, corpus_id)
        )
        mode = modes.chosen(mode, ranking, query, vector, self._config.mode)
        options = SearchOptions(
            k=k, filters=filters, kinds=kinds, ranking=ranking, min_similarity=min_similarity, as_of=as_of,
            known_at=known_at, mode=mode, rerank=rerank, now=now, deadline=deadline, explain=explain,
            return_vectors=return_vectors,
        )  # fmt: skip
        with self._current.use() as serving:
            queries = None if query is None else (query,)
            return self._reranking.search(serving.reader, queries, vector, (whose,), options)[0]

    def search_many(
        self,
        queries: Sequence[str] | None = None,
        *,
        scopes: Sequence[Scope],
        vectors: Any = None,
        k: int = 10,
        filters: Mapping[str, Any] | None = None,
        kinds: Sequence[str] | None = None,
        ranking: Ranking | None = None,
        min_similarity: float | None = None,
        as_of: datetime | None = None,
        known_at: datetime | None = None,
        mode: Literal["dense", "lexical", "hybrid"] | None = None,
        rerank: bool | int | Reranker | None = None,
        now: datetime | None = None,
        deadline: float | timedelta | None = None,
        explain: bool = False,
        return_vectors: Literal["numpy", "dlpack"] | None = None,
    ) -> tuple[SearchResult, ...]:
        """Query i in scopes[i], all with one scan. `vectors`: (n, dim). Raises as `search`."""
        self._check_open()
        whose = arguments.one_each(scopes, queries)
        mode = modes.chosen(mode, ranking, queries, vectors, self._config.mode)
        options = SearchOptions(
            k=k, filters=filters, kinds=kinds, ranking=ranking, min_similarity=min_similarity, as_of=as_of,
            known_at=known_at, mode=mode, rerank=rerank, now=now, deadline=deadline, explain=explain,
            return_vectors=return_vectors,
        )  # fmt: skip
        each = [(entry,) for entry in whose]
        with self._current.use() as serving:
            found = self._reranking.search(serving.reader, queries, vectors, each, options) if each else []
        return tuple(found)

    def context(
        self,
        /,
        query: str | None = None,
        *,
        max_tokens: int = 1000,
        k: int = 50,
        cite: Literal["id", "number"] = "id",
        **search: Any,
    ) -> ContextBlock:
        """What is known about `query` as text for a prompt, never over `max_tokens` by the store's token
        counter.

        Takes every argument of `search`. One line an item, best first, its id as the citation (or, shorter,
        its number in `.citations`); of a key that was superseded only the newest.
        """
        return pack(self.search(query, k=k, **search), max_tokens, self._counter, cite)

    def get(self, id: str, *, scope: Scope | None = None) -> MemoryItem:
        """The current version of an item, whether or not it is still valid. Raises NotFound."""
        (item,) = self.get_many([id], scope=scope)
        return arguments.existing(item)

    def get_many(self, ids: Sequence[str], *, scope: Scope | None = None) -> tuple[MemoryItem | None, ...]:
        """Items by id, in order; None where there is none."""
        self._check_open()
        return self._browser.get_many(ids, arguments.check_scope(scope))

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
    ) -> ItemPage:
        """One page of a scope's items by the time they were first recorded, or by `valid_from`.

        Current and unexpired items only, unless `include_past`. `cursor` is the page's own, of a call with
        the same order; items added meanwhile neither repeat nor hide others. limit <= 10,000. Raises
        InputError.
        """
        self._check_open()
        whose = arguments.required(arguments.one_scope(scope, user_id, agent_id, run_id, corpus_id))
        return self._browser.page(whose, kinds, filters, order, reverse, limit, cursor, include_past)

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
    ) -> int:
        """How many items `list` would give."""
        self._check_open()
        whose = arguments.required(arguments.one_scope(scope, user_id, agent_id, run_id, corpus_id))
        return self._browser.count(whose, kinds, filters, include_past)

    def owners(self, *, after: Scope | None = None, limit: int = 1000) -> tuple[Scope, ...]:
        """The scopes of the store's owners in order of first use, those after `after`.

        An owner is listed even when all of its items were deleted.
        """
        self._check_open()
        return self._browser.owners(arguments.check_scope(after), limit)

    def history(self, id: str, *, scope: Scope | None = None) -> tuple[Version, ...]:
        """Every version of an item, oldest first, its deletion included. Raises NotFound."""
        self._check_open()
        return self._browser.history(id, arguments.check_scope(scope))

    def changes(self, since: int = 0, *, limit: int = 1000) -> tuple[Change, ...]:
        """The change feed after cursor `since`, oldest first: each change exactly once, in commit order."""
        self._check_open()
        return self._browser.changes(since, limit)

    def stats(self) -> Stats:
        """Counters of the store, its index, its models and its caches."""
        self._check_open()
        with self._current.use() as serving:
            rows, vectors = serving.index.stats(), serving.vectors
        running = self._reembedding.running
        return self._browser.stats(
            self._config, vectors.identity, rows, self._backend.name, self._backend_reason, running,
            vectors.stats(),
        )  # fmt: skip
