"""A sentence-embedding model run by PyTorch in this process, from a directory of sentence-transformers or of
transformers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import EmbeddingError, InputError, InvalidVector, MissingDependency
from ..ops.model_files import check_batch
from .model_directory import Texts, read_sentence_model
from .vectors import as_vectors


class TorchEmbedder:
    """Embedder of the model directory `path`. Thread-safe; needs the extra `torch`.

    device    torch's name: "cpu", "cuda", "cuda:1"; None is "cuda" where torch sees one, else "cpu"
    dtype     of weights and arithmetic: "float32", "float16" or "bfloat16"
    batch     texts of one run at most
    model_id  None: the folder's name and a digest of everything that decides vectors

    Weights are read from safetensors files alone, and no code of the model's is run. Pooling, normalisation,
    prefixes and the longest text are the model's own, as its files say (model_directory.py); query_prefix and
    document_prefix replace the prefixes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        device: str | None = None,
        dtype: Literal["float32", "float16", "bfloat16"] = "float32",
        batch: int = 32,
        model_id: str | None = None,
        query_prefix: str | None = None,
        document_prefix: str | None = None,
    ) -> None:
        if dtype not in ("float32", "float16", "bfloat16"):
            raise InputError("dtype must be 'float32', 'float16' or 'bfloat16'")
        self._batch = check_batch(batch)
        self._model = read_sentence_model(path, query_prefix, document_prefix)
        weights = sorted(self._model.folder.glob("*.safetensors"))
        if not weights:
            raise InputError(f"{os.fspath(path)!r} has no weights as .safetensors")
        self._texts = Texts(self._model, "torch")
        try:
            import torch
            from transformers import AutoModel
        except ImportError as error:
            raise MissingDependency(
                "the embedder 'torch' needs PyTorch and transformers: python -m pip install 'warpmem[torch]'"
            ) from error
        self._torch: Any = torch
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            network = AutoModel.from_pretrained(
                self._model.folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
            self._network: Any = network.to(device=self._device, dtype=getattr(torch, dtype)).eval()
        except Exception as error:  # foreign code: whatever it raises, it failed
            raise EmbeddingError(
                f"{os.fspath(path)!r} cannot be loaded on {self._device!r}: {type(error).__name__}"
            ) from error
        if self._device.startswith("cuda"):
            self.place = self._device if ":" in self._device else f"{self._device}:0"
        kind = "torch" if dtype == "float32" else f"torch-{dtype}"
        self._model_id = model_id or self._model.model_id(kind, weights)

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
        holds no token, EmbeddingError when torch fails or the model gives another shape or NaN."""
        tensor = self.embed_on_device(texts, role=role)
        if not len(tensor):
            return np.empty((0, self.dimension), np.float32)
        try:
            return as_vectors(tensor, self.dimension, f"output of {self._model_id!r}")
        except InvalidVector as error:
            raise EmbeddingError(str(error)) from error

    def embed_on_device(self, texts: Sequence[str], *, role: Literal["document", "query"]) -> Any:
        """The same as a torch tensor that stays on the device and speaks DLPack; its values are not
        checked."""
        torch = self._torch
        parts = list(self._texts.batches(texts, role, self._batch))
        count = sum(len(places) for places, _, _ in parts)
        try:
            with torch.inference_mode():
                rows = torch.empty((count, self.dimension), dtype=torch.float32, device=self._device)
                for places, ids, mask in parts:
                    rows[torch.tensor(places, device=self._device)] = self._pooled(ids, mask)
            return rows.clone()  # an ordinary tensor, as other libraries expect
        except Exception as error:  # foreign code: whatever it raises, it failed
            raise EmbeddingError(f"{self._model_id!r}: torch raised {type(error).__name__}") from error

    def _pooled(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Any:
        torch = self._torch
        given = torch.from_numpy(ids).to(self._device)
        kept = torch.from_numpy(mask).to(self._device)
        tokens = self._network(input_ids=given, attention_mask=kept).last_hidden_state.float()
        if self._model.pooling == "cls":
            pooled = tokens[:, 0]
        elif self._model.pooling == "lasttoken":
            pooled = tokens[torch.arange(len(tokens), device=self._device), kept.sum(dim=1) - 1]
        else:
            weights = kept.unsqueeze(-1).float()
            pooled = (tokens * weights).sum(dim=1) / weights.sum(dim=1)
        return torch.nn.functional.normalize(pooled, dim=1) if self._model.normalize else pooled
