"""The models of modalities beside that of the texts: each has its vectors in a space of its own.

An item lies in one space, that of its modality if there is one, in all of its versions. What is asked of
several spaces at once is in joint.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..embed.given import GivenVectors
from ..embed.media import MediaAsTexts
from ..errors import InputError
from ..protocols import Embedder, Index, Log, MediaEmbedder, SearchBackend, Tracer, Transaction
from ..records import SPACES, RowChange, Space
from ..types import Media, Owner
from .cache import ItemCache
from .costs import CostLedger
from .embedding_cache import EmbeddingCache
from .ladder import Ladder
from .reader import Reader
from .vectors import Vectors

MEDIA: Final = ("image", "audio")
"""Modalities whose content is not their text."""


class SpaceParts(NamedTuple):
    """What all spaces of a store have in common; make_index: of the vectors of one. degrades: see Ladder."""

    log: Log
    make_index: Callable[[Space], Index]
    backend: SearchBackend
    cache: ItemCache
    embeddings: EmbeddingCache
    costs: CostLedger
    tracer: Tracer | None
    degrades: bool

    def vectors(self, embedder: Embedder, cache: EmbeddingCache | None) -> Vectors:
        """Those of an embedder, charged and traced as those of texts are."""
        return Vectors(embedder, self.backend.normalize, self.log.identity, cache, self.costs, self.tracer)


class OtherSpace:
    """One modality's model at work. Thread-safe.

    name          of the modality; number: of the space
    embeds_texts  whether a query's text has a place among its vectors
    """

    def __init__(self, space: Space, embedder: Any, parts: SpaceParts) -> None:
        self.name, self.number = space.name, space.number
        self.model_id, self.dimension = space.model_id, space.dimension
        self.embedder = embedder
        self.embeds_texts = isinstance(embedder, Embedder) and not isinstance(embedder, GivenVectors)
        texts = embedder if self.embeds_texts else GivenVectors(space.dimension, space.model_id)
        self._texts = parts.vectors(texts, parts.embeddings)
        self._media: Vectors | None = None
        if isinstance(embedder, MediaEmbedder):
            self._media = parts.vectors(MediaAsTexts(embedder), None)
        self._space = space
        self._parts = parts
        self._log = parts.log
        self._ladder = Ladder(parts.degrades)
        self._lock = threading.Lock()
        self._index: Index | None = None
        self._reader: Reader | None = None
        self._exists = False

    @property
    def index(self) -> Index:
        """Made when it is first asked for."""
        with self._lock:
            if self._index is None:
                self._index = self._parts.make_index(self._space)
            return self._index

    @property
    def reader(self) -> Reader:
        index = self.index
        with self._lock:
            if self._reader is None:
                parts = self._parts
                self._reader = Reader(
                    parts.log, index, parts.cache, self._texts, parts.backend.name, self._ladder,
                    parts.tracer, self.name,
                )  # fmt: skip
            return self._reader

    def exists(self) -> bool:
        """Whether anything was ever stored in it. Raises ModelMismatch when another process did so with
        another model."""
        if not self._exists:
            space = self._log.spaces().get(self.name)
            if space is not None:
                space.check(self.model_id, self.dimension)
                self._exists = True
        return self._exists

    def apply(self, changes: Sequence[RowChange]) -> None:
        """Take in committed changes. Raises as `exists`, in a process that follows the writer."""
        if any(row.space == self.number for change in changes for row in change.add):
            self.exists()
        if self._index is not None:
            self._index.apply(changes)
        if self._reader is not None:
            self._reader.forget(changes)

    def of_texts(self, texts: Sequence[str], owners: Sequence[Sequence[Owner]]) -> NDArray[np.float32]:
        """(n, dimension) float32 of texts that are stored. Raises as Vectors.embed."""
        return self._texts.embed(texts, "document", owners)

    def of_media(
        self,
        media: Sequence[Media],
        role: Literal["document", "query"],
        owners: Sequence[Sequence[Owner]],
        timeout: float | None = None,
    ) -> NDArray[np.float32]:
        """(n, dimension) float32. Raises InputError without an embedder, and as Vectors.embed."""
        if self._media is None:
            raise InputError(
                f"this store was opened without the embedder {self.model_id!r} of its {self.name} space: "
                f"name it in embedders=, or bring the vectors ({self.dimension} numbers)"
            )
        found: Any = media
        return self._media.embed(found, role, owners, timeout=timeout)

    def given(self, value: Any, count: int) -> NDArray[np.float32]:
        """(count, dimension) float32 of what a caller passed. Raises InvalidVector."""
        return self._texts.given(value, count)

    def normalize(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """As Vectors.normalize."""
        return self._texts.normalize(vectors)


class Spaces:
    """Those of a store, by modality: of which it was given an embedder, and which it remembers, those that
    another process makes included.

    Raises ModelMismatch when it remembers another model.
    """

    def __init__(self, embedders: Mapping[str, Any], parts: SpaceParts) -> None:
        self._parts = parts
        self._all: Mapping[str, OtherSpace] = {}  # exchanged whole, since searches walk over it
        known = parts.log.spaces()
        for number, name in enumerate(SPACES[1:], 1):
            embedder, space = embedders.get(name), known.get(name)
            if embedder is not None:
                if space is None:
                    space = Space(number, embedder.model_id, embedder.dimension, 0)
                self._put(space, embedder)
        self._remembered(known)

    def _put(self, space: Space, embedder: Any) -> None:
        space.check(embedder.model_id, embedder.dimension)
        found = {**self._all, space.name: OtherSpace(space, embedder, self._parts)}
        self._all = {name: found[name] for name in SPACES if name in found}

    def _remembered(self, known: Mapping[str, Space]) -> None:
        """Have those too that no embedder was given for."""
        for name, space in known.items():
            if name not in self._all:
                self._put(space, GivenVectors(space.dimension, space.model_id))

    def __bool__(self) -> bool:
        return bool(self._all)

    def __iter__(self) -> Iterator[OtherSpace]:
        return iter(self._all.values())

    def of(self, modality: str) -> OtherSpace | None:
        """Where items of a modality go; None: to the texts."""
        return self._all.get(modality)

    def register(self, transaction: Transaction, number: int) -> None:
        """Inside a change: let the store remember the model of a space that it stores into."""
        space = self._all[SPACES[number]]
        transaction.space(space.name, space.model_id, space.dimension)

    def apply(self, changes: Sequence[RowChange]) -> None:
        """Take in committed changes. A process that follows meets spaces that were made after it opened."""
        if not self._all and not any(
            change.erased or any(row.space for row in change.add) for change in changes
        ):
            return
        known = {0, *(space.number for space in self)}
        if any(change.erased or not known.issuperset(row.space for row in change.add) for change in changes):
            self._remembered(self._parts.log.spaces())
        for space in self:
            space.apply(changes)

    def made(self) -> list[Index]:
        """The indexes that were made so far."""
        return [space._index for space in self if space._index is not None]

    def tiers(self) -> list[dict[str, Any]]:
        """Index.tiers of each that has an index by now."""
        return [space._index.tiers() for space in self if space._index is not None]

    def stats(self) -> dict[str, dict[str, Any]]:
        """See Stats.spaces."""
        return {
            space.name: {
                "model_id": space.model_id,
                "dimension": space.dimension,
                "rows": 0 if space._index is None else space._index.stats()["rows"],
            }
            for space in self
        }
