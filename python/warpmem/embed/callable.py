"""Any Python function as an embedder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import EmbeddingError, InputError, InvalidVector, WarpmemError
from ..types.scalars import int_of
from .keywords import takes_keyword
from .texts import check_texts
from .vectors import as_vectors


class CallableEmbedder:
    """Embedder around ``function(list[str]) -> array-like (n, dimension)``.

    A function with a parameter named `role` that can be passed by keyword also gets ``role="document"`` or
    ``role="query"``. Its output is checked and copied. `model_id` names the weights behind the function:
    change it whenever equal texts would get other vectors. A store calls the function from `parallel` threads
    at a time at most; texts of others wait meanwhile and come together in the next call.
    """

    def __init__(
        self, function: Callable[..., Any], model_id: str, dimension: int, *, parallel: int = 1
    ) -> None:
        if not callable(function):
            raise InputError(f"function must be callable, not {type(function).__name__}")
        name: Any = model_id
        if not isinstance(name, str) or not name:
            raise InputError("model_id must be a string that is not empty")
        size, calls = int_of(dimension), int_of(parallel)
        if size is None or size < 1:
            raise InputError("dimension must be an integer of at least 1")
        if calls is None or calls < 1:
            raise InputError("parallel must be an integer of at least 1")
        self.parallel = calls
        self._function = function
        self._model_id = model_id
        self._dimension = size
        self._wants_role = takes_keyword(function, "role")

    @property
    def model_id(self) -> str:
        return self._model_id

    @property
    def dimension(self) -> int:
        return self._dimension

    def embed(self, texts: Sequence[str], *, role: Literal["document", "query"]) -> NDArray[np.float32]:
        """(n, dimension) float32.

        Raises InvalidText when a text holds no token, and EmbeddingError when the function raises or returns
        the wrong number of rows, another dimension, NaN, infinity or a zero row.
        """
        checked = check_texts(texts)
        if not checked:
            return np.empty((0, self._dimension), np.float32)
        try:
            output = self._function(checked, role=role) if self._wants_role else self._function(checked)
        except WarpmemError:
            raise
        except Exception as error:  # foreign code: whatever it raises, it failed
            raise EmbeddingError(f"embedder {self._model_id!r} raised {type(error).__name__}") from error
        try:
            rows = as_vectors(output, self._dimension, f"output of embedder {self._model_id!r}")
        except InvalidVector as error:
            raise EmbeddingError(str(error)) from error
        if len(rows) != len(checked):
            raise EmbeddingError(
                f"embedder {self._model_id!r}: expected {len(checked)} rows, one per text, not {len(rows)}"
            )
        return rows.copy()
