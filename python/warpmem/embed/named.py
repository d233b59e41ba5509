"""Embedders by name and options, as a configuration names them. Each is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import EmbedderName
from ..errors import InputError
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
    """The embedder `name`, with the arguments of its constructor as options.

    `fallback` may hold tables of options, like those of a configuration file, instead of embedders. Raises as
    ops/named.py says.
    """
    module, kind = _CLASSES[name]
    options = _with_fallback(name, options)
    embedder: Embedder = make_named(f"{__package__}.{module}", kind, options, f"embedder_options of {name!r}")
    return embedder


def _with_fallback(name: EmbedderName, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Tables in `fallback` become embedders: of the class that `embedder` names, or of the same one, and then
    with the same options but for those that the table gives."""
    tables = options.get("fallback")
    if not isinstance(tables, (list, tuple)):
        return options
    own = {option: value for option, value in options.items() if option != "fallback"}
    made = []
    for table in tables:
        if not isinstance(table, Mapping):
            made.append(table)
            continue
        kind = table.get("embedder", name)
        if kind not in _CLASSES:
            raise InputError(f"a fallback of {name!r} names the embedder {kind!r}, which there is not")
        given = {option: value for option, value in table.items() if option != "embedder"}
        made.append(make_embedder(kind, {**own, **given} if kind == name else given))
    return {**own, "fallback": made}
