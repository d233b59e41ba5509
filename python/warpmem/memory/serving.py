"""What answers for one embedding model, and the exchange of it for another's while everybody works.

A search takes the Serving of its moment and uses nothing else, so it runs wholly in one model. A write embeds
with one model too, and finds out inside its change whether that is still the store's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from ..policy.schema import Schemas
from ..protocols import Embedder, Index, Log, SearchBackend, Tracer
from ..records import RowChange, Space, StoreIdentity
from ..types import Extraction
from .cache import ItemCache
from .costs import CostLedger
from .digests import Digests
from .documents import Documents
from .editor import Editor
from .embedding_cache import EmbeddingCache
from .inferring import Inferring
from .jobbing import JobRunner
from .ladder import Ladder
from .reader import Reader
from .revocation import Revocations
from .similar import NearDuplicates
from .spaces import Spaces
from .stored_probe import StoredProbe
from .vectors import ModelMoved, Vectors
from .writer import Writer

T = TypeVar("T")
_TRIES = 16


class Parts(NamedTuple):
    """How the parts that belong to one model are made.

    make_embedder  from what reembed() was given: (embedder, dimension, model_id)
    make_index     of the vectors of the store when it is, was or will be this identity
    make_jobs      what runs jobs
    embedders      by modality, those beside that of the texts
    make_space_index
                   of the vectors of another space
    """

    make_embedder: Callable[[Any, int | None, str | None], Embedder]
    make_index: Callable[[StoreIdentity], Index]
    make_jobs: Callable[[Current], JobRunner]
    embedders: Mapping[str, Any]
    make_space_index: Callable[[Space], Index]


class Serving:
    """One model at work: its embedder, the index of its vectors, and who reads and writes with them."""

    def __init__(
        self,
        log: Log,
        identity: StoreIdentity,
        embedder: Embedder,
        index: Index,
        backend: SearchBackend,
        cache: ItemCache,
        schemas: Schemas,
        embeddings: EmbeddingCache,
        ladder: Ladder,
        costs: CostLedger,
        near_duplicate: float | None,
        tracer: Tracer | None,
        spaces: Spaces,
        extraction: Extraction,
    ) -> None:
        digests = Digests(identity.salt)
        probe = StoredProbe(log, identity, embedder)
        self.vectors = Vectors(embedder, backend.normalize, identity, embeddings, costs, tracer, probe)
        self.costs = costs
        self.embedder = embedder
        self.embeddings = embeddings
        self.index = index
        self.reader = Reader(log, index, cache, self.vectors, backend.name, ladder, tracer)
        near = NearDuplicates(log, index, near_duplicate)
        self.revocations = Revocations(log, digests)
        self.writer = Writer(log, self.vectors, digests, schemas, near, self.revocations, spaces)
        self.documents = Documents(log, self.writer, digests, self.revocations)
        self.inferring = Inferring(
            log, self.reader, self.writer, digests, self.revocations, costs, extraction
        )
        self.editor = Editor(log, self.vectors, digests, schemas, spaces, self.revocations)
        self.users = 0


class Current:
    """The Serving of now. Thread-safe."""

    def __init__(self, log: Log, first: Serving, spaces: Spaces) -> None:
        self._log = log
        self._now = first
        self._spaces = spaces
        self._lock = threading.Lock()
        self._unused = threading.Condition(self._lock)
        self._building: list[Embedder] = []

    @property
    def read_only(self) -> bool:
        return self._log.read_only

    @property
    def now(self) -> Serving:
        return self._now

    def indexes(self) -> tuple[Index, ...]:
        """That of the texts, and those of the other spaces that there are."""
        return (self._now.index, *(space.index for space in self._spaces if space.exists()))

    def stop(self) -> None:
        """No index begins anything by itself any more. Waits for nobody."""
        for index in (self._now.index, *self._spaces.made()):
            index.stop()

    def close(self) -> None:
        """As stop, and waits a while for what is under way."""
        self.stop()
        for index in (self._now.index, *self._spaces.made()):
            index.close()

    @contextmanager
    def use(self) -> Iterator[Serving]:
        """The Serving of now, whose vectors stay readable meanwhile."""
        with self._lock:
            serving = self._now
            serving.users += 1
        try:
            yield serving
        finally:
            with self._lock:
                serving.users -= 1
                if not serving.users and serving is not self._now:
                    self._unused.notify_all()

    @contextmanager
    def reading(self, serving: Serving) -> Iterator[None]:
        """As `use`, for a write that is under way with `serving`. Raises ModelMoved when another is used."""
        with self.use() as now:
            if now is not serving:
                raise ModelMoved("the store's model was changed while a write looked at its vectors")
            yield

    def write(self, change: Callable[[Serving], T], *, own_vectors: bool) -> T:
        """Make a change, once more when the model moved before it was stored. own_vectors: it brings vectors
        that no other model can make: then it raises ModelMismatch."""
        for attempt in range(_TRIES):
            try:
                return change(self._now)
            except ModelMoved:
                if own_vectors or attempt + 1 == _TRIES:
                    raise
                # The new model has the store, and takes over here once that is durable.
                self._log.flush()
        raise AssertionError("unreachable")

    def apply(self, changes: Sequence[RowChange]) -> None:
        """Take in committed changes."""
        self._now.index.apply(changes)
        self._now.reader.forget(changes)
        self._spaces.apply(changes)
        if self._log.read_only and any(change.erased for change in changes):
            # Whose they were only the process knows that erases.
            self._now.embeddings.forget(lambda owner: True)

    def replace(self, serving: Serving) -> None:
        """Put another model to work. On the committer thread, between the changes of both."""
        with self._lock:
            before, self._now = self._now, serving
        before.index.stop()  # close() knows only that of now

    @contextmanager
    def building(self, embedder: Embedder) -> Iterator[None]:
        """Meanwhile an embedder is at work that is not in use yet: it hears of erasures."""
        with self._lock:
            self._building.append(embedder)
        try:
            yield
        finally:
            with self._lock:
                self._building.remove(embedder)

    def forget_texts(self) -> None:
        """Let every embedder at work drop what it remembers of texts, if it has a method `forget`."""
        with self._lock:
            others = [space.embedder for space in self._spaces]
            embedders = [self._now.embedder, *self._building, *others]
        for embedder in embedders:
            forget: Callable[[], object] = getattr(embedder, "forget", lambda: None)
            forget()

    def wait_unused(self, serving: Serving) -> None:
        """Return when nobody uses a Serving that was replaced."""
        with self._lock:
            while serving.users:
                self._unused.wait()
