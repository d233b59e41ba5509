"""The commands context, get, value, history, timeline, update and delete."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import warpmem
from commands import err, json_lines, out, stdin

SPRING, SUMMER = "2026-04-01T00:00:00+00:00", "2026-07-01T00:00:00+00:00"


@pytest.fixture
def cities(store: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """The ids of what a key had and has."""
    added = ("add", "--user", "nadia", "--key", "city", "--valid-from")
    first, second = (
        out(capsys, *added, when, f"Nadia lives in {city}").split()[0]
        for city, when in (("Porto", SPRING), ("Lisbon", SUMMER))
    )
    return first, second


def test_get(cities: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    item = out(
        capsys, "add", "one\n\x1b[2Jtwo", "--user", "nadia", "--run", "r", "--metadata", '{"a": [1]}',
        "--entities", "Ada, tea",
    ).split()[0]  # fmt: skip
    lines = out(capsys, "get", item, "--user", "nadia").splitlines()
    assert lines[0] == f"id              {item}"
    assert {'metadata        {"a":[1]}', "run_id          r", "entities        Ada, tea"} <= set(lines)
    assert lines[-3:] == ["text", "  one", "  [2Jtwo"]
    assert not any("sources" in line for line in lines)
    shown = json_lines(out(capsys, "get", *cities, "--json"))
    assert [(each["id"], each["text"][-6:]) for each in shown] == [
        (cities[0], " Porto"), (cities[1], "Lisbon"),
    ]  # fmt: skip
    assert out(capsys, "get", *cities).count("\n\n") == 1
    assert err(capsys, "get", item, "--user", "bob", code=1) == (
        "warpmem: NotFound: no such item in this scope\n"
    )


def test_value(cities: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    of = ("value", "city", "--user", "nadia")
    assert out(capsys, *of) == f"{cities[1]}  fact, 2026-07-01: city = Nadia lives in Lisbon\n"
    (then,) = json_lines(out(capsys, *of, "--as-of", "2026-05-01T00:00:00Z", "--json"))
    assert then["id"] == cities[0]
    before = err(capsys, *of, "--as-of", "2025-05-01T00:00:00Z", code=1)
    assert before == "warpmem: NotFound: this key has no value in exactly this scope then\n"
    assert "NotFound" in err(capsys, "value", "city", "--user", "nadia", "--run", "r", code=1)
    assert "InvalidScope" in err(capsys, "value", "city", code=1)


def test_history(cities: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    out(capsys, "update", cities[0], "--text", "Nadia lived in Porto")
    out(capsys, "delete", cities[0], "--user", "nadia")
    lines = out(capsys, "history", cities[0]).splitlines()
    told = [line.partition("  ")[2] for line in lines]
    then = "fact, 2026-04-01 to 2026-07-01: city = Nadia"
    assert told == [
        "add, version 1: fact, 2026-04-01: city = Nadia lives in Porto",
        f"close (its key has a newer value), version 2: {then} lives in Porto",
        f"update, version 3: {then} lived in Porto",
        "delete",
    ]
    versions = json_lines(out(capsys, "history", cities[0], "--json"))
    assert [each["operation"] for each in versions] == ["add", "close", "update", "delete"]
    assert versions[2]["item"]["version"] == 3
    assert [each.get("reason") for each in versions] == [None, "its key has a newer value", None, None]
    assert set(versions[3]) == {"operation", "at"}
    assert "NotFound" in err(capsys, "history", cities[0], "--user", "bob", code=1)


def test_timeline(cities: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    out(capsys, "add", "Likes tea", "--user", "nadia", "--valid-from", SPRING, "--kind", "preference")
    of = ("timeline", "--user", "nadia")
    porto, lisbon = out(capsys, *of, "--key", "city").splitlines()
    assert porto == f"{cities[0]}  fact, 2026-04-01 to 2026-07-01: city = Nadia lives in Porto"
    assert lisbon.startswith(cities[1])
    assert out(capsys, *of, "--key", "city", "--reverse").splitlines() == [lisbon, porto]
    assert out(capsys, *of, "--key", "city", "--since", "2026-08-01T00:00:00Z").splitlines() == [lisbon]
    assert out(capsys, *of, "--key", "city", "--until", "2026-05-01T00:00:00Z").splitlines() == [porto]
    assert out(capsys, *of, "--kinds", "preference").count("Likes tea") == 1
    first, more = json_lines(out(capsys, *of, "--kinds", "fact", "--limit", "1", "--json"))
    assert first["id"] == cities[0]
    (second,) = json_lines(out(capsys, *of, "--kinds", "fact", "--cursor", more["cursor"], "--json"))
    assert second["id"] == cities[1]


def test_context(cities: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of = ("context", "where does Nadia live?", "--user", "nadia")
    with warpmem.open(tmp_path / "store", read_only=True) as memory:
        expected = memory.context("where does Nadia live?", user_id="nadia").text
    assert expected.count(cities[1]) == 1
    assert out(capsys, *of) == f"{expected}\n"
    block = json.loads(out(capsys, *of, "--json", "--cite", "number", "--mode", "hybrid"))
    assert (block["citations"], block["max_tokens"]) == ([cities[1]], 1000)
    assert "[1] Nadia lives in Lisbon" in block["text"]
    assert out(capsys, *of, "--max-tokens", "5") == ""
    assert cities[0] in out(capsys, *of, "--as-of", "2026-05-01T00:00:00Z")
    assert out(capsys, *of, "--kinds", "event") == ""
    long = " ".join(f"Sentence {i} speaks of stones." for i in range(200)) + " The cat is called Mottek."
    out(capsys, "add", long, "--user", "tom")
    of_tom = ("context", "cat Mottek", "--user", "tom", "--max-tokens", "200")
    assert out(capsys, *of_tom) == ""
    shown = out(capsys, *of_tom, "--compress", "sentences")
    assert "The cat is called Mottek." in shown and "Sentence 100" not in shown
    assert "InputError: max_tokens" in err(capsys, *of, "--max-tokens", "0", code=1)


def test_update(store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    item = out(capsys, "add", "Nadia lives in Rome", "--user", "nadia").split()[0]
    assert out(capsys, "update", item, "--text", "Nadia lives in Faro", "--user", "nadia") == (
        f"{item} version 2\n"
    )
    stdin(monkeypatch, "Nadia lives\nin Évora\n".encode())
    changes = (
        "--text", "-", "--metadata", '{"a": 1}', "--priority", "0.75", "--trust", "0.9", "--entities", "Ada",
        "--valid-from", "2026-08-01T00:00:00Z", "--valid-to", "2030-01-01T00:00:00Z", "--expires-at",
        "2031-01-01T00:00:00Z", "--expected-version", "2",
    )  # fmt: skip
    assert out(capsys, "update", item, *changes) == f"{item} version 3\n"
    (now,) = json_lines(out(capsys, "get", item, "--json"))
    assert {name: now[name] for name in ("text", "metadata", "priority", "trust", "entities")} == {
        "text": "Nadia lives\nin Évora", "metadata": {"a": 1}, "priority": 0.75, "trust": 0.9,
        "entities": ["Ada"],
    }  # fmt: skip
    assert (now["valid_from"][:10], now["valid_to"][:10], now["expires_at"][:10]) == (
        "2026-08-01", "2030-01-01", "2031-01-01",
    )  # fmt: skip
    out(capsys, "update", item, "--valid-to", "none", "--expires-at", "none", "--entities", "")
    (now,) = json_lines(out(capsys, "get", item, "--json"))
    assert "valid_to" not in now and "expires_at" not in now
    assert (now["metadata"], now["entities"]) == ({"a": 1}, [])
    conflict = err(capsys, "update", item, "--priority", "1", "--expected-version", "2", code=1)
    assert "VersionConflict" in conflict
    assert "nothing to change" in err(capsys, "update", item, code=2)
    assert "NotFound" in err(capsys, "update", item, "--priority", "1", "--user", "bob", code=1)
    assert json_lines(out(capsys, "get", item, "--json"))[0]["version"] == now["version"]


def test_delete(cities: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    first, second = cities
    assert "NotFound" in err(capsys, "delete", first, "--user", "bob", code=1)
    assert out(capsys, "delete", first, "--user", "nadia") == f"{first} deleted\n"
    assert "NotFound" in err(capsys, "delete", first, code=1)
    for i in range(3):
        out(capsys, "add", f"note {i}", "--user", "nadia", "--run", "r")
    assert out(capsys, "delete", "--all", "--user", "nadia", "--run", "r") == "3 deleted\n"
    assert [line["id"] for line in json_lines(out(capsys, "list", "--user", "nadia", "--json"))] == [second]
    assert "InvalidScope" in err(capsys, "delete", "--all", code=1)
    for ids in ((), (second, "--all")):
        assert "name ids, or --all" in err(capsys, "delete", *ids, "--user", "nadia", code=2)
    for option in (("--kinds", "message"), ("--filter", "{}")):
        assert "goes with --all" in err(capsys, "delete", second, *option, "--user", "nadia", code=2)
    assert json_lines(out(capsys, "list", "--user", "nadia", "--json"))


@pytest.mark.parametrize("command", ["update", "delete"])
def test_no_store_is_made(store: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = store.parent / "elsewhere"
    given = ("--text", "a") if command == "update" else ()
    error = err(capsys, command, "0" * 32, *given, "--store", str(elsewhere), code=3)
    assert error.startswith("warpmem: FormatError: there is no store at")
    assert not elsewhere.exists()
