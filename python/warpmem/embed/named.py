"""Embedders by name and options, as a configuration names them. Each is imported when it is asked for."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from ..config import EmbedderName
from ..errors import InputError
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
    """The embedder `name`, with the arguments of its constructor as options.

    Raises InputError for an option that it does not know or that is missing, MissingDependency with the
    install line, and what the constructor raises.
    """
    module, kind = _CLASSES[name]
    make = getattr(importlib.import_module(f".{module}", __package__), kind)
    try:
        inspect.signature(make).bind(**options)
    except TypeError as error:
        raise InputError(f"embedder_options of {name!r}: {error}") from None
    embedder: Embedder = make(**options)
    return embedder
