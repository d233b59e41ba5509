"""The commands entities and relations."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

import warpmem
from commands import err, json_lines, out

SPRING, SUMMER = datetime(2026, 4, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)


@pytest.fixture
def told(store: Path) -> Path:
    with warpmem.open(store) as memory:
        memory.add("Ada likes tea", user_id="u", entities=["Ada", "tea"], valid_from=SPRING)
        memory.name_entity("Ada Lovelace", aliases=["Ada"], kind="person", user_id="u", valid_from=SPRING)
        for city, when in (("Paris", SPRING), ("Rome", SUMMER)):
            memory.relate("Ada", "lives in", city, functional=True, user_id="u", valid_from=when)
    return store


def test_entities(told: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert out(capsys, "entities", "--user", "u").splitlines() == [
        "Ada Lovelace (person), also Ada: 2 items, 2026-04-01 to 2026-07-01",
        "Rome: 1 items, 2026-07-01 to 2026-07-01",
        "tea: 1 items, 2026-04-01 to 2026-04-01",
    ]
    first, more = json_lines(out(capsys, "entities", "--user", "u", "--limit", "1", "--json"))
    assert (first["name"], first["aliases"], first["items"]) == ("Ada Lovelace", ["Ada"], 2)
    assert out(capsys, "entities", "--user", "u", "--limit", "1", "--cursor", more["cursor"]).startswith(
        "Rome: 1"
    )
    assert out(capsys, "entities", "--user", "u", "--query", "a cup of TEA").count("\n") == 1
    assert "Paris" in out(capsys, "entities", "--user", "u", "--as-of", "2026-05-01T00:00:00Z")
    assert out(capsys, "entities", "--user", "nobody") == ""
    assert "InvalidScope" in err(capsys, "entities", code=1)


def test_relations(told: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = out(capsys, "relations", "ADA", "--user", "u").splitlines()
    assert line[34:] == "2026-07-01: Ada Lovelace | lives in | Rome"
    past = out(capsys, "relations", "--user", "u", "--include-past", "--limit", "1").splitlines()
    assert past[0][34:] == "2026-04-01 to 2026-07-01: Ada Lovelace | lives in | Paris"
    assert past[1].startswith("more: --cursor ")
    (found,) = json_lines(
        out(
            capsys,
            "relations",
            "--user",
            "u",
            "--predicate",
            "LIVES IN",
            "--as-of",
            "2026-05-01T00:00:00Z",
            "--json",
        )
    )
    assert (found["subject"], found["object"], found["sources"]) == ("Ada Lovelace", "Paris", [])
    assert out(capsys, "relations", "--user", "u", "--predicate", "knows") == ""


def test_added_names_count_in_a_search(told: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out(capsys, "add", "Writes programs", "--user", "u", "--entities", "Ada, engine")
    shown = out(capsys, "search", "ada's engine", "--user", "u", "--entities", "2", "--k", "1", "--explain")
    assert "Writes programs" in shown and "2 x entities 1.0000" in shown
