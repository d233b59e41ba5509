"""What embedders behind a server have in common: batches, checks of every answer, a guard against its
failing, others in its place, and a watch for other weights under the same name."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..config import MAX_DIMENSION
from ..errors import (
    DeadlineExceeded,
    EmbeddingError,
    InputError,
    InvalidVector,
    ModelError,
    ModelUnavailable,
    Overloaded,
)
from ..ops.digest import digest16
from ..ops.guard import guard_of
from ..protocols import Embedder
from ..types import Media
from ..types.scalars import float_of, integer
from .fallback import fallbacks_of
from .texts import check_texts
from .vectors import as_vectors
from .weights import PROBE, Weights

Role = Literal["document", "query"]
W = TypeVar("W")

_IN_TURN: Final = (ModelUnavailable, Overloaded, DeadlineExceeded)
"""After these another may be asked."""
_NEXT: Final = (ModelError, Overloaded, DeadlineExceeded)
"""After these of a fallback the next one may: a key that one refuses is no concern of the others."""


class Place(Protocol):
    """Where a server is: host:port for messages, and what requests to the same one have in common."""

    @property
    def name(self) -> str: ...
    @property
    def base(self) -> str: ...


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
    parallel         requests at a time at most; how many of them, the server's answers decide (ops/guard.py)
    fallback         Embedders of the same model_id and dimension that are asked in turn when the server is
                     down, overloaded or late, the next one also when one fails in another way; else
                     ModelMismatch. Each serves as many calls at a time as its own `parallel` says. Those
                     behind servers are held to the same weights by the fixed text
    """

    _tells_role = False

    def __init__(
        self,
        endpoint: Place,
        *,
        model_id: str | None,
        default_id: str = "",
        dimension: int | None,
        batch: int,
        query_prefix: str,
        document_prefix: str,
        check_seconds: float,
        parallel: int,
        fallback: Sequence[Embedder],
    ) -> None:
        if dimension is not None:
            dimension = integer(dimension, "dimension", 1, MAX_DIMENSION)
        batch = integer(batch, "batch", 1, 1 << 16)
        parallel = integer(parallel, "parallel", 1, 1024)
        if not isinstance(query_prefix, str) or not isinstance(document_prefix, str):
            raise InputError("query_prefix and document_prefix must be strings")
        if model_id is None:
            model_id = default_id
            if query_prefix or document_prefix:
                prefixes = (query_prefix.encode(), document_prefix.encode())
                model_id += f":{digest16(b'', *prefixes)[:4].hex()}"
        if not isinstance(model_id, str) or not model_id:
            raise InputError("model_id must be a string that is not empty")
        between = float_of(check_seconds)
        if between is None:
            raise InputError("check_seconds must be a number")
        self._place = endpoint
        self._model_id = model_id
        self.place = f"{endpoint.base} {model_id}"
        self._guard = guard_of((os.getpid(), self.place), parallel)
        self._batch = batch
        self._prefix = {"query": query_prefix, "document": document_prefix}
        self._check_seconds = between
        self._lock = threading.Lock()
        self._weights = Weights()
        self._checked = -float("inf")
        self._dimension = dimension or 0
        if dimension is None:
            first = self._rows([PROBE], "document", None)[0]
            self._dimension = len(first)
            self._check(first)
        self._fallback = fallbacks_of(self, fallback)
        for other in (each.embedder for each in self._fallback):
            if isinstance(other, RemoteEmbedder):
                if other._weights.first is not None:
                    self._weights.compare(other._weights.first, self._model_id)
                other._weights, other._checked = self._weights, -float("inf")

    @property
    def model_id(self) -> str:
        return self._model_id

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def parallel(self) -> int:
        """How many requests the server gets at a time now; while it is not asked, how many the first in the
        fallback that is asked gets."""
        return self._taken() or self._guard.limit

    def _taken(self) -> int:
        """How many at a time the first of all that is asked now gets; 0 where none is."""
        if not self._guard.refuses:
            return self._guard.limit
        for each in self._fallback:
            other = each.embedder
            taken = other._taken() if isinstance(other, RemoteEmbedder) else each.parallel
            if taken:
                return taken
        return 0

    @property
    def probe(self) -> NDArray[np.float32] | None:
        """(dimension,) float32: what the weights made of a fixed text at first; None before they were asked.
        A store keeps it beside its vectors, and compares it with the next program's."""
        return self._weights.first

    def forget_probe(self) -> None:
        """Let the next request, whoever answers it, make another first one."""
        self._weights.forget()
        with self._lock:
            self._checked = -float("inf")
        for each in self._fallback:
            if isinstance(each.embedder, RemoteEmbedder):
                each.embedder.forget_probe()

    def forget(self) -> None:
        """What those in the fallback remember of texts is dropped; a server's memory is its own."""
        for other in self._fallback:
            getattr(other.embedder, "forget", int)()

    @abstractmethod
    def _ask(self, texts: list[str], timeout: float | None) -> Sequence[Any] | NDArray[Any]:
        """One request: what the server gave for each of `texts`, in their order, a row of numbers
        each. What is wrong with the rows is found by the caller. timeout: as of Endpoint.post."""

    def _ask_as(self, texts: list[str], role: Role, timeout: float | None) -> Sequence[Any] | NDArray[Any]:
        """The same of a server that is told the role; `_tells_role` is True then."""
        return self._ask(texts, timeout)

    def embed(self, texts: Sequence[str], *, role: Role, timeout: float | None = None) -> NDArray[np.float32]:
        """(n, dimension) float32. timeout: seconds for all of it, where less are left than the endpoint's own
        for each request.

        Raises InvalidText when a text holds no token; EmbeddingError for an answer with another dimension,
        too few or too many rows, NaN, infinity or a zero row; ModelMismatch when the server has other weights
        than at first; ModelUnavailable, Overloaded, DeadlineExceeded and ModelError as ops/http.py says, and
        Overloaded while the server is not asked because it failed or wants to be left alone. With a fallback,
        these are of the server itself, after all others have failed.
        """
        checked = check_texts(texts)
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            return self._own(checked, role, deadline)
        except _IN_TURN:
            for other in self._fallback:
                if deadline is None or time.monotonic() < deadline:
                    with contextlib.suppress(*_NEXT):
                        return other.embed(checked, role, deadline)
            raise

    def _of_media(
        self,
        media: Sequence[Media],
        ask: Callable[[list[Media], float | None], Sequence[Any] | NDArray[Any]],
        timeout: float | None,
    ) -> NDArray[np.float32]:
        """(n, dimension) float32, batch by batch, with the guard and the checks of texts. The fixed text
        watches the weights as it does there. Others are not asked in the server's place."""
        deadline = None if timeout is None else time.monotonic() + timeout
        rows = np.empty((len(media), self._dimension), np.float32)
        for start in range(0, len(media), self._batch):
            group = list(media[start : start + self._batch])
            if self._due():
                self._check(self._rows([PROBE], "document", deadline)[0])
            rows[start : start + len(group)] = self._checked_answer(group, ask, deadline)
        return rows

    def _own(self, texts: list[str], role: Role, deadline: float | None) -> NDArray[np.float32]:
        rows = np.empty((len(texts), self._dimension), np.float32)
        prefix = self._prefix[role]
        for start in range(0, len(texts), self._batch):
            group = [prefix + text for text in texts[start : start + self._batch]]
            rows[start : start + len(group)] = self._answer(group, role, deadline)
        return rows

    def _answer(self, group: list[str], role: Role, deadline: float | None) -> NDArray[np.float32]:
        if not self._due():
            return self._rows(group, role, deadline)
        if len(group) < self._batch and (role == "document" or not self._tells_role):
            rows = self._rows([*group, PROBE], role, deadline)
            self._check(rows[-1])
            return rows[:-1]
        # In a request of its own: none may be too large, and in another role the vector is another.
        self._check(self._rows([PROBE], "document", deadline)[0])
        return self._rows(group, role, deadline)

    def _due(self) -> bool:
        with self._lock:
            return time.monotonic() - self._checked >= self._check_seconds

    def _check(self, vector: NDArray[np.float32]) -> None:
        self._weights.compare(vector, self._model_id)
        with self._lock:
            self._checked = time.monotonic()

    def _rows(self, texts: list[str], role: Role, deadline: float | None) -> NDArray[np.float32]:
        return self._checked_answer(texts, lambda some, left: self._ask_as(some, role, left), deadline)

    def _checked_answer(
        self,
        wanted: list[W],
        ask: Callable[[list[W], float | None], Sequence[Any] | NDArray[Any]],
        deadline: float | None,
    ) -> NDArray[np.float32]:
        """The answer to one request, checked."""
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise DeadlineExceeded(f"the deadline passed before {self._place.name} was asked")
        answer = self._guard.run(lambda seconds: ask(wanted, seconds), self._place.name, len(wanted), left)
        if len(answer) != len(wanted):
            what = "text" if isinstance(wanted[0], str) else "image"
            raise EmbeddingError(
                f"{self._model_id!r}: expected {len(wanted)} rows, one per {what}, not {len(answer)}"
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
