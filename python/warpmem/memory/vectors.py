"""Vectors on their way into the store and into searches: given or embedded, checked, normalised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ..embed.scheduled import ScheduledEmbedder
from ..embed.vectors import as_vectors
from ..errors import (
    DeadlineExceeded,
    EmbeddingError,
    InputError,
    InvalidVector,
    ModelError,
    ModelMismatch,
    Overloaded,
)
from ..ops import cancel
from ..ops.tracing import NO_SPAN
from ..protocols import Embedder, Log, Tracer, Transaction
from ..records import StoreIdentity
from ..types import EmbedWhen, Owner
from .costs import CostLedger
from .embedding_cache import EmbeddingCache, key
from .stored_probe import StoredProbe

_background: Final[ContextVar[str | None]] = ContextVar("background", default=None)


@contextmanager
def background(job: str) -> Iterator[None]:
    """What this thread embeds within the block gives way to everybody else. job: whose cost it is."""
    before = _background.set(job)
    try:
        yield
    finally:
        _background.reset(before)


def in_background() -> bool:
    """Whether this thread gives way."""
    return _background.get() is not None


class ModelMoved(ModelMismatch):
    """Another model took over between the embedding and the change."""


class Vectors:
    """An embedder and the canonical normalisation of a search backend. Thread-safe if the embedder is.

    identity: what the store is while these are its vectors. probe: of the weights that made them.
    """

    def __init__(
        self,
        embedder: Embedder,
        normalize: Callable[[NDArray[np.float32]], NDArray[np.float32]],
        identity: StoreIdentity,
        cache: EmbeddingCache | None = None,
        costs: CostLedger | None = None,
        tracer: Tracer | None = None,
        probe: StoredProbe | None = None,
    ) -> None:
        self.identity = identity
        self._probe = probe
        self._embedder = ScheduledEmbedder(embedder)
        self._normalize = normalize
        self._cache = cache if cache is not None and cache.keeps else None
        self._costs = costs
        self._tracer = tracer
        self.embeds = self._embedder.embeds
        """Whether there is a model: else every vector comes from the caller."""
        self.dimension = embedder.dimension
        self.model_id = embedder.model_id

    def confirm(self, log: Log, transaction: Transaction) -> None:
        """Inside a change that stores some of them: raises ModelMoved unless the store's vectors are of this
        model; the first ones leave the probe of its weights."""
        if log.identity != self.identity:
            raise ModelMoved(
                f"the store's model was changed to {log.identity.model_id!r} ({log.identity.dimension} "
                f"dimensions) while a vector of {self.model_id!r} ({self.dimension}) was on its way: nothing "
                "was stored; give a vector of the new model"
            )
        self.leave_probe(transaction)

    def leave_probe(self, transaction: Transaction) -> None:
        """Inside a change that stores some of them, in use or not: as `confirm` does."""
        if self._probe is not None:
            self._probe.leave(transaction)

    def embed(
        self,
        texts: Sequence[str],
        role: Literal["document", "query"],
        owners: Sequence[Sequence[Owner]] | None = None,
        *,
        timeout: float | None = None,
    ) -> NDArray[np.float32]:
        """(n, dimension) float32, finite, no zero row: what the protocol promises.

        owners: whose each text is; in the queue the first text's first one stands for all. timeout: seconds
        until the vectors are of no use. Queries go before documents, and both before what is done in the
        background. Texts that their owners had embedded before may come from the cache. Raises
        EmbeddingError, Overloaded, DeadlineExceeded, and as the embedder."""
        if self._cache is None or not owners or _background.get():
            return self._made(texts, role, owners, timeout)
        keys = [key(whose, self.model_id, role, text) for whose, text in zip(owners, texts, strict=True)]
        known, epoch = self._cache.get(keys)
        if self._costs is not None:
            for row, whose in zip(known, owners, strict=True):
                if row is not None:
                    self._costs.spend((whose[0], *_purpose(role), self.model_id), hits=1)
        missing = [i for i, row in enumerate(known) if row is None]
        if len(missing) == len(keys):
            made = self._made(texts, role, owners, timeout)
            self._cache.put(keys, made, epoch)
            return made
        out = np.empty((len(keys), self.dimension), np.float32)
        if missing:
            try:
                made = self._made([texts[i] for i in missing], role, [owners[i] for i in missing], timeout)
            except InputError:
                return self._made(texts, role, owners, timeout)  # which counts them as the caller does
            self._cache.put([keys[i] for i in missing], made, epoch)
            out[missing] = made
        for i, row in enumerate(known):
            if row is not None:
                out[i] = row
        return out

    def embed_or_queue(
        self, texts: Sequence[str], owners: Sequence[Sequence[Owner]], when: EmbedWhen
    ) -> NDArray[np.float32] | None:
        """As embed, of documents; None when they are to be embedded later, as `when` says. Raises as embed;
        with "auto" only what another try would raise too: InputError, ModelMismatch."""
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        if when == "later" and self.embeds:
            return None
        try:
            return self.embed(texts, "document", owners)
        except (ModelError, Overloaded, DeadlineExceeded):
            if when == "now":
                raise
            cancelled = cancel.current.get()
            if cancelled is not None:
                cancelled.check()  # who has given up wants nothing to be stored
            return None

    def stats(self) -> dict[str, dict[str, Any]]:
        """By part: what the embedder's scheduler has done, and the cache."""
        return {
            "embedder": self._embedder.stats(),
            "cache": {} if self._cache is None else self._cache.stats(),
        }

    def _made(
        self,
        texts: Sequence[str],
        role: Literal["document", "query"],
        owners: Sequence[Sequence[Owner]] | None,
        timeout: float | None,
    ) -> NDArray[np.float32]:
        lane, job = _purpose(role)
        owner = charge = None
        if owners:
            owner = owners[0][0]
            if self._costs is not None:
                charge = self._costs.account(texts, [whose[0] for whose in owners], lane, job, self.model_id)
        tracer = self._tracer
        with NO_SPAN if tracer is None else tracer.span("embed", texts=len(texts), lane=lane, job=job):
            out = self._embedder.embed(texts, role, lane=lane, owner=owner, timeout=timeout, charge=charge)
        if not np.isfinite(out).all() or not out.any(axis=1).all():
            raise EmbeddingError("the embedder returned a vector with NaN, infinity, or zeros only")
        if self._probe is not None:
            self._probe.check()
        return out

    def given(self, value: Any, count: int) -> NDArray[np.float32]:
        """(count, dimension) float32 from what a caller passed. Raises InvalidVector."""
        rows = as_vectors(value, self.dimension, "vector")
        if len(rows) != count:
            raise InvalidVector(f"expected {count} vectors of {self.dimension} numbers, not {len(rows)}")
        return rows

    def normalize(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Unit length, canonically. Raises InvalidVector on a zero or non-finite row."""
        try:
            return self._normalize(np.ascontiguousarray(vectors))
        except ValueError as error:
            raise InvalidVector(f"a vector cannot be normalised: {error}") from error


def _purpose(role: Literal["document", "query"]) -> tuple[str, str]:
    """(lane, job) of what this thread embeds."""
    job = _background.get()
    if job is not None:
        return "background", job
    return ("interactive", "search") if role == "query" else ("ingest", "add")
