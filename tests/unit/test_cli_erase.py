"""The command erase."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import warpmem
from commands import err, json_lines, out


def test_erase_by_id_and_by_scope(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cat = out(capsys, "add", "Has a cat", "--user", "ann").split()[0]
    out(capsys, "add", "Has a dog", "--user", "ann")
    out(capsys, "add", "Has a bird", "--user", "bob")
    printed = out(capsys, "erase", cat, "--user", "ann")
    assert "items           1\n" in printed and "checkpoint      none\n" in printed
    assert [item["text"] for item in json_lines(out(capsys, "list", "--user", "ann", "--json"))] == [
        "Has a dog"
    ]
    receipt = json.loads(out(capsys, "erase", "--all", "--user", "ann", "--json"))
    assert (receipt["items"], receipt["owners"], receipt["backups"]) == (1, 1, [])
    assert out(capsys, "list", "--user", "ann") == ""
    assert "Has a bird" in out(capsys, "list", "--user", "bob")
    assert b"Has a cat" not in b"".join(file.read_bytes() for file in store.iterdir())


def test_past_versions_are_named(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with warpmem.open(store, embedder="hashing") as memory:
        one, two = (memory.add(text, user_id="ann").id for text in ("one", "two"))
        item_id = memory.add("Has a cat", user_id="ann", sources=[one]).id
        memory.update(item_id, text="Has a dog", sources=[two])
    assert f"versions        {item_id}:1\n" in out(capsys, "erase", one, "--user", "ann")


def test_refusals(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = store.parent / "elsewhere"
    assert "no store" in err(capsys, "erase", "--all", "--user", "ann", "--store", str(elsewhere), code=3)
    assert not elsewhere.exists()
    cat = out(capsys, "add", "Has a cat", "--user", "ann").split()[0]
    assert "nothing was erased" in err(capsys, "erase", cat, "--user", "bob", code=1)
    assert "whose memory" in err(capsys, "erase", "--all", code=1)
    for ids in ((), (cat, "--all")):
        assert "name ids, or --all" in err(capsys, "erase", *ids, "--user", "ann", code=2)
    assert "Has a cat" in out(capsys, "list", "--user", "ann")
