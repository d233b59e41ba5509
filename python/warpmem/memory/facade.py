"""Memory: the store an agent talks to, put together of what it can do."""

from __future__ import annotations

import functools
from typing import Any, NoReturn

from ..config import Config
from ..errors import InputError, NotSupported
from ..policy.schema import Schemas
from ..protocols import Embedder, Log, SearchBackend, TokenCounter, Tracer, Writer
from ..records import WorkKind
from .bounded import Bounded
from .browser import Browser
from .cache import ItemCache
from .connected import Connected
from .costs import CostLedger
from .documented import Documented
from .embed_later import EmbedLater
from .embedding_cache import EmbeddingCache
from .erasable import Erasable
from .eraser import Eraser
from .extract_later import ExtractLater
from .graph import Graph
from .jobbing import Jobbing
from .ladder import Ladder
from .lifetime import Lifetime
from .maintenance import Maintained
from .observed import Observed
from .pending import Runner
from .portable import Portable
from .readable import Readable
from .reasoning import Reasoned, Reasoning
from .reembed import Reembedding
from .reranking import Reranking
from .serving import Current, Parts
from .spaces import SpaceParts, Spaces
from .telemetry import Telemetry
from .writable import Writable


class Memory(
    Writable,
    Documented,
    Readable,
    Connected,
    Maintained,
    Observed,
    Erasable,
    Jobbing,
    Portable,
    Reasoned,
):
    """A durable, searchable memory. Thread-safe; use as a context manager or call close().

    Methods that name whose data take `user_id=, agent_id=, run_id=, corpus_id=` or `scope=Scope(...)`. There
    is no default scope. Methods by id take an optional `scope`; with one, an item of another owner is
    NotFound. Made by `warpmem.open(path)`. All may also raise StoreClosed, StoreCorrupt or StoreReadOnly.

    A signal handler may call close(). Where it interrupts another call of the store, that waits a second at
    most: what the call holds is closed when it goes on, by a thread that Python waits for when it ends.
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
        tracer: Tracer | None = None,
        writer: Writer | None = None,
    ) -> None:
        self._config = config
        self._log = log
        self._parts = parts
        self._backend = backend
        self._counter = counter
        self._schemas = schemas
        self._backend_reason = backend_reason
        self._reasoning = reasoning
        self._telemetry = Telemetry()
        self._tracer = tracer
        self._costs = CostLedger(log, config)
        self._ladder = Ladder(config.degrade)
        self._reranking = Reranking(reasoning.reranker, self._costs, tracer, degrade=config.degrade)
        self._asking = Bounded("language model")
        self._cache = ItemCache(log, config.item_cache)
        self._embeddings = EmbeddingCache(config.embedding_cache_bytes)
        self._browser = Browser(log, self._cache)
        common = SpaceParts(
            log, parts.make_space_index, backend, self._cache, self._embeddings, self._costs, tracer,
            config.degrade,
        )  # fmt: skip
        self._spaces = Spaces(parts.embedders, common)
        self._graph = Graph(log)
        self._current = Current(log, self._serve(log.identity, embedder), self._spaces)
        self._reembedding = Reembedding(log, self._current)
        self._embed_later = EmbedLater(log, self._current)
        background = config.background_work and not log.read_only
        self._jobs = parts.make_jobs(self._current)
        self._extract_later = ExtractLater(
            log, self._current, reasoning.language_model, counter, self._jobs.pausing
        )
        self._pending = Runner([self._embed_later, self._extract_later], in_background=background)
        self._writer = writer
        release = functools.partial(_release, self._pending, self._current, log, writer)
        self._lifetime = Lifetime(self, release)
        self._check_open = (
            self._lifetime.check if writer is None else functools.partial(_settled, self._lifetime, log)
        )
        log.subscribe(self._cache.forget)
        log.subscribe(self._current.apply)
        log.work.subscribe(self._pending.wake)
        self._eraser = Eraser(log, self._current, self._jobs, self._costs)
        kinds: tuple[WorkKind, ...] = ("embed", "extract")
        if background and any(next(log.work.all(kind), None) is not None for kind in kinds):
            self._pending.wake()

    def __reduce__(self) -> NoReturn:
        raise NotSupported(
            "a Memory goes to no other process and has no copy: open the store there, with follow=True or "
            "read_only=True beside the process that writes"
        )


def check_memory(memory: Any) -> Memory:
    """What was given, if it is a Memory. Raises InputError."""
    if isinstance(memory, Memory):
        return memory
    said = f"memory must be a Memory, as warpmem.open() gives it, not {type(memory).__name__}"
    if isinstance(getattr(memory, "memory", None), Memory):
        said += ": pass its .memory, and call what is made of it by asyncio.to_thread"
    raise InputError(said)


def _settled(lifetime: Lifetime, log: Log) -> None:
    """What a follower reads shows what it had changed."""
    lifetime.check()
    log.settled()


def _release(pending: Runner, current: Current, log: Log, writer: Writer | None) -> None:
    if writer is not None:
        writer.close()
    pending.stop()
    current.stop()
    log.close()
