"""Servers with `/rerank`: text-embeddings-inference in its own shape; vLLM, Jina, infinity and Cohere in
Cohere's.

The APIs: https://huggingface.github.io/text-embeddings-inference, https://docs.cohere.com/reference/rerank
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..ops.http import Endpoint
from ..ops.model_files import check_batch
from ..ops.texts import check_not_empty
from .scores import by_index, check_pairs


class _TEIScore(msgspec.Struct):
    index: int
    score: float


class _Result(msgspec.Struct):
    index: int
    relevance_score: float


class _Answer(msgspec.Struct):
    results: list[_Result]


class RemoteReranker(ABC):
    """Base of the rerankers that ask a server. Thread-safe.

    model_id    names the weights
    batch       texts of one request at most
    """

    def __init__(self, endpoint: Endpoint, *, model_id: str, batch: int) -> None:
        self._endpoint = endpoint
        self._model_id = check_not_empty(model_id, "model_id")
        self._batch = check_batch(batch)

    @property
    def model_id(self) -> str:
        return self._model_id

    @abstractmethod
    def _ask(self, query: str, texts: list[str]) -> list[tuple[int, float]]:
        """One request: (index, score) as the server gave them. What is wrong is found by the caller."""

    def rerank(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n,) float32, finite. Raises ModelError when the server does not score each text once, and
        ModelUnavailable, Overloaded, DeadlineExceeded and ModelError as ops/http.py says."""
        checked = check_pairs(query, texts)
        scores = np.empty(len(checked), np.float32)
        for start in range(0, len(checked), self._batch):
            group = checked[start : start + self._batch]
            scores[start : start + len(group)] = by_index(self._ask(query, group), len(group), self._model_id)
        return scores


class TEIReranker(RemoteReranker):
    """Reranker behind `url` + "/rerank" of text-embeddings-inference.

    model_id    None: made of the server's address, which is not asked for its weights
    truncate    cut texts that are too long for the model; else the server refuses them
    batch       texts of one request; the server's own limit (--max-client-batch-size) is 32 by default

    The others are those of ops/http.py's Endpoint.
    """

    def __init__(
        self,
        url: str,
        *,
        model_id: str | None = None,
        truncate: bool = True,
        batch: int = 32,
        timeout: float = 30.0,
        key_env: str | None = None,
        key_file: str | None = None,
        ca_file: str | None = None,
        networks: Sequence[str] = (),
    ) -> None:
        endpoint = Endpoint(
            url, timeout=timeout, key_env=key_env, key_file=key_file, ca_file=ca_file, networks=networks
        )
        self._truncate = bool(truncate)
        super().__init__(
            endpoint, model_id=f"tei:{endpoint.name}" if model_id is None else model_id, batch=batch
        )

    def _ask(self, query: str, texts: list[str]) -> list[tuple[int, float]]:
        request = {"query": query, "texts": texts, "truncate": self._truncate}
        return [(one.index, one.score) for one in self._endpoint.post("/rerank", request, list[_TEIScore])]


class CohereReranker(RemoteReranker):
    """Reranker behind `url` + "/rerank" in Cohere's shape.

    url         with the version where the server has one, for example "http://127.0.0.1:8000/v1"
    model       the server's name for the model
    model_id    None: made of `model`
    batch       texts of one request; models that compare the texts with each other want all in one

    The others are those of ops/http.py's Endpoint.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        model_id: str | None = None,
        batch: int = 1000,
        timeout: float = 30.0,
        key_env: str | None = None,
        key_file: str | None = None,
        ca_file: str | None = None,
        networks: Sequence[str] = (),
    ) -> None:
        self._model = check_not_empty(model, "model")
        super().__init__(
            Endpoint(
                url, timeout=timeout, key_env=key_env, key_file=key_file, ca_file=ca_file, networks=networks
            ),
            model_id=f"cohere:{model}" if model_id is None else model_id,
            batch=batch,
        )

    def _ask(self, query: str, texts: list[str]) -> list[tuple[int, float]]:
        request = {"model": self._model, "query": query, "documents": texts}
        answer = self._endpoint.post("/rerank", request, _Answer)
        return [(one.index, one.relevance_score) for one in answer.results]
