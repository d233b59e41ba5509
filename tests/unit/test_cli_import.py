"""What an import makes of lines: the ends of items, the kinds of messages, and lines it refuses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import warpmem
from commands import json_lines, out
from warpmem import AddResult, Memory
from warpmem.cli import main
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import EmbeddingError

AT = [datetime(2025, month, 1, tzinfo=UTC) for month in range(1, 13)]
TIMES = ("valid_from", "valid_to", "expires_at")


def add(memory: Memory, text: str, begins: int, key: str | None = None, ends: int | None = None) -> str:
    valid_to = None if ends is None else AT[ends]
    result = memory.add(text, user_id="u", key=key, valid_from=AT[begins], valid_to=valid_to)
    assert isinstance(result, AddResult)
    return result.id


def past(capsys: pytest.CaptureFixture[str], store: Path) -> list[tuple[Any, ...]]:
    """(text, key, times) of the exported lines, in their order."""
    lines = json_lines(out(capsys, "export", "--store", str(store)))
    return [(line["text"], line.get("key"), *(line.get(name) for name in TIMES)) for line in lines]


def import_lines(store: Path, *lines: dict[str, Any], options: tuple[str, ...] = ()) -> int:
    file = store.with_name("lines.jsonl")
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return main(["import", str(file), "--store", str(store), *options])


# -------------------------------------------------------------------------------- the ends of items


@pytest.mark.parametrize("batch", ["1", "2", "500"])
def test_ends_come_back(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], batch: str) -> None:
    with warpmem.open(store) as memory:
        add(memory, "plan S", 0, "plan")
        add(memory, "plan M", 2, "plan")
        deleted = add(memory, "plan L", 5, "plan")  # leaves plan M ended, and nothing after it
        memory.delete(deleted)
        add(memory, "in Porto", 0, "city")
        add(memory, "in Berlin", 6, "city")
        add(memory, "in Lisbon", 3, "city")  # recorded late, between the two
        add(memory, "trial", 1, "trial", ends=2)
        add(memory, "trial", 4, "trial")
        corrected = add(memory, "reads novels", 0)
        memory.update(corrected, valid_to=AT[4])
        add(memory, "reads novels", 7)
        add(memory, "never true", 3, ends=3)
        longer = add(memory, "rents a shop", 0, "shop")
        memory.update(longer, valid_to=AT[9])
    expected = past(capsys, store)
    found = {text: (begins, ends) for text, _, begins, ends, _ in expected}
    assert found["plan M"] == ("2025-03-01T00:00:00Z", "2025-06-01T00:00:00Z")
    assert found["rents a shop"] == ("2025-01-01T00:00:00Z", "2025-10-01T00:00:00Z")
    file, other = tmp_path / "export.jsonl", tmp_path / "other"
    out(capsys, "export", str(file))
    warpmem.open(other, embedder="hashing").close()
    for again, said in (
        ((), "imported 11 lines (added 11);"),
        ((), "imported 0 lines, passed over 12 that were imported before;"),
        (("--again",), "imported 11 lines (added 11);"),  # told by each line's key, and adds nothing either
    ):
        assert main(["import", str(file), "--store", str(other), "--batch", batch, *again]) == 0
        assert said in capsys.readouterr().err
        assert past(capsys, other) == expected
    with warpmem.open(other, read_only=True) as memory:
        assert [change.operation for change in memory.changes()] == ["add"] * 11


@pytest.mark.parametrize("batch", ["1", "500"])
def test_a_newer_export_ends_what_an_older_one_left_open(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], batch: str
) -> None:
    file, other = tmp_path / "export.jsonl", tmp_path / "other"
    warpmem.open(other, embedder="hashing").close()
    with warpmem.open(store) as memory:
        ends = add(memory, "reads novels", 0)
        add(memory, "in Porto", 0, "city")
        add(memory, "sings", 0)
    for count in (3, 5):
        out(capsys, "export", str(file))
        for _ in range(2):  # the second import adds nothing
            assert main(["import", str(file), "--store", str(other), "--batch", batch]) == 0
            assert sorted(past(capsys, other), key=str) == sorted(past(capsys, store), key=str)
            assert len(past(capsys, other)) == count
        if count == 3:
            with warpmem.open(store) as memory:
                memory.update(ends, valid_to=AT[4])
                memory.delete(add(memory, "in Berlin", 6, "city"))
                add(memory, "reads novels", 7)
                add(memory, "in Lisbon", 8, "city")


def test_a_plain_line_ends_the_item_that_it_repeats(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with warpmem.open(store) as memory:
        add(memory, "rents a flat", 0)
    line = {"text": "rents a flat", "user_id": "u", "valid_to": "2999-01-01T00:00:00Z"}
    assert import_lines(store, line) == 0
    assert "(touched 1)" in capsys.readouterr().err
    assert [entry[3] for entry in past(capsys, store)] == ["2999-01-01T00:00:00Z"]


def test_an_end_that_is_not_taken_over_is_reported(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = {"text": "swims", "user_id": "u", "valid_from": "2025-01-01T00:00:00Z"}
    shorter = {**line, "valid_from": "2025-03-01T00:00:00Z", "valid_to": "2025-04-01T00:00:00Z"}
    note = "repeats an item that is valid longer; its end stays as it is"
    # Two items of one export: the second is no correction of the first.
    assert import_lines(store, {**line, "id": "a"}, {**shorter, "id": "b"}) == 0
    assert f"warpmem: line 2: {note}\n" in capsys.readouterr().err
    assert [entry[2:4] for entry in past(capsys, store)] == [(line["valid_from"], None)]
    # An end that is known already, and a repetition within it.
    runs = {**line, "text": "runs", "valid_to": "2025-09-01T00:00:00Z"}
    assert import_lines(store, runs) == 0
    capsys.readouterr()
    assert import_lines(store, {**shorter, "text": "runs"}) == 0
    assert f"warpmem: line 1: {note}\n" in capsys.readouterr().err
    assert past(capsys, store)[-1][3] == "2025-09-01T00:00:00Z"


def test_a_repetition_that_ends_no_earlier_is_not_reported(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = {"text": "runs", "user_id": "u", "valid_from": "2025-01-01T00:00:00Z"}
    line["valid_to"] = "2025-09-01T00:00:00Z"
    assert import_lines(store, line, line) == 0
    error = capsys.readouterr().err
    assert error == ("imported 2 lines (added 1, touched 1); 0 items in the store before, 1 after\n")
    assert len(past(capsys, store)) == 1


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (("2025-02-01T00:00:00Z", "2025-01-01T00:00:00Z"), "valid_to lies before valid_from"),
        (("2025-02-01T00:00:00+00:00", "2025-02-01T00:00:00+01:00"), "valid_to lies before valid_from"),
        ((None, "2025-01-01T00:00:00Z"), "valid_to lies before valid_from"),
        (("2025-01-01T00:00:00Z", "2025-02-01T00:00:00"), "valid_to is a naive datetime"),
        (("2025-01-01T00:00:00Z", "9999-12-31T23:59:59-05:00"), "valid_to lies outside the years 1 to 9999"),
        (("0001-01-01T00:00:00+05:00", None), "valid_from lies outside the years 1 to 9999"),
    ],
)
@pytest.mark.parametrize("key", [None, "k"])
def test_times_that_are_refused(
    store: Path,
    capsys: pytest.CaptureFixture[str],
    times: tuple[str | None, str | None],
    message: str,
    key: str | None,
) -> None:
    bad = {"text": "x", "user_id": "u", "key": key, "valid_from": times[0], "valid_to": times[1]}
    lines = [{"text": "before", "user_id": "u"}, bad, {"text": "after", "user_id": "u"}]
    assert import_lines(store, *lines) == 1
    assert capsys.readouterr().err.startswith(f"warpmem: InvalidTime: line 2: {message}")
    assert [entry[0] for entry in past(capsys, store)] == ["before"]
    assert import_lines(store, *lines, options=("--skip-errors",)) == 0
    assert capsys.readouterr().err.startswith(f"warpmem: InvalidTime: line 2: {message}")
    assert [entry[0] for entry in past(capsys, store)] == ["before", "after"]


def test_bad_times_are_found_before_anything_of_the_batch_is_embedded(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a line that parsing refuses must not reach the store")

    monkeypatch.setattr(Memory, "add_many", refuse)
    bad = {"text": "x", "user_id": "u", "valid_from": "2025-02-01T00:00:00Z"}
    assert import_lines(store, {**bad, "valid_to": "2025-01-01T00:00:00Z"}) == 1
    assert "InvalidTime: line 1: valid_to lies before valid_from" in capsys.readouterr().err


# ------------------------------------------------------------------------------- kinds, hostile lines


@pytest.mark.parametrize(("options", "kind"), [((), "message"), (("--kind", "event"), "event")])
def test_kind_of_messages(
    store: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], kind: str
) -> None:
    message = {"role": "user", "content": "hello", "user_id": "u"}
    named = {"text": "rule", "user_id": "u", "kind": "procedure"}
    assert import_lines(store, message, named, options=options) == 0
    capsys.readouterr()
    found = json_lines(out(capsys, "list", "--user", "u", "--json"))
    assert [(item["text"], item["kind"]) for item in found] == [("hello", kind), ("rule", "procedure")]
    assert found[0]["metadata"] == {"role": "user"}


def test_help_says_that_kind_is_for_messages_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert "all chat messages included" in " ".join(out(capsys, "import", "--help").split())


@pytest.mark.parametrize(("is_down", "code"), [(False, 0), (True, 1)])
def test_skipping_what_a_model_fails_at(
    store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    is_down: bool,
    code: int,
) -> None:
    """One text that it failed at ended the import, as a model that is down does."""
    embed = HashingEmbedder.embed

    def fail(self: HashingEmbedder, texts: Sequence[str], **options: Any) -> Any:
        if is_down or any("indigestible" in text for text in texts):
            raise EmbeddingError("no vector")
        return embed(self, texts, **options)

    monkeypatch.setattr(HashingEmbedder, "embed", fail)
    file = tmp_path / "in.jsonl"
    file.write_text("".join(f'{{"text": "{text}"}}\n' for text in ("one", "indigestible", "two")))
    assert main(["import", str(file), "--user", "u", "--skip-errors"]) == code
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"warpmem: EmbeddingError: line {1 if is_down else 2}: no vector"
    assert said[1].startswith("imported 0 lines; " if is_down else "imported 2 lines (added 2), skipped 1; ")
    monkeypatch.undo()
    monkeypatch.setenv("WARPMEM_STORE", str(store))
    assert main(["import", str(file), "--user", "u"]) == 0
    assert len(out(capsys, "list", "--user", "u").splitlines()) == 3


@pytest.mark.parametrize(
    "around", ['{"text": "x", "metadata": {"a": %s}}', '{"role": "u", "content": %s}', "%s"]
)
@pytest.mark.parametrize("depth", [300, 5_000, 200_000])
def test_deeply_nested_lines(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], around: str, depth: int
) -> None:
    file = tmp_path / "in.jsonl"
    nested = around % ("[" * depth + "]" * depth)
    file.write_text(f'{{"text": "one"}}\n{nested}\n{{"text": "two"}}\n')
    assert main(["import", str(file), "--user", "u"]) == 1
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 2
    assert ": line 2: " in error[0]
    assert main(["import", str(file), "--user", "u", "--skip-errors"]) == 0
    said = "imported 1 lines (added 1), skipped 1, passed over 1 that were imported before; "
    assert said in capsys.readouterr().err
    assert len(out(capsys, "list", "--user", "u").splitlines()) == 2
