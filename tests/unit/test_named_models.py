"""Rerankers, language models and token counters by name and options, or as objects, in open()."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import local_servers
import sentence_models
import warpmem
from warpmem import Config, Message, load_config
from warpmem.errors import InputError, MissingDependency, StoreClosed
from warpmem.memory.reasoning import Later
from warpmem.protocols import LanguageModel
from warpmem.reason.fakes import OverlapReranker, ScriptedLanguageModel
from warpmem.reason.tokens import EstimateTokenCounter

ASK = [Message(role="user", content="Where?")]


def test_a_language_model_by_configuration_file(tmp_path: Path) -> None:
    file = tmp_path / "warpmem.toml"
    with local_servers.serving(local_servers.chat('{"city": "Porto"}')) as server:
        file.write_text(
            'embedder = "hashing"\nlanguage_model = "openai"\n'
            f'[language_model_options]\nurl = "{server.url}/v1"\nmodel = "m"\nextra = {{ seed = 1 }}\n'
        )
        with warpmem.open(config=file) as memory:
            model = memory.language_model
            assert isinstance(model, LanguageModel) and memory.language_model is model
            assert model.complete(ASK, schema={"type": "object"}) == '{"city": "Porto"}'
        assert server.requests[0][1]["seed"] == 1
    with pytest.raises(StoreClosed):
        memory.language_model  # noqa: B018


def test_the_judge_asks_the_language_model_of_the_store() -> None:
    grades = [{"number": i + 1, "score": score} for i, score in enumerate((1, 9))]
    answers = [json.dumps({"scores": grades})]
    with warpmem.open(
        embedder="hashing",
        reranker="judge",
        reranker_options={"batch": 5},
        language_model="scripted",
        language_model_options={"answers": answers},
    ) as memory:
        memory.add_many(["one harbour", "two harbours and more"], user_id="u")
        plain = memory.search("one harbour", user_id="u").items
        assert memory.search("one harbour", user_id="u", rerank=True).items == plain[::-1]
        assert len(memory.language_model.calls) == 1  # type: ignore[attr-defined]
    with warpmem.open(embedder="hashing", reranker="judge") as memory:
        memory.add("x", user_id="u")
        with pytest.raises(InputError, match="no language model"):
            memory.search("x", user_id="u", rerank=True)


def test_objects_instead_of_names(tmp_path: Path) -> None:
    settings = Config(reranker="tei", reranker_options={"url": "http://127.0.0.1:9"}, language_model="openai")
    model = ScriptedLanguageModel(["hello"])
    with warpmem.open(
        config=settings, embedder="hashing", reranker=OverlapReranker(), language_model=model
    ) as memory:
        assert memory.language_model is model
        memory.add_many(["a b", "b c"], user_id="u")
        assert memory.search("c", user_id="u", rerank=True).items[0].text == "b c"
    with warpmem.open(config=settings, embedder="hashing", reranker="overlap") as memory:
        memory.add("c", user_id="u")
        assert len(memory.search("c", user_id="u", rerank=True)) == 1


@pytest.mark.parametrize("name", ["reranker", "language_model"])
@pytest.mark.parametrize("value", [3, object(), ScriptedLanguageModel, OverlapReranker, [], "magic"])
def test_what_is_no_model(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=name):
        warpmem.open(**{name: value})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("openai", {"url": "http://127.0.0.1:9"}, "'openai': missing a required argument: 'model'"),
        ("openai", {"url": "file:///x", "model": "m"}, "url must begin"),
        ("transformers", {"paths": 1}, "unexpected keyword argument 'paths'|missing"),
        ("scripted", {}, "missing"),
    ],
)
def test_options_are_looked_at_when_the_model_is_first_used(
    name: Any, options: dict[str, Any], message: str
) -> None:
    with warpmem.open(embedder="hashing", language_model=name, language_model_options=options) as memory:
        for _ in range(2):
            with pytest.raises(InputError, match=message):
                memory.language_model  # noqa: B018


def test_a_judge_has_no_other_model_in_its_options() -> None:
    with warpmem.open(
        embedder="hashing",
        reranker="judge",
        reranker_options={"model": "m"},
        language_model=ScriptedLanguageModel([]),
    ) as memory:
        memory.add("x", user_id="u")
        with pytest.raises(InputError, match="reranker_options of 'judge': multiple values"):
            memory.search("x", user_id="u", rerank=True)


@pytest.mark.parametrize("name", ["reranker", "language_model"])
def test_options_without_a_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"{name}_options need a {name.replace('_', ' ')} by name"):
        Config(**{f"{name}_options": {"a": 1}})
    file = tmp_path / "warpmem.toml"
    file.write_text(f'{name} = "gpt"\n')
    with pytest.raises(InputError, match=name):
        load_config(file)


def test_a_missing_package_is_named_at_first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sentence_models.model_directory(tmp_path)
    (folder / "model.onnx").touch()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    options = {"path": str(folder)}
    with warpmem.open(embedder="hashing", reranker="onnx", reranker_options=options) as memory:
        memory.add("x", user_id="u")
        with pytest.raises(MissingDependency, match=r"python -m pip install 'warpmem\[onnx\]'"):
            memory.search("x", user_id="u", rerank=True)


def test_threads_that_ask_together_get_one_model() -> None:
    made: list[object] = []

    def make() -> object:
        time.sleep(0.05)
        made.append(object())
        return made[-1]

    later = Later(make)
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: later(), range(8)))
    assert len(made) == 1 and all(one is made[0] for one in got)


def test_nothing_is_imported_before_it_is_used() -> None:
    code = """
import sys, warpmem
names = ("chat", "rerank_http", "rerank_onnx", "judge", "transformers_lm", "fakes")
loaded = lambda: [name for name in names if f"warpmem.reason.{name}" in sys.modules]
options = {"url": "http://127.0.0.1:9", "model": "m"}
with warpmem.open(embedder="hashing", reranker="onnx", language_model="openai",
                  language_model_options=options) as memory:
    memory.add("x", user_id="u")
    memory.search("x", user_id="u")
    assert not loaded(), loaded()
    memory.language_model
    assert loaded() == ["chat"], loaded()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_tokenizer_is_chosen_by_configuration(tmp_path: Path) -> None:
    sentence_models.tokenizer_json(tmp_path)
    for tokenizer in (tmp_path, tmp_path / "tokenizer.json"):
        with warpmem.open(embedder="hashing", tokenizer=str(tokenizer)) as memory:
            memory.add("ab", user_id="u")
            block = memory.context("ab", user_id="u")
            assert block.counter == "tokenizer.json"
            assert block.tokens == len(block.text.encode())  # it has a token for each byte
    for options, name in (
        ({"tokenizer": "estimate"}, "estimate"),
        ({}, "llama-2"),
        ({"tokenizer": str(tmp_path), "token_counter": EstimateTokenCounter()}, "estimate"),
    ):
        with warpmem.open(**options) as memory:
            assert memory.context("ab", user_id="u").counter == name


@pytest.mark.parametrize("value", ["", "no/such/folder", 3])
def test_a_tokenizer_that_is_not_there(value: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tokenizer"):
        warpmem.open(tmp_path / "store", embedder="hashing", tokenizer=value)
    assert not (tmp_path / "store").exists()
