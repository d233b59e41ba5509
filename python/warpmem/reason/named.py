"""Rerankers and language models by name and options, as a configuration names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..config import LanguageModelName, RerankerName
from ..ops.named import make_named
from ..protocols import LanguageModel, Reranker

_RERANKERS: dict[RerankerName, tuple[str, str]] = {
    "tei": ("rerank_http", "TEIReranker"),
    "cohere": ("rerank_http", "CohereReranker"),
    "onnx": ("rerank_onnx", "OnnxReranker"),
    "judge": ("judge", "JudgeReranker"),
    "overlap": ("fakes", "OverlapReranker"),
}
_LANGUAGE_MODELS: dict[LanguageModelName, tuple[str, str]] = {
    "openai": ("chat", "ChatModel"),
    "transformers": ("transformers_lm", "TransformersModel"),
    "scripted": ("fakes", "ScriptedLanguageModel"),
}


def make_reranker(
    name: RerankerName, options: Mapping[str, Any], language_model: Callable[[], LanguageModel]
) -> Reranker:
    """The reranker `name`; "judge" asks the language model. Raises as ops/named.py says."""
    module, kind = _RERANKERS[name]
    judges = (language_model(),) if name == "judge" else ()
    what = f"reranker_options of {name!r}"
    reranker: Reranker = make_named(f"{__package__}.{module}", kind, options, what, *judges)
    return reranker


def make_language_model(name: LanguageModelName, options: Mapping[str, Any]) -> LanguageModel:
    """The language model `name`. Raises as ops/named.py says."""
    module, kind = _LANGUAGE_MODELS[name]
    what = f"language_model_options of {name!r}"
    model: LanguageModel = make_named(f"{__package__}.{module}", kind, options, what)
    return model
