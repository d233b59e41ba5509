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
from ..errors import EmbeddingError, InvalidVector, ModelMismatch
from ..protocols import Embedder, Log
from ..records import StoreIdentity
from ..types import Owner

_background: Final[ContextVar[bool]] = ContextVar("background", default=False)


@contextmanager
def background() -> Iterator[None]:
    """What this thread embeds within the block gives way to everybody else."""
    before = _background.set(True)
    try:
        yield
    finally:
        _background.reset(before)


class ModelMoved(ModelMismatch):
    """Another model took over between the embedding and the change."""


class Vectors:
    """An embedder and the canonical normalisation of a search backend. Thread-safe if the embedder is.

    identity: what the store is while these are its vectors.
    """

    def __init__(
        self,
        embedder: Embedder,
        normalize: Callable[[NDArray[np.float32]], NDArray[np.float32]],
        identity: StoreIdentity,
    ) -> None:
        self.identity = identity
        self._embedder = ScheduledEmbedder(embedder)
        self._normalize = normalize
        self.dimension = embedder.dimension
        self.model_id = embedder.model_id

    def check_in_use(self, log: Log) -> None:
        """Inside a change: raises ModelMoved unless the store's vectors are of this model."""
        if log.identity != self.identity:
            raise ModelMoved(
                f"the store's model was changed to {log.identity.model_id!r} ({log.identity.dimension} "
                f"dimensions) while a vector of {self.model_id!r} ({self.dimension}) was on its way: nothing "
                "was stored; give a vector of the new model"
            )

    def embed(
        self,
        texts: Sequence[str],
        role: Literal["document", "query"],
        owners: Sequence[Sequence[Owner]] | None = None,
        *,
        timeout: float | None = None,
    ) -> NDArray[np.float32]:
        """(n, dimension) float32, finite, no zero row: what the protocol promises.

        owners: whose each text is; the first text's first one is charged for all. timeout: seconds until the
        vectors are of no use. Queries go before documents, and both before what is done in the background.
        Raises EmbeddingError, Overloaded, DeadlineExceeded, and as the embedder."""
        lane = "background" if _background.get() else "interactive" if role == "query" else "ingest"
        owner = owners[0][0] if owners else None
        out = self._embedder.embed(texts, role, lane=lane, owner=owner, timeout=timeout)
        if not np.isfinite(out).all() or not out.any(axis=1).all():
            raise EmbeddingError("the embedder returned a vector with NaN, infinity, or zeros only")
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
