"""Embedders by name and options, as a configuration names them. Each is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import EmbedderName
from ..ops.named import make_named
from ..protocols import Embedder

_CLASSES: dict[EmbedderName, tuple[str, str]] = {
    "wordllama": ("wordllama", "WordLlamaEmbedder"),
    "hashing": ("hashing", "HashingEmbedder"),
    "onnx": ("onnx", "OnnxEmbedder"),
    "torch": ("torch", "TorchEmbedder"),
    "openai": ("openai", "OpenAIEmbedder"),
    "tei": ("tei", "TEIEmbedder"),
    "kserve": ("kserve", "KServeEmbedder"),
}


def make_embedder(name: EmbedderName, options: Mapping[str, Any]) -> Embedder:
    """The embedder `name`, with the arguments of its constructor as options. Raises as ops/named.py says."""
    module, kind = _CLASSES[name]
    embedder: Embedder = make_named(f"{__package__}.{module}", kind, options, f"embedder_options of {name!r}")
    return embedder
