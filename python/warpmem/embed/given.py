"""An embedder for stores whose vectors all come from the caller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..config import MAX_DIMENSION
from ..errors import InputError
from ..types.scalars import integer


class GivenVectors:
    """Implements protocols.Embedder by refusing to embed: every add and search brings its vector."""

    def __init__(self, dimension: int, model_id: str | None = None) -> None:
        dimension = integer(dimension, "dimension", 1, MAX_DIMENSION)
        if model_id is not None and (not isinstance(model_id, str) or not model_id):
            raise InputError("model_id must be a string that is not empty")
        self._dimension = dimension
        self._model_id = model_id or f"given-{dimension}"

    @property
    def model_id(self) -> str:
        return self._model_id

    @property
    def dimension(self) -> int:
        return self._dimension

    def embed(self, texts: Sequence[str], *, role: Literal["document", "query"]) -> NDArray[np.float32]:
        """Raises InputError, always."""
        raise InputError(
            f"this store has no embedder: pass vector= ({self._dimension} numbers) with every {role}"
        )
