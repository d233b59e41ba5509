"""Clocks and models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..types import Media, Message


class Clock(Protocol):
    """Source of the current time."""

    def now(self) -> int:
        """Microseconds since 1970-01-01 UTC. May go backwards; callers cope."""
        ...


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors. Thread-safe.

    `model_id` names the weights (equal ids mean equal vectors); `dimension` is fixed. One that remembers
    texts has a method `forget()`, which drops them; an erasure calls it. Also optional:

    parallel              how many calls of `embed` it serves at a time, now; 1 where it does not say
    place                 a string that names the device or endpoint it shares with others
    token_costs(texts)    what each text costs, at least 1; a token for four bytes where it does not say
    probe                 the vector of a fixed text, (dimension,) float32, by the weights that answer now;
                          None before any did. A store refuses weights that give another one than those that
                          made its vectors, and calls `forget_probe()`, so that it is asked for again
    embed(..., timeout=)  seconds after which nobody needs the vectors any more
    """

    @property
    def model_id(self) -> str: ...
    @property
    def dimension(self) -> int: ...

    def embed(self, texts: Sequence[str], *, role: Literal["document", "query"]) -> NDArray[np.float32]:
        """(n, dimension) float32, finite, no all-zero row; row i depends on texts[i] alone, but for the last
        bits of networks that compute in batches.

        Raises InvalidText when a text holds no token, EmbeddingError or another ModelError when the model
        fails; behind a server also Overloaded, DeadlineExceeded and ModelMismatch.
        """
        ...


@runtime_checkable
class MediaEmbedder(Protocol):
    """Turns images or audio into vectors. Thread-safe. One that turns texts into vectors of the same space
    is an Embedder besides, and searches by text find what it embedded. What an Embedder may have it may
    too, but for `token_costs`."""

    @property
    def model_id(self) -> str: ...
    @property
    def dimension(self) -> int: ...

    def embed_media(
        self, media: Sequence[Media], *, role: Literal["document", "query"]
    ) -> NDArray[np.float32]:
        """(n, dimension) float32, finite, no all-zero row; row i depends on media[i] alone.

        Raises InputError for what it cannot read, EmbeddingError or another ModelError when the model fails;
        behind a server also Overloaded, DeadlineExceeded and ModelMismatch.
        """
        ...


class TokenCounter(Protocol):
    """Counts a text's tokens, never fewer than the model the text is meant for would.

    A text has more than half as many as its beginning, whatever follows: of one that is much too long no more
    than the beginning is counted.
    """

    @property
    def name(self) -> str: ...
    def count(self, text: str) -> int: ...


@runtime_checkable
class LanguageModel(Protocol):
    """Answers a chat. Thread-safe. Its output is untrusted: callers validate it.

    It may have `parallel`: how many calls of `complete` the background makes at a time; 1 where it does not
    say.
    """

    @property
    def model_id(self) -> str: ...
    def complete(
        self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None, max_tokens: int = 1024
    ) -> str:
        """The answer's text; JSON that should follow `schema` (the subset of policy/schema.py) when one is
        given.

        Raises InputError for messages or a schema that are none, ModelError; behind a server also Overloaded
        and DeadlineExceeded.
        """
        ...


@runtime_checkable
class Reranker(Protocol):
    """Scores (query, text) pairs; larger is better. Thread-safe."""

    @property
    def model_id(self) -> str: ...
    def rerank(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n,) float32, finite. Raises ModelError; behind a server also Overloaded and DeadlineExceeded."""
        ...
