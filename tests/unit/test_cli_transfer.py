"""export and import: everything comes back, bad lines stop with their number, twice adds nothing twice."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

import warpmem
from commands import err, json_lines, out, stdin
from warpmem import NewItem, Scope
from warpmem.cli import main
from warpmem.cli.progress import Progress
from warpmem.memory import exporting
from warpmem.memory.exporting import all_owners
from warpmem.memory.item_line import MAX_LINE_BYTES

# ------------------------------------------------------------------------------------ export, import


def fill(path: Path) -> None:
    """Several owners; a key that changed, one whose successor was deleted, an item ended and added again."""
    at = [datetime(2025, month, 1, tzinfo=UTC) for month in range(1, 13)]
    with warpmem.open(path, embedder="hashing") as memory:
        for text, when in (("lives in Porto", 0), ("lives in Berlin", 6), ("lives in Lisbon", 3)):
            memory.add(text, user_id="nadia", key="city", valid_from=at[when])
        memory.add("plan S", user_id="tobias", key="plan", valid_from=at[0])
        wrong = memory.add("plan M", user_id="tobias", key="plan", valid_from=at[2])
        assert isinstance(wrong, warpmem.AddResult)
        memory.delete(wrong.id)
        memory.add("plan S", user_id="tobias", key="plan", valid_from=at[5])
        ended = memory.add("reads novels", user_id="odile", valid_from=at[0])
        assert isinstance(ended, warpmem.AddResult)
        memory.update(ended.id, valid_to=at[4])
        memory.add("reads novels", user_id="odile", valid_from=at[7])
        for text, key in (("rents a shop", "shop"), ("has a lodger", None)):
            item = memory.add(text, user_id="odile", key=key, valid_from=at[0])
            assert isinstance(item, warpmem.AddResult)
            if key is None:
                memory.update(item.id, valid_to=at[9])
            else:
                mistake = memory.add("owns a shop", user_id="odile", key=key, valid_from=at[9])
                assert isinstance(mistake, warpmem.AddResult)
                memory.delete(mistake.id)
        memory.add("old offer", user_id="odile", kind="document", valid_from=at[0], expires_at=at[1])
        memory.add(
            NewItem(
                text="full",
                scope=Scope(user_id="kwame", agent_id="a", run_id="r"),
                kind="procedure",
                metadata={"n": 1.5, "deep": {"list": [True, None, "ü"]}},
                priority=0.9,
                entities=("Kyoto",),
                sources=("event-1",),
                trust=0.25,
                modality="code",
                valid_from=at[3],
            )
        )
        for _ in range(2):
            memory.add({"role": "user", "content": "yes", "at": "2025-04-01T08:00:00Z"}, user_id="kwame")
        memory.add("shared", corpus_id="handbook", valid_from=at[0])
        memory.add("of an agent", agent_id="a", valid_from=at[0])


def without_ids(text: str) -> list[str]:
    """Exported lines less what an import makes anew, sorted."""
    anew = ("id", "created_at", "touched_at", "recorded_at", "version")
    kept = [{name: value for name, value in line.items() if name not in anew} for line in json_lines(text)]
    return sorted(json.dumps(line, sort_keys=True) for line in kept)


def test_round_trip(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(store)
    exported = out(capsys, "export")
    assert len(exported.splitlines()) == 16
    assert json.loads(exported.splitlines()[-1]) == {"end": 15, "check": "9530030e"}
    assert "plan M" not in exported
    assert out(capsys, "export") == exported
    file, other = tmp_path / "out.jsonl", tmp_path / "other"
    assert out(capsys, "export", str(file)) == ""
    assert file.read_text(encoding="utf-8") == exported
    warpmem.open(other, embedder="hashing").close()
    for batch in ("5", "500"):  # the second run repeats the first
        assert out(capsys, "import", str(file), "--store", str(other), "--batch", batch) == ""
        assert without_ids(out(capsys, "export", "--store", str(other))) == without_ids(exported)
    assert [path.name for path in tmp_path.iterdir() if "jsonl" in path.name] == ["out.jsonl"]
    (plan,) = json_lines(out(capsys, "search", "plan", "--user", "tobias", "--store", str(other), "--json"))
    assert plan["valid_from"] == "2025-06-01T00:00:00Z"
    asked = ("search", "plan", "--user", "tobias", "--as-of", "2025-04-15T00:00:00Z", "--json")
    assert out(capsys, *asked) == out(capsys, *asked, "--store", str(other)) == ""


def test_export_of_one_scope(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(store)
    lines = json_lines(out(capsys, "export", "--user", "kwame", "--agent", "a"))
    assert [line["text"] for line in lines] == ["full"]
    assert lines[0]["metadata"] == {"n": 1.5, "deep": {"list": [True, None, "ü"]}}


def test_export_refuses_a_path_it_cannot_write(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "InputError: cannot write " in err(capsys, "export", str(tmp_path / "no" / "file"), code=1)


def test_all_owners(store: Path) -> None:
    fill(store)
    with warpmem.open(store, read_only=True) as memory:
        owners = [scope.owner.id for scope in all_owners(memory)]
    assert owners == ["nadia", "tobias", "odile", "kwame", "handbook", "a"]


@pytest.mark.parametrize("page", [1, 4, 6, 7])
def test_export_asks_for_owners_page_by_page(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the change feed is as long as the store's life")

    fill(store)
    monkeypatch.setattr(warpmem.Memory, "changes", refuse)
    monkeypatch.setattr(exporting, "_PAGE", page)
    lines = json_lines(out(capsys, "export"))
    assert len(lines) == 15
    owners = [line.get("user_id") or line.get("corpus_id") or line["agent_id"] for line in lines]
    assert list(dict.fromkeys(owners)) == ["nadia", "tobias", "odile", "kwame", "handbook", "a"]


def test_import_with_its_scope_enforced(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_text('{"text": "mine"}\n{"text": "evil", "user_id": "bob"}\n', encoding="utf-8")
    asked = ("import", str(file), "--user", "ann", "--enforce-scope")
    assert "InvalidScope: line 2: the line names another scope" in err(capsys, *asked, code=1)
    assert [line["text"] for line in json_lines(out(capsys, "export"))] == ["mine"]


def test_import_of_simple_lines_and_messages(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (
        b'\xef\xbb\xbf{"text": "one", "user_id": "u"}\n'
        b"\n"
        b'{"role": "user", "content": "hi", "user_id": "u", "run_id": "r"}\n'
        b'{"role": "user", "content": "hi", "user_id": "u", "run_id": "r"}\n'
        b'{"text": "two"}\n'
        b'{"text": "one", "user_id": "u"}'
    )
    for again, said in (
        ((), "imported 5 lines (added 5);"),
        ((), "imported 0 lines, passed over 6 that were imported before;"),
        (("--again",), "imported 5 lines (added 5);"),
    ):
        stdin(monkeypatch, data)
        assert main(["import", "-", "--agent", "a", "--kind", "event", *again]) == 0
        assert said in capsys.readouterr().err
    items = json_lines(out(capsys, "list", "--user", "u", "--json"))
    assert [(item["text"], item["kind"]) for item in items] == [
        ("one", "event"), ("hi", "event"), ("hi", "event"), ("one", "event")
    ]  # fmt: skip
    assert items[1]["run_id"] == "r"
    (two,) = json_lines(out(capsys, "list", "--agent", "a", "--json"))
    assert two["text"] == "two"


BAD_LINES = {
    b"not json": "InputError: line 3: not JSON: ",
    b"[1]": "InputError: line 3: expected a JSON object, not list",
    b'{"text": 5, "user_id": "u"}': "InputError: line 3: not an item: ",
    b'{"text": "x", "user_id": "u", "colour": 1}': "InputError: line 3: not an item: ",
    b'{"text": "x", "user_id": 5}': "InputError: line 3: not an item: ",
    b'{"text": "x"}': "InvalidScope: line 3: ",
    b'{"text": " ", "user_id": "u"}': "InvalidText: line 3: ",
    b'{"text": "x", "user_id": "u", "valid_from": "2025-01-01T00:00:00"}': "InvalidTime: line 3: ",
    b'{"text": "x", "user_id": "u", "metadata": {"a": ' + b"[" * 9000 + b"]" * 9000 + b"}}": (
        "InputError: line 3: the JSON is nested too deeply"
    ),
    b'{"role": "user", "user_id": "u"}': "InputError: line 3: ",
    b'\xff{"text": "x"}': "InputError: line 3: not JSON: ",
    b'{"text": "' + b"x" * MAX_LINE_BYTES + b'"}': "InputError: line 3: the line is over the limit",
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD_LINES, ids=lambda line: line[:40].decode("latin-1"))
@pytest.mark.parametrize("batch", ["1", "500"])
def test_import_stops_at_a_bad_line(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], bad: bytes, batch: str
) -> None:
    file = tmp_path / "in.jsonl"
    lines = [b'{"text": "%d", "user_id": "u"}' % i for i in range(4)]
    file.write_bytes(b"\n".join([*lines[:2], bad, *lines[2:]]))
    error = err(capsys, "import", str(file), "--batch", batch, code=1).splitlines()
    assert error[0].startswith(f"warpmem: {BAD_LINES[bad]}")
    assert error[1].startswith("imported 2 lines (added 2)")
    assert [item["text"] for item in json_lines(out(capsys, "list", "--user", "u", "--json"))] == ["0", "1"]
    assert main(["import", str(file), "--batch", batch, "--skip-errors"]) == 0
    error = capsys.readouterr().err.splitlines()
    assert error[0].startswith(f"warpmem: {BAD_LINES[bad]}")
    assert error[1] == (
        "imported 2 lines (added 2), skipped 1, passed over 2 that were imported before; "
        "2 items in the store before, 4 after"
    )
    assert len(out(capsys, "list", "--user", "u").splitlines()) == 4


def test_progress_of_a_long_import(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text("\n".join(f'{{"text": "item {i}", "user_id": "u"}}' for i in range(100)))
    assert main(["import", str(file), "--progress"]) == 0
    error = capsys.readouterr().err
    assert "import: [########################] 100%, 100 lines, " in error


def test_progress_lines() -> None:
    progress = Progress("import", 200, enabled=True, stream=io.StringIO())
    assert (
        progress.line(50, 1_000, 10.0)
        == "import: [######                  ]  25%, 1000 lines, 100/s, 0:30 to go"
    )
    assert progress.line(1, 1, 100.0).endswith(", 0/s, 5:31:40 to go")
    assert Progress("x", None, enabled=True, stream=io.StringIO()).line(9, 30, 10.0) == "x: 30 lines, 3/s"


def test_progress_rewrites_its_line_on_a_terminal_only() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, marks in ((Terminal(), 2), (io.StringIO(), 0)):
        progress = Progress("import", 10, enabled=True, stream=stream)
        progress.update(5, 1)
        progress.update(6, 2)  # too soon
        progress.finish(10, 3)
        assert stream.getvalue().count("\r") == marks
        assert stream.getvalue().count("%") == 2
    silent = io.StringIO()
    Progress("import", 10, enabled=False, stream=silent).finish(10, 3)
    assert silent.getvalue() == ""
