"""Embedders by name and options: in a configuration, in open(), and where their package is missing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import local_servers
import sentence_models
import warpmem
from warpmem import Config, load_config
from warpmem.embed.named import make_embedder
from warpmem.errors import InputError, MissingDependency, ModelMismatch, ModelUnavailable


def test_a_store_behind_a_server_by_configuration_file(tmp_path: Path) -> None:
    """A store that knows its dimension opens without its server; what needs a vector then fails whole."""
    with local_servers.serving(local_servers.openai) as server:
        file = tmp_path / "warpmem.toml"
        file.write_text(
            f'[warpmem]\nembedder = "openai"\n[warpmem.embedder_options]\nurl = "{server.url}/v1"\n'
            'model = "m"\ndimension = 48\n'
        )
        with warpmem.open(tmp_path / "store", config=file) as memory:
            memory.add("Nadia moved to Porto.", user_id="nadia")
            assert memory.search("Nadia moved to Porto.", user_id="nadia", mode="dense")[
                0
            ].score == pytest.approx(1.0)
            server.answer = lambda handler, payload: handler.reply(b"{", 500)
            with pytest.raises(ModelUnavailable):
                memory.add(["one", "two"], user_id="nadia")
            assert memory.count(user_id="nadia") == 1
    with warpmem.open(tmp_path / "store", config=file) as memory:
        assert memory.count(user_id="nadia") == 1
        assert memory.list(user_id="nadia").items[0].text == "Nadia moved to Porto."


def test_another_model_of_the_same_server_is_another_store(tmp_path: Path) -> None:
    with local_servers.serving(local_servers.openai) as server:
        options: dict[str, Any] = {"url": f"{server.url}/v1", "model": "m"}
        warpmem.open(tmp_path, embedder="openai", embedder_options=options).close()
        with pytest.raises(ModelMismatch):
            warpmem.open(tmp_path, embedder="openai", embedder_options={**options, "model": "other"})
        warpmem.open(tmp_path, embedder="openai", embedder_options=options).close()


def test_a_name_in_the_call_leaves_the_options_of_the_file_behind(tmp_path: Path) -> None:
    settings = Config(embedder="tei", embedder_options={"url": "http://127.0.0.1:9", "model_id": "m"})
    with warpmem.open(
        None, config=settings, embedder="hashing", embedder_options={"dimension": 32}
    ) as memory:
        assert memory.stats().dimension == 32
    with warpmem.open(None, config=settings, embedder="hashing") as memory:
        assert memory.stats().dimension == 256


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [("openai", {"url": "http://127.0.0.1:9"}, "'openai': missing a required argument: 'model'"),
     ("hashing", {"dimensions": 3}, "'hashing': got an unexpected keyword argument 'dimensions'"),
     ("wordllama", {"a": 1}, "unexpected"), ("kserve", {}, "missing")],
)  # fmt: skip
def test_options_that_an_embedder_does_not_know(name: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_embedder(name, options)


def test_options_without_a_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="need an embedder by name"):
        Config(embedder_options={"a": 1})
    file = tmp_path / "warpmem.toml"
    file.write_text('embedder = "gpt"\n')
    with pytest.raises(InputError, match="embedder"):
        load_config(file)


@pytest.mark.parametrize(("name", "package"), [("onnx", "onnxruntime"), ("torch", "torch")])
def test_a_missing_package_is_named_with_its_install_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Any, package: str
) -> None:
    folder = sentence_models.model_directory(tmp_path)
    (folder / "model.onnx").touch()
    (folder / "model.safetensors").touch()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency, match=rf"python -m pip install 'warpmem\[{name}\]'"):
        make_embedder(name, {"path": str(folder)})
