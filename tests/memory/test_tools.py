"""One scope's memories as tools of a language model, whose every word is untrusted."""

from __future__ import annotations

import json
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import warpmem
from warpmem import Memory, Scope
from warpmem.errors import InputError, NotFound, StoreClosed
from warpmem.integrations.tools import MemoryTools
from warpmem.ops.clock import FixedClock
from warpmem.ops.jsonschema import Violation, compile_json_schema

NADIA = Scope(user_id="nadia")


def said(tools: MemoryTools, name: str, **arguments: Any) -> Any:
    return json.loads(tools.call(name, json.dumps(arguments)))


def test_what_is_remembered_is_recalled_looked_up_corrected_and_forgotten(
    memory: Memory, clock: FixedClock
) -> None:
    tools = MemoryTools(memory, NADIA)
    first = said(tools, "remember", text="Nadia lives in Porto.", key="home_city")
    clock.advance(timedelta(days=1))
    second = said(tools, "remember", text="Nadia lives in Lisbon.", key="home_city")
    assert (first["action"], second["action"]) == ("added", "superseded")
    value = said(tools, "look_up", key="home_city")["value"]
    assert value["id"] == second["id"] and value["text"] == "Nadia lives in Lisbon."
    then = memory.get(first["id"]).valid_from.isoformat()
    assert said(tools, "look_up", key="home_city", as_of=then)["value"]["id"] == first["id"]
    assert said(tools, "look_up", key="work") == {"value": None}
    recalled = tools.call("recall", {"query": "where does Nadia live"})
    assert f"[{second['id']}] Nadia lives in Lisbon." in recalled and first["id"] not in recalled
    assert said(tools, "correct", id=second["id"], text="Nadia lives in Faro.")["version"] == 2
    assert memory.get(second["id"]).text == "Nadia lives in Faro."
    said(tools, "forget", id=second["id"])
    assert memory.get_many([second["id"]]) == (None,)
    assert tools.call("recall", {"query": "where does Nadia live"}) == "Nothing is remembered about this."
    assert [item.operation for item in memory.history(second["id"])] == ["add", "update", "delete"]


def test_what_is_no_memory_is_refused(memory: Memory) -> None:
    """An AsyncMemory was taken, and the first call told of an attribute of a coroutine."""
    with pytest.raises(
        InputError, match=r"not AsyncMemory: pass its \.memory, and call .* asyncio.to_thread"
    ):
        MemoryTools(warpmem.AsyncMemory(memory), NADIA)  # type: ignore[arg-type]
    for wrong in ("memory.db", None, Memory):
        for make in (lambda wrong: MemoryTools(wrong, NADIA), warpmem.AsyncMemory):
            with pytest.raises(InputError, match=r"as warpmem\.open\(\) gives it, not (str|NoneType|type)$"):
                make(wrong)


def test_what_a_model_was_talked_into_is_taken_back_by_its_source(memory: Memory) -> None:
    item = memory.get(
        said(
            MemoryTools(memory, NADIA, source="chat-7", trust=0.8),
            "remember", text="The bank is at evil.example.",
        )["id"]
    )  # fmt: skip
    assert item.sources == ("chat-7",) and item.trust == 0.8
    tools = MemoryTools(memory, NADIA, source="chat-7")
    mine = memory.add("Nadia likes tea.", user_id="nadia", sources=["web:tea"])
    said(tools, "correct", id=mine.id, text="Nadia likes poison.")
    said(tools, "correct", id=mine.id, text="Nadia likes much poison.")
    assert memory.get(mine.id).sources == ("web:tea", "chat-7")
    memory.revoke("chat-7")
    assert tools.call("recall", {"query": "bank, poison"}) == "Nothing is remembered about this."


def test_what_is_trusted_more_than_the_model_is_neither_corrected_nor_forgotten(memory: Memory) -> None:
    tools = MemoryTools(memory, NADIA, trust=0.2)
    trusted = memory.add("Nadia likes tea.", user_id="nadia")
    doubted = memory.add("Nadia likes mud.", user_id="nadia", trust=0.1)
    for name, arguments in (("correct", {"text": "Nadia likes poison."}), ("forget", {})):
        assert "error" in said(tools, name, id=trusted.id, **arguments)
        assert memory.get(trusted.id).text == "Nadia likes tea."
    said(tools, "correct", id=doubted.id, text="Nadia likes rain.")
    assert memory.get(doubted.id).trust == 0.1
    added = said(tools, "remember", text="Nadia likes poison.")
    assert memory.get(added["id"]).quarantined
    assert "poison" not in tools.call("recall", {"query": "what does Nadia like?"})
    said(tools, "forget", id=added["id"])
    assert memory.get_many([added["id"]]) == (None,)


def test_no_argument_names_another_scope_source_or_trust(memory: Memory) -> None:
    tools = MemoryTools(memory, NADIA)
    theirs = memory.add("Ann's secret", user_id="ann")
    for name, arguments in (
        ("correct", {"id": theirs.id, "text": "x"}),
        ("forget", {"id": theirs.id}),
        ("remember", {"text": "x", "user_id": "ann"}),
        ("remember", {"text": "x", "trust": 1.0}),
        ("remember", {"text": "x", "sources": []}),
        ("recall", {"query": "secret", "scopes": [{"user_id": "ann"}]}),
        ("erase", {"user_id": "ann"}),
    ):
        assert list(said(tools, name, **arguments)) == ["error"], name
        with pytest.raises((InputError, NotFound)):
            tools.attempt(name, arguments)
    assert memory.get(theirs.id).text == "Ann's secret"
    assert memory.count(user_id="nadia") == 0
    assert "secret" not in tools.call("recall", {"query": "secret"})


def test_the_definitions_say_what_is_taken(memory: Memory) -> None:
    tools = MemoryTools(memory, NADIA)
    assert [tool.name for tool in tools.definitions] == ["recall", "look_up", "remember", "correct", "forget"]
    assert [tool.writes for tool in tools.definitions] == [False, False, True, True, True]
    checks = {tool.name: compile_json_schema(tool.parameters, tool.name) for tool in tools.definitions}
    for tool in tools.definitions:
        assert tool.description and "\n" not in tool.description
        assert tool.openai()["function"]["parameters"] is tool.parameters
        assert tool.anthropic()["input_schema"] is tool.parameters
        assert json.loads(json.dumps(tool.openai()))["type"] == "function"
    given = {"text": "x", "kind": "preference", "key": None, "valid_from": "2026-01-01T00:00:00Z"}
    checks["remember"](given, "")
    assert memory.get(said(tools, "remember", **given)["id"]).kind == "preference"
    for wrong in ({}, {"text": ""}, {"text": 7}, {"text": "x", "kind": "law"}, {"text": "x", "more": 1}):
        with pytest.raises(Violation):
            checks["remember"](wrong, "")
        assert "error" in said(tools, "remember", **wrong)
    reading = MemoryTools(memory, NADIA, read_only=True)
    assert [tool.name for tool in reading.definitions] == ["recall", "look_up"]
    assert "error" in said(reading, "remember", text="x")


@pytest.mark.parametrize(
    "arguments",
    ["", "{", "null", "[]", '"text"', '{"text": "\\ud800"}', b"\xff", '{"text": "x", "valid_from": "soon"}',
     '{"text": "x", "valid_from": "2026-01-01T00:00:00"}', "[" * 100_000, '{"text": 1e999}', None, 7, [],
     "{}{}", json.dumps({"text": "x" * (1 << 21)}), '{"text": " "}', {"text": "\ud800"}, {1: 2}],
)  # fmt: skip
def test_what_is_wrong_is_told_and_stores_nothing(memory: Memory, arguments: Any) -> None:
    tools = MemoryTools(memory, NADIA)
    assert list(json.loads(tools.call("remember", arguments))) == ["error"]
    assert memory.count(user_id="nadia") == 0


def test_random_arguments_never_break_out(memory: Memory) -> None:
    tools = MemoryTools(memory, NADIA)
    known = memory.add("one item", user_id="nadia")
    pick = random.Random(3)
    values = [None, "", "x", 7, -1.5, True, [], {}, known.id, "2026-01-01T00:00:00Z", "0" * 32, "\0"]
    names = ["query", "text", "id", "key", "as_of", "kind", "valid_from", "more"]
    told = 0
    for _ in range(500):
        arguments = {name: pick.choice(values) for name in pick.sample(names, pick.randrange(4))}
        tool = pick.choice(["recall", "look_up", "remember", "correct", "forget", "", "drop"])
        told += "error" in tools.call(tool, arguments)
    assert 0 < told < 500
    assert memory.owners() == (NADIA,)


def test_the_owner_s_mistakes_are_errors(memory: Memory, tmp_path: Path) -> None:
    for wrong in (
        {"scope": "nadia"}, {"source": ""}, {"source": 7}, {"trust": 2}, {"trust": "all"}, {"trust": None},
        {"mode": "x"}, {"k": 0}, {"max_tokens": 0}, {"max_tokens": "many"},
    ):  # fmt: skip
        with pytest.raises(InputError):
            MemoryTools(memory, **{"scope": NADIA, **wrong})  # type: ignore[arg-type]
    with warpmem.open(tmp_path / "m", embedder="hashing") as other:
        tools = MemoryTools(other, NADIA)
    with pytest.raises(StoreClosed):
        tools.call("recall", {"query": "x"})
