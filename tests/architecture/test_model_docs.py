"""Every configuration in the documents is one: its options exist, and its models can be made."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import readme
from warpmem.config import load_config
from warpmem.embed import named as embedders
from warpmem.reason import named as reasoning
from warpmem.reason.fakes import ScriptedLanguageModel

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATIONS = [
    (name, block.text)
    for name in ("README.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")))
    for block in readme.blocks((ROOT / name).read_text(encoding="utf-8"))
    if block.language == "toml"
]
SERVERS = ("vLLM", "TEI", "NIM", "Ollama", "llama.cpp", "infinity", "Triton", "MLServer", "KServe", "TPU")


def test_each_server_has_its_configuration():
    text = (ROOT / "docs/model_servers.md").read_text(encoding="utf-8")
    assert [name for name in SERVERS if name not in text] == []
    assert len(CONFIGURATIONS) >= 10


@pytest.mark.parametrize(("name", "text"), CONFIGURATIONS)
def test_a_configuration_makes_its_models(name: str, text: str, tmp_path: Path):
    (tmp_path / "warpmem.toml").write_text(text)
    config = load_config(tmp_path / "warpmem.toml")
    if "grpc://" in text:
        pytest.importorskip("grpc")
    if config.embedder is not None:
        embedder = embedders.make_embedder(config.embedder, config.embedder_options)
        assert embedder.dimension == config.embedder_options["dimension"]
    if config.language_model is not None:
        reasoning.make_language_model(config.language_model, config.language_model_options)
    if config.reranker is not None:
        judge = ScriptedLanguageModel(["?"])
        reasoning.make_reranker(config.reranker, config.reranker_options, lambda: judge)


def _classes() -> list[tuple[str, Any]]:
    tables = {
        "embed": embedders._CLASSES,
        "reason": {**reasoning._RERANKERS, **reasoning._LANGUAGE_MODELS},
    }
    return [
        (kind, getattr(import_module(f"warpmem.{folder}.{module}"), kind))
        for folder, table in tables.items()
        for module, kind in table.values()
    ]


@pytest.mark.parametrize(("kind", "made"), _classes())
def test_the_page_on_models_names_every_option(kind: str, made: Any):
    text = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    options = set(inspect.signature(made).parameters) - {"self", "language_model"}
    assert sorted(option for option in options if f"`{option}`" not in text) == []
