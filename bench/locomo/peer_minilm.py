"""all-MiniLM-L6-v2 in its own process: vectors of texts, and how well a query's tokens meet those of texts.

python peer_minilm.py MODEL_DIRECTORY
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np
import torch
from served import offline, serve
from transformers import AutoModel, AutoTokenizer

from warpmem.embed.torch import TorchEmbedder


def main() -> None:
    offline()
    torch.set_num_threads(1)
    model = sys.argv[1]
    embedder = TorchEmbedder(model, device="cpu")
    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    network = AutoModel.from_pretrained(model, local_files_only=True).eval()

    def embed(texts: list[str], role: str, out: str) -> str:
        """Write (n, 384) float32 to a file; the model's id."""
        np.save(out, embedder.embed(texts, role=role))  # type: ignore[arg-type]
        return embedder.model_id

    @functools.lru_cache(maxsize=8192)
    def tokens(text: str) -> Any:
        """(tokens, 384) float32 of length 1."""
        encoded = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            rows = network(**encoded).last_hidden_state[0]
        return torch.nn.functional.normalize(rows, dim=1).numpy()

    def late(query: str, texts: list[str]) -> list[float]:
        """For each text the mean over the query's tokens of the best similarity to one of its own."""
        asked = tokens(query)
        return [float((asked @ tokens(text).T).max(axis=1).mean()) for text in texts]

    serve({"embed": embed, "late": late})


main()
