"""What embedders behind a server have in common: batches, checks of every answer, and a watch for other
weights under the same name."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ..config import MAX_DIMENSION
from ..errors import EmbeddingError, InputError, InvalidVector, ModelMismatch
from ..ops.digest import digest16
from .texts import check_texts
from .vectors import as_vectors

_PROBE: Final = "The same words give the same vector as long as the model is the same."
_SAME: Final = 0.995
"""Least cosine of the probe's two vectors: half precision and other batches stay above 0.999."""


class RemoteEmbedder(ABC):
    """Base of the embedders that ask a server. Thread-safe.

    model_id         names the weights; None: `default_id`, and what tells its prefixes from others
    dimension        of the vectors; None asks the server, which then has to be there
    batch            texts of one request at most
    query_prefix, document_prefix
                     put before every text of that role
    check_seconds    after so many seconds a fixed text is embedded again, with the next request; when it gets
                     another vector than at first, other weights answer under the same name, which is a
                     ModelMismatch until the first ones are back. 0 checks every request
    """

    def __init__(
        self,
        *,
        model_id: str | None,
        default_id: str = "",
        dimension: int | None,
        batch: int,
        query_prefix: str,
        document_prefix: str,
        check_seconds: float,
    ) -> None:
        for name, value, most in (("dimension", dimension, MAX_DIMENSION), ("batch", batch, 1 << 16)):
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most
            ):
                raise InputError(f"{name} must be an integer from 1 to {most}")
        if not isinstance(query_prefix, str) or not isinstance(document_prefix, str):
            raise InputError("query_prefix and document_prefix must be strings")
        if model_id is None:
            model_id = default_id
            if query_prefix or document_prefix:
                prefixes = (query_prefix.encode(), document_prefix.encode())
                model_id += f":{digest16(b'', *prefixes)[:4].hex()}"
        if not isinstance(model_id, str) or not model_id:
            raise InputError("model_id must be a string that is not empty")
        if isinstance(check_seconds, bool) or not isinstance(check_seconds, (int, float)):
            raise InputError("check_seconds must be a number")
        self._model_id = model_id
        self._batch = batch
        self._prefix = {"query": query_prefix, "document": document_prefix}
        self._check_seconds = check_seconds
        self._lock = threading.Lock()
        self._first: NDArray[np.float32] | None = None
        self._checked = -float("inf")
        self._dimension = dimension or 0
        if dimension is None:
            first = self._rows([_PROBE])[0]
            self._dimension = len(first)
            self._check(first)

    @property
    def model_id(self) -> str:
        return self._model_id

    @property
    def dimension(self) -> int:
        return self._dimension

    @abstractmethod
    def _ask(self, texts: list[str]) -> Sequence[Any] | NDArray[Any]:
        """One request: what the server gave for each of `texts`, in their order, a row of numbers
        each. What is wrong with the rows is found by the caller."""

    def embed(self, texts: Sequence[str], *, role: Literal["document", "query"]) -> NDArray[np.float32]:
        """(n, dimension) float32.

        Raises InvalidText when a text holds no token; EmbeddingError for an answer with another dimension,
        too few or too many rows, NaN, infinity or a zero row; ModelMismatch when the server has other weights
        than at first; ModelUnavailable, Overloaded, DeadlineExceeded and ModelError as ops/http.py says.
        """
        checked = check_texts(texts)
        rows = np.empty((len(checked), self._dimension), np.float32)
        prefix = self._prefix[role]
        for start in range(0, len(checked), self._batch):
            group = [prefix + text for text in checked[start : start + self._batch]]
            rows[start : start + len(group)] = self._answer(group)
        return rows

    def _answer(self, group: list[str]) -> NDArray[np.float32]:
        with self._lock:
            due = time.monotonic() - self._checked >= self._check_seconds
        if not due:
            return self._rows(group)
        if len(group) < self._batch:
            rows = self._rows([*group, _PROBE])
            self._check(rows[-1])
            return rows[:-1]
        self._check(self._rows([_PROBE])[0])  # in a request of its own: none may be too large
        return self._rows(group)

    def _check(self, vector: NDArray[np.float32]) -> None:
        with self._lock:
            if self._first is None:
                self._first = vector.copy()
            first = self._first
        a, b = first.astype(np.float64), vector.astype(np.float64)
        cosine = float(a @ b / np.sqrt((a @ a) * (b @ b)))
        if cosine < _SAME:
            raise ModelMismatch(
                f"{self._model_id!r} has other weights than at first: one text's two vectors have the cosine "
                f"{cosine:.3f}, not at least {_SAME}; let the server serve the model that made the vectors"
            )
        with self._lock:
            self._checked = time.monotonic()

    def _rows(self, texts: list[str]) -> NDArray[np.float32]:
        answer = self._ask(texts)
        if len(answer) != len(texts):
            raise EmbeddingError(
                f"{self._model_id!r}: expected {len(texts)} rows, one per text, not {len(answer)}"
            )
        dimension = self._dimension or len(answer[0])
        if not 1 <= dimension <= MAX_DIMENSION:
            raise EmbeddingError(
                f"{self._model_id!r}: expected 1 to {MAX_DIMENSION} dimensions, not {dimension}"
            )
        try:
            return as_vectors(answer, dimension, f"answer of {self._model_id!r}")
        except InvalidVector as error:
            raise EmbeddingError(str(error)) from error
