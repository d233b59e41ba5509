"""examples/agent.py by its two configuration files, with the models that tests have."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import local_servers
import warpmem
from warpmem import load_config
from warpmem.embed.named import make_embedder
from warpmem.errors import DeadlineExceeded, InputError, ModelError, Overloaded
from warpmem.reason.fakes import OverlapReranker, ScriptedLanguageModel
from warpmem.reason.named import make_language_model, make_reranker

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FACT = "The user's cat is called Mottek."


@pytest.fixture(scope="module")
def agent() -> ModuleType:
    spec = importlib.util.spec_from_file_location("agent", EXAMPLES / "agent.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def facts(*found: str) -> str:
    return json.dumps({"facts": list(found)})


def test_what_was_said_is_known_the_next_time(
    agent: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models: dict[str, Any] = {"path": tmp_path / "agent.db", "reranker": OverlapReranker()}
    first = ScriptedLanguageModel(
        ["Nice.", facts(FACT, " "), "Hm.", ModelError("cannot"), ModelError("down")]
    )
    lines = ["My cat is called Mottek.\n", "\n", "It rains.\n", "Are you there?\n"]
    agent.chat(EXAMPLES / "cpu.toml", "nadia", lines, language_model=first, **models)
    assert capsys.readouterr().out == "Nice.\nHm.\n(no answer: down)\n"

    second = ScriptedLanguageModel(["Mottek.", "no JSON"])
    lines = ["? cat called Mottek", "What is my cat called?"]
    agent.chat(EXAMPLES / "cpu.toml", "nadia", lines, language_model=second, **models)
    shown = capsys.readouterr().out.splitlines()
    assert "Mottek" in shown[0] and shown[-1] == "Mottek."
    system, user = second.calls[0].messages
    assert FACT in system.content and "It rains." in system.content
    assert user.content == "What is my cat called?"

    with warpmem.open(tmp_path / "agent.db", read_only=True) as memory:
        items = memory.list(user_id="nadia").items
    assert [(item.kind, item.text) for item in items] == [
        ("message", "My cat is called Mottek."),
        ("message", "Nice."),
        ("fact", FACT),
        ("message", "It rains."),
        ("message", "Hm."),
        ("message", "Are you there?"),
        ("message", "What is my cat called?"),
        ("message", "Mottek."),
    ]
    assert items[2].sources == (items[0].id,) and items[2].trust == 0.5
    assert items[0].scope.run_id == items[1].scope.run_id != items[6].scope.run_id


def test_no_fault_of_one_line_ends_the_conversation(
    agent: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only a ModelError was met; a server with too much to do, or a line without a word, ended it."""
    model = ScriptedLanguageModel(
        [
            Overloaded("full", 2.0),
            DeadlineExceeded("late"),
            "Nice.",
            facts("\u200b"),
            "Bye.",
            Overloaded("full", 2.0),
        ]
    )
    lines = ["One.", "Two.", "\u200b", "? \u200b", "Three.", "Four."]
    agent.chat(
        EXAMPLES / "cpu.toml", "nadia", lines, path=tmp_path / "agent.db", reranker=OverlapReranker(),
        language_model=model,
    )  # fmt: skip
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "(no answer: overloaded: full; try again in 2 s)" and shown[1] == "(no answer: late)"
    assert all("no answer" in line and "token" in line for line in shown[2:4]), shown
    assert shown[4:] == ["Nice.", "Bye."]


def model_servers(handler: local_servers.Handler, payload: Any) -> None:
    """Embedder, reranker and language model at one address."""
    if handler.path == "/embed":
        local_servers.tei(handler, payload)
    elif handler.path == "/rerank":
        local_servers.tei_rerank(handler, payload)
    else:
        assert handler.path == "/v1/chat/completions"
        wanted = facts(FACT) if "response_format" in payload else "Mottek, I think."
        local_servers.chat(wanted)(handler, payload)


def test_the_same_with_every_model_behind_a_server(
    agent: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (EXAMPLES / "gpu.toml").read_text()
    with local_servers.serving(model_servers) as server:
        for port in (8000, 8001, 8002):
            text = text.replace(f"http://127.0.0.1:{port}", server.url)
        text = text.replace("agent.db", str(tmp_path / "agent.db")).replace("1024", "48")
        (tmp_path / "gpu.toml").write_text(text)
        lines = ["My cat is called Mottek.", "What is my cat called?", "? cat"]
        agent.chat(tmp_path / "gpu.toml", "nadia", lines)
        asked = server.requests
    shown = capsys.readouterr().out.splitlines()
    assert shown[:2] == ["Mottek, I think."] * 2 and FACT in "\n".join(shown[2:])
    assert {path for path, _, _ in asked} == {"/embed", "/rerank", "/v1/chat/completions"}
    chats = [payload for path, payload, _ in asked if path == "/v1/chat/completions"]
    assert [payload["model"] for payload in chats] == ["Qwen/Qwen3-8B"] * 4
    assert FACT in chats[2]["messages"][0]["content"]


def test_the_files_name_models_and_options_that_there_are() -> None:
    gpu = load_config(EXAMPLES / "gpu.toml")
    assert gpu.embedder is not None and gpu.reranker is not None and gpu.language_model is not None
    assert make_embedder(gpu.embedder, gpu.embedder_options).dimension == 1024
    make_reranker(gpu.reranker, gpu.reranker_options, lambda: ScriptedLanguageModel([]))
    make_language_model(gpu.language_model, gpu.language_model_options)
    cpu = load_config(EXAMPLES / "cpu.toml")
    assert cpu.reranker is not None and cpu.language_model is not None
    with pytest.raises(InputError, match="ms-marco-MiniLM-L6-v2' is no model directory"):
        make_reranker(cpu.reranker, cpu.reranker_options, lambda: ScriptedLanguageModel([]))
    with pytest.raises(InputError, match="gguf' is neither a GGUF file nor a directory"):
        make_language_model(cpu.language_model, cpu.language_model_options)
