"""The part of Memory that looks after the store: durability, the saved index, the model, closing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Self

from ..config import Config, EmbedderName
from ..errors import InputError, StoreError
from ..ops import events
from ..policy.schema import Schemas
from ..protocols import Embedder, Index, Log, SearchBackend, Tracer, VectorBuild
from ..records import StoreIdentity
from ..types import Scope
from . import arguments
from .by_writer import Follower
from .cache import ItemCache
from .costs import CostLedger
from .embedding_cache import EmbeddingCache
from .jobbing import JobRunner
from .ladder import Ladder
from .lifetime import amid_a_call
from .pending import Runner
from .reembed import BATCH, Given, Progress, Reembedding
from .serving import Current, Parts, Serving
from .spaces import Spaces
from .stored_probe import StoredProbe
from .vectors import Vectors

_MAX_BATCH = 4096


class Maintained(Follower):
    """See Memory."""

    _config: Config
    _log: Log
    _parts: Parts
    _current: Current
    _reembedding: Reembedding
    _check_open: Callable[[], None]
    _backend: SearchBackend
    _cache: ItemCache
    _embeddings: EmbeddingCache
    _pending: Runner
    _ladder: Ladder
    _costs: CostLedger
    _tracer: Tracer | None
    _schemas: Schemas
    _jobs: JobRunner
    _spaces: Spaces

    @property
    def _index(self) -> Index:
        return self._current.now.index

    def flush(self) -> None:
        """Return when every earlier change is durable, those with durability="os" included, and the costs so
        far."""
        self._lifetime.check()
        if self._writer is not None and self._writer.used:
            self._writer.call("flush", (), {})
            return
        self._costs.store()
        self._log.flush()

    def refresh(self) -> int:
        """Take in what the process that writes has written by now; returns how many changes that was.

        For a store opened with follow=True, which does so by itself every `follow_ms`; 0 in the process that
        writes. Raises NotSupported with read_only=True, ModelMismatch when the store has got another model.
        """
        self._lifetime.check()
        return self._log.refresh()

    def warm(
        self,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        corpus_id: str | None = None,
        scope: Scope | None = None,
        words: bool | None = None,
        entities: bool = False,
        wait: bool = False,
    ) -> int:
        """Load what searches of a scope's owner need before the first of them asks, as at the start of a
        session: his rows, with `words` what searches by words need (None: where the configuration's mode is
        such a search), with `entities` the names that searches which weigh them and `entities()` go by, and
        with the "cuda" backend his rows to the device, however rarely they are asked for.

        wait: until they are there, or there is no room. Returns how many lists are on their way to the
        device. An owner of whom nothing is known has nothing to load. Raises InvalidScope, InputError.
        """
        owner = self._owner_of(user_id, agent_id, run_id, corpus_id, scope)
        if words is None:
            words = self._config.mode != "dense"
        arguments.check_flag(words, "words")
        arguments.check_flag(entities, "entities")
        arguments.check_flag(wait, "wait")
        if owner is None:
            return 0
        return sum(
            index.warm(owner, words=words, entities=entities, wait=wait) for index in self._current.indexes()
        )

    def evict(
        self,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        corpus_id: str | None = None,
        scope: Scope | None = None,
    ) -> None:
        """Forget the device's copy of the rows of a scope's owner, and overwrite it with zeros. They are
        found as before, by the host. Raises InvalidScope."""
        owner = self._owner_of(user_id, agent_id, run_id, corpus_id, scope)
        if owner is not None:
            for index in self._current.indexes():
                index.evict(owner)

    def rebuild_device(self) -> bool:
        """Have a device that failed answer again, from an empty cache; whether it does. True where it never
        failed, False with other backends than "cuda". Nothing else changes: the CPU answers until then. It is
        also tried by itself, after pauses that grow (`rebuild_ms`)."""
        self._check_open()
        answers = [index.rebuild_device() for index in self._current.indexes()]
        return all(answers)

    def _owner_of(
        self,
        user_id: str | None,
        agent_id: str | None,
        run_id: str | None,
        corpus_id: str | None,
        scope: Scope | None,
    ) -> int | None:
        self._check_open()
        whose = arguments.required(arguments.one_scope(scope, user_id, agent_id, run_id, corpus_id))
        return self._log.owner(whose.owner)

    def checkpoint(self) -> bool:
        """Save the index, so that the next open has it at once; False when this store keeps none. Writers
        wait, searches go on. close() does it by itself after many changes, where there is room. Raises
        DiskFull, with nothing written, when it would take the disk below `min_free_bytes`; StoreError."""
        self._check_open()
        return self._index.checkpoint()

    def reembed(
        self,
        embedder: Embedder | Callable[[Sequence[str]], Any] | EmbedderName | None,
        *,
        dimension: int | None = None,
        model_id: str | None = None,
        given: Given = "refuse",
        progress: Progress | None = None,
        batch: int = BATCH,
    ) -> int:
        """Change the store's embedding model; returns how many vectors were made. Takes as long as embedding
        every text anew; meanwhile everybody works on as before, in the old model.

        embedder, dimension, model_id: as for warpmem.open. The new vectors are made from the stored texts of
        all searchable versions, `batch` at a time, beside the old ones, and then put in use in one atomic
        change: a search runs wholly in one model, before it or after. Killed, closed or failed on the way, it
        goes on where it was when it is called again with this model; with another one it starts over.
        given: what to do with an item whose text the model cannot embed, such as one that came with its
        vector: "refuse" stops with InputError, before anything is in use; a function gets such items and
        returns (n, dimension) vectors. progress(done, total) is called after each batch, in vectors. stats()
        shows the job. Raises InputError, also when the store has this model already, EmbeddingError, Conflict
        while another call does this, DiskFull.
        """
        self._check_open()
        if not (callable(given) or (isinstance(given, str) and given == "refuse")):
            raise InputError("given must be 'refuse' or a function from items to vectors")
        if progress is not None and not callable(progress):
            raise InputError(f"progress must be a function, not {type(progress).__name__}")
        batch = arguments.check_count(batch, "batch", _MAX_BATCH)
        made = self._parts.make_embedder(embedder, dimension, model_id)

        def vectors(identity: StoreIdentity) -> Vectors:
            probe = StoredProbe(self._log, identity, made)
            return Vectors(made, self._backend.normalize, identity, None, self._costs, self._tracer, probe)

        def serving(build: VectorBuild) -> Serving:
            return self._serve(build.identity, made)

        with self._current.building(made):
            rows = self._reembedding.run(made, vectors, serving, given, progress, batch)
        events.tell(events.INFO, "reembedded", rows=rows, model_id=made.model_id)
        self._pending.wake()  # there may be what only the model before could not embed
        return rows

    def _serve(self, identity: StoreIdentity, embedder: Embedder) -> Serving:
        index = self._parts.make_index(identity)
        return Serving(
            self._log, identity, embedder, index, self._backend, self._cache, self._schemas, self._embeddings,
            self._ladder, self._costs, self._config.near_duplicate, self._tracer, self._spaces,
            self._config.extraction,
        )  # fmt: skip

    def close(self) -> None:
        """Finish running changes, flush, and release the directory. Idempotent, and to be called again where
        KeyboardInterrupt cut it short."""
        self._lifetime.close(self._finish, amid=amid_a_call(self._log))

    def _finish(self) -> None:
        self._jobs.close()
        self._current.close()
        self._save()

    def _save(self) -> None:
        self._pending.stop()
        events.tell(events.INFO, "closed", path=self._config.path)
        # The next open can do without.
        with contextlib.suppress(StoreError, MemoryError, OSError):
            if self._config.checkpoint_rows:
                self._index.checkpoint(self._config.checkpoint_rows)
        self._costs.store()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
