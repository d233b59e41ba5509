"""Images and audio through what schedules texts: batches, lanes and deadlines are the same for both."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ..protocols import MediaEmbedder
from ..types import Media
from .keywords import takes_keyword

_BYTES_A_TOKEN: Final = 1024
"""What a piece is taken to cost: a photograph of 200 KiB counts as much as a text of 200 tokens."""


class MediaAsTexts:
    """A MediaEmbedder where an Embedder is wanted, with Media for texts. Thread-safe if it is."""

    def __init__(self, embedder: MediaEmbedder) -> None:
        self._embedder = embedder
        self._takes_timeout = takes_keyword(embedder.embed_media, "timeout")
        self.model_id = embedder.model_id
        self.dimension = embedder.dimension
        # What else this model does for texts waits in the same line.
        self.place: Hashable = getattr(embedder, "place", None) or ("object", id(embedder))

    @property
    def parallel(self) -> int:
        """How many calls it serves at a time now."""
        return max(1, int(getattr(self._embedder, "parallel", 1)))

    def token_costs(self, media: Sequence[Media]) -> list[int]:
        """What each piece costs, by its length."""
        return [math.ceil(len(piece) / _BYTES_A_TOKEN) for piece in media]

    def embed(
        self, texts: Sequence[Any], *, role: Literal["document", "query"], timeout: float | None = None
    ) -> NDArray[np.float32]:
        """As MediaEmbedder.embed_media; texts: Media."""
        options = {"timeout": timeout} if timeout is not None and self._takes_timeout else {}
        found: NDArray[np.float32] = self._embedder.embed_media(texts, role=role, **options)
        return found
