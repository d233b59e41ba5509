"""An embedder that is asked in another's place, by no more callers at a time than it serves."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import DeadlineExceeded, InputError, ModelMismatch
from ..protocols import Embedder
from .keywords import takes_keyword


class Fallback:
    """One embedder with turns of its own: how many requests the first one takes says nothing of it.
    Thread-safe."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder
        self._takes_timeout = takes_keyword(embedder.embed, "timeout")
        self._inside = 0
        self._left = threading.Condition()

    @property
    def parallel(self) -> int:
        """How many calls it serves at a time now."""
        return max(1, int(getattr(self.embedder, "parallel", 1)))

    def embed(
        self, texts: Sequence[str], role: Literal["document", "query"], deadline: float | None
    ) -> NDArray[np.float32]:
        """As the embedder, once it is this call's turn. deadline: of time.monotonic(). Raises
        DeadlineExceeded too."""
        self._enter(deadline)
        try:
            options: dict[str, Any] = {}
            if deadline is not None and self._takes_timeout:
                options["timeout"] = deadline - time.monotonic()
            return self.embedder.embed(texts, role=role, **options)
        finally:
            with self._left:
                self._inside -= 1
                self._left.notify_all()  # it may serve more at a time than before

    def _enter(self, deadline: float | None) -> None:
        with self._left:
            while self._inside >= self.parallel:
                left = None if deadline is None else deadline - time.monotonic()
                if (left is not None and left <= 0) or not self._left.wait(left):
                    raise DeadlineExceeded("the deadline passed before the fallback was asked")
            self._inside += 1


def fallbacks_of(embedder: Embedder, fallback: Any) -> tuple[Fallback, ...]:
    """One for each of `fallback`. Raises InputError when it is no list of embedders, ModelMismatch when one
    has another model than `embedder`."""
    if isinstance(fallback, (str, bytes)) or not isinstance(fallback, Sequence):
        raise InputError(f"fallback must be a list of embedders, not {type(fallback).__name__}")
    for other in fallback:
        if isinstance(other, type) or not isinstance(other, Embedder):
            raise InputError(f"fallback must be a list of embedders; one is {type(other).__name__}")
        if (other.model_id, other.dimension) != (embedder.model_id, embedder.dimension):
            raise ModelMismatch(
                f"a fallback is {other.model_id!r} ({other.dimension} dimensions), not {embedder.model_id!r} "
                f"({embedder.dimension}): their vectors would not go together"
            )
    return tuple(map(Fallback, fallback))
