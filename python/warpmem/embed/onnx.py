"""A sentence-embedding model as an ONNX file, run by ONNX Runtime in this process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import EmbeddingError, InvalidVector
from ..ops.model_files import check_batch
from ..ops.onnx import OnnxNetwork
from .model_directory import Pooling, Texts, read_sentence_model
from .vectors import as_vectors


class OnnxEmbedder:
    """Embedder of the model directory `path`. Thread-safe; needs the extra `onnx`.

    file      of the model inside `path`; None: "model.onnx" or "onnx/model.onnx". Its inputs are among
              input_ids, attention_mask and token_type_ids; its first output holds token vectors, or sentence
              vectors where it has two axes
    device    "cpu" or "cuda"
    threads   of one call on the CPU; 0 leaves it to ONNX Runtime
    batch     texts of one run at most
    model_id  None: the folder's name and a digest of everything that decides vectors

    Pooling, normalisation, prefixes and the longest text are the model's own, as its files say
    (model_directory.py); query_prefix and document_prefix replace the prefixes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        file: str | None = None,
        device: Literal["cpu", "cuda"] = "cpu",
        threads: int = 0,
        batch: int = 32,
        model_id: str | None = None,
        query_prefix: str | None = None,
        document_prefix: str | None = None,
    ) -> None:
        self._batch = check_batch(batch)
        self._model = read_sentence_model(path, query_prefix, document_prefix)
        self._texts = Texts(self._model, "onnx")
        self._network = OnnxNetwork(
            self._model.folder, file, device=device, threads=threads, what="the embedder 'onnx'",
            failure=EmbeddingError,
        )  # fmt: skip
        self._model_id = model_id or self._model.model_id("onnx", self._network.weights)
        if device == "cuda":
            self.place = "cuda:0"

    @property
    def model_id(self) -> str:
        return self._model_id

    @property
    def dimension(self) -> int:
        return self._model.dimension

    def token_costs(self, texts: Sequence[str]) -> list[int]:
        """What each text costs, the model's longest text at most."""
        return self._model.token_costs(texts)

    def embed(self, texts: Sequence[str], *, role: Literal["document", "query"]) -> NDArray[np.float32]:
        """(n, dimension) float32; a row's last bits may depend on its batch. Raises InvalidText when a text
        holds no token, EmbeddingError when ONNX Runtime fails or the model gives another shape or NaN."""
        parts = list(self._texts.batches(texts, role, self._batch))
        rows = np.empty((sum(len(places) for places, _, _ in parts), self.dimension), np.float32)
        for places, ids, mask in parts:
            output = self._network.run(ids, mask, np.zeros_like(ids), self._model_id)
            pooled = output if output.ndim == 2 else _pool(output, mask, self._model.pooling)
            try:
                found = as_vectors(pooled, self.dimension, f"output of {self._model_id!r}")
            except InvalidVector as error:
                raise EmbeddingError(str(error)) from error
            if len(found) != len(places):
                raise EmbeddingError(f"{self._model_id!r}: expected {len(places)} rows, not {len(found)}")
            if self._model.normalize:
                found = found / np.linalg.norm(found, axis=1, keepdims=True)
            rows[places] = found
        return rows


def _pool(tokens: NDArray[Any], mask: NDArray[np.int64], pooling: Pooling) -> NDArray[np.float32]:
    if pooling == "cls":
        return np.asarray(tokens[:, 0], np.float32)
    if pooling == "lasttoken":
        return np.asarray(tokens[np.arange(len(tokens)), mask.sum(axis=1) - 1], np.float32)
    weights = mask[:, :, np.newaxis].astype(np.float32)
    mean: NDArray[np.float32] = (tokens * weights).sum(axis=1, dtype=np.float32) / weights.sum(axis=1)
    return mean
