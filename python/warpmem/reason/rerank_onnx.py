"""A cross-encoder as an ONNX file, run by ONNX Runtime in this process: it reads query and text together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..ops import model_files
from ..ops.onnx import OnnxNetwork
from .scores import as_scores, check_pairs


class OnnxReranker:
    """Reranker of the model directory `path`. Thread-safe; needs the extra `onnx`.

    file      of the model inside `path`; None: "model.onnx" or "onnx/model.onnx". Its inputs are among
              input_ids, attention_mask and token_type_ids; its first output is one number a pair, (n, 1) or
              (n,)
    device    "cpu" or "cuda"
    threads   of one call on the CPU; 0 leaves it to ONNX Runtime
    batch     pairs of one run at most
    model_id  None: the folder's name and a digest of everything that decides scores

    A pair longer than the model takes is cut as its tokenizer cuts, the longer of both first. Scores are the
    network's numbers as they are, not squeezed between 0 and 1.
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
    ) -> None:
        what = "the reranker 'onnx'"
        self._batch = model_files.check_batch(batch)
        folder = model_files.model_folder(path)
        config = model_files.read_object(folder / "config.json")
        longest = model_files.longest_text(folder, config)
        self._pad_id = config.get("pad_token_id") or 0
        self._tokenizer = model_files.load_tokenizer(folder, longest, what)
        self._network = OnnxNetwork(
            folder, file, device=device, threads=threads, what=what, failure=ModelError
        )
        files = (*self._network.weights, folder / "tokenizer.json")
        self._model_id = model_id or f"onnx:{folder.name}:{model_files.digest(files, longest)}"

    @property
    def model_id(self) -> str:
        return self._model_id

    def rerank(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n,) float32, finite; a score's last bits may depend on its batch. Raises ModelError when ONNX
        Runtime fails or the model gives another shape or NaN."""
        checked = check_pairs(query, texts)
        encodings = self._tokenizer.encode_batch_fast([(query, text) for text in checked])
        pairs = [(encoding.ids, encoding.type_ids) for encoding in encodings]
        scores = np.empty(len(checked), np.float32)
        for places in model_files.like_lengths([ids for ids, _ in pairs], self._batch):
            rows = [pairs[i][0] for i in places]
            output = self._network.run(
                model_files.padded(rows, self._pad_id),
                model_files.padded([[1] * len(row) for row in rows], 0),
                model_files.padded([pairs[i][1] for i in places], 0),
                self._model_id,
            )
            if output.ndim == 2 and output.shape[1] == 1:
                output = output[:, 0]
            scores[places] = as_scores(output, len(places), self._model_id)
        return scores
