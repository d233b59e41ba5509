"""Embedders of modalities beside the texts, as open() and a configuration name them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, get_args

import msgspec

from ..config import EmbedderChoice
from ..errors import InputError
from ..protocols import Embedder, MediaEmbedder
from ..types import Modality
from .named import make_embedder

_KINDS: Final[dict[str, Any]] = {
    "code": Embedder, "log": Embedder, "image": MediaEmbedder, "audio": MediaEmbedder
}  # fmt: skip


def check_embedders(embedders: Any) -> Mapping[str, Any]:
    """What open(embedders=) was given. Raises InputError unless it names modalities."""
    if not isinstance(embedders, Mapping) or not embedders.keys() <= set(get_args(Modality)):
        raise InputError(f"embedders must be a dict with keys of {', '.join(get_args(Modality))}")
    return embedders


def make_embedders(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """By modality, the embedder: objects as they are, names and choices made now.

    Raises InputError for what embeds no such thing, and as make_embedder.
    """
    return {modality: _made(modality, value) for modality, value in wanted.items()}


def _made(modality: str, value: Any) -> Any:
    if isinstance(value, str):
        value = {"name": value}
    if isinstance(value, Mapping):
        try:
            value = msgspec.convert(value, EmbedderChoice)
        except msgspec.ValidationError as error:
            raise InputError(f"the embedder for {modality}: {error}") from error
    if isinstance(value, EmbedderChoice):
        value = make_embedder(value.name, value.options)
    kind = _KINDS[modality]
    if isinstance(value, type) or not isinstance(value, kind):
        shown = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        lacks = "embed_media" if kind is MediaEmbedder else "embed"
        raise InputError(
            f"the embedder for {modality} must have model_id, dimension and {lacks}; {shown} has not"
        )
    return value
