"""A Memory where agents are made with other packages: LangGraph, LangMem, the Model Context Protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real


def test_a_store_of_langgraph(run_agents: Any, tmp_path: Path) -> None:
    report = run_agents("langgraph_store.py", tmp_path)
    assert all(count > 40 for count in report["counts"].values()), report["counts"]
    refused = ["InputError"] * 3 + ["InvalidNamespaceError"] + ["InputError"] * 7
    assert report["refused"] == [*refused, "InvalidMetadata", "InvalidMetadata", "InputError"]
    assert report["created"] and report["updated"] == ["Eve likes coffee.", True] and report["deleted"]
    assert report["found"] == ["Eve likes coffee."]
    assert report["timeline"] == ["Eve likes tea at the harbour.", "Eve likes coffee."]
    assert report["unindexed"] == ["plain"] and report["hidden"] == {"text": "tea in secret"}
    assert report["several"] == 50
    assert report["touched"] == [1, 1, 2]
    assert report["ttl"] == {"gone": True, "kept": True, "renewed": True, "left": ["read"]}
    assert report["graph"] == "tea at the harbour"
    assert report["short"] == {"text": "tea"}
    assert report["kept"] == {"text": "tea in winter"}


def test_tools_over_the_model_context_protocol(run_agents: Any, tmp_path: Path) -> None:
    report = run_agents("mcp_client.py", tmp_path)
    assert report["tools"] == ["recall", "look_up", "remember", "correct", "forget"]
    assert report["writes"] == [False, False, True, True, True]
    first, second = (json.loads(report[name]["text"]) for name in ("remembered", "moved"))
    assert first["action"] == "added" and second["action"] == "superseded"
    assert json.loads(report["value"]["text"])["value"]["text"] == "Nadia lives in Lisbon."
    assert "Nadia lives in Lisbon." in report["recalled"]["text"]
    assert report["wrong"]["error"] and report["unknown"]["error"]
    assert report["together"] == 20
    assert report["reader"] == ["recall", "look_up"] and report["read"] == report["value"]
    assert report["refused"]["error"]
    assert report["theirs"] == {"error": False, "text": "Nothing is remembered about this."}
    assert report["forgotten"]["error"]
    assert report["stored"] == 21 and report["sources"] == ["desk"]
