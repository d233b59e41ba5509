"""The command line: every command, in process, on a store of its own with the hashing embedder."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import warpmem
from warpmem import NewItem, Scope
from warpmem.cli import main
from warpmem.cli.lines import MAX_LINE_BYTES
from warpmem.cli.progress import Progress
from warpmem.cli.stores import all_owners


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store with the hashing embedder, named by the environment."""
    path = tmp_path / "store"
    warpmem.open(path, embedder="hashing").close()
    monkeypatch.setenv("WARPMEM_STORE", str(path))
    return path


def out(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> str:
    """Run a command, check its exit code, and return its stdout."""
    assert main(argv) == code, capsys.readouterr()
    return capsys.readouterr().out


def err(capsys: pytest.CaptureFixture[str], *argv: str, code: int) -> str:
    """Run a command that must fail, and return its stderr, after checking that stdout stays empty."""
    assert main(argv) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# ------------------------------------------------------------------------------- add, search, list


def test_add_search_list(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = out(
        capsys, "add", "Nadia lives in Porto", "--user", "nadia", "--key", "city", "--priority", "0.75",
        "--metadata", '{"country": "PT"}', "--valid-from", "2025-01-01T00:00:00Z", "--kind", "preference",
    ).split()  # fmt: skip
    assert first[1] == "added"
    second = out(
        capsys, "add", "Nadia lives in Berlin", "--user", "nadia", "--key", "city",
        "--metadata", '{"country": "DE"}',
        "--valid-from", "2025-06-01T00:00:00Z", "--expires-at", "2999-01-01T00:00:00Z",
    ).split()  # fmt: skip
    assert second[1:] == ["superseded", "replaced", first[0]]

    (now,) = json_lines(out(capsys, "search", "where does Nadia live", "--user", "nadia", "--json"))
    assert (now["id"], now["text"]) == (second[0], "Nadia lives in Berlin")
    assert now["expires_at"] == "2999-01-01T00:00:00Z"
    assert now["score"] == now["parts"]["similarity"]
    (then,) = json_lines(
        out(capsys, "search", "Nadia", "--user", "nadia", "--as-of", "2025-03-01T00:00:00Z", "--json")
    )
    assert then["id"] == first[0]
    assert then["valid_to"] == "2025-06-01T00:00:00Z"
    assert (then["kind"], then["priority"], then["metadata"]) == ("preference", 0.75, {"country": "PT"})

    listed = out(capsys, "list", "--user", "nadia", "--include-past")
    assert [line.split()[0] for line in listed.splitlines()] == [first[0], second[0]]
    assert "preference, 2025-01-01 to 2025-06-01: city = Nadia lives in Porto" in listed
    assert "Porto" not in out(capsys, "list", "--user", "nadia")


def test_search_options(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for level in range(1, 5):
        out(
            capsys, "add", f"note of level {level}", "--user", "u",
            "--metadata", json.dumps({"level": level}),
            "--priority", str(level / 4), "--kind", "fact" if level % 2 else "event",
        )  # fmt: skip

    def levels(*options: str) -> list[int]:
        found = json_lines(out(capsys, "search", "note of level", "--user", "u", "--json", *options))
        return [hit["metadata"]["level"] for hit in found]

    assert sorted(levels()) == [1, 2, 3, 4]
    assert sorted(levels("--filter", '{"metadata.level": {"gte": 3}}')) == [3, 4]
    assert sorted(levels("--kinds", "fact")) == [1, 3]
    assert sorted(levels("--kinds", "fact, event")) == [1, 2, 3, 4]
    assert levels("--priority", "100") == [4, 3, 2, 1]
    assert len(levels("--k", "2")) == 2
    assert levels("--min-similarity", "2") == []
    assert levels("--known-at", "2001-01-01T00:00:00Z") == []
    text = out(
        capsys,
        "search",
        "note",
        "--user",
        "u",
        "--k",
        "1",
        "--explain",
        "--recency",
        "0.5",
        "--priority",
        "2",
    )
    assert " x similarity " in text
    assert " + 0.5 x recency " in text
    assert " + 2 x priority " in text
    assert "backend " in text


def test_add_reads_stdin(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, "olá\nmundo\n".encode())
    out(capsys, "add", "-", "--agent", "a", "--run", "r")
    (item,) = json_lines(out(capsys, "list", "--agent", "a", "--json"))
    assert (item["text"], item["agent_id"], item["run_id"]) == ("olá\nmundo", "a", "r")
    assert len(out(capsys, "list", "--agent", "a").splitlines()) == 1
    stdin(monkeypatch, b"\xff\xfe")
    assert "InputError: stdin is not UTF-8 at byte 0" in err(capsys, "add", "-", "--agent", "a", code=1)


def test_list_pages(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(5):
        out(capsys, "add", f"item {i}", "--corpus", "c", "--valid-from", f"2025-01-0{9 - i}T00:00:00Z")
    seen: list[str] = []
    cursor: list[str] = []
    while True:
        lines = json_lines(out(capsys, "list", "--corpus", "c", "--limit", "2", "--json", *cursor))
        seen += [line["text"] for line in lines if "text" in line]
        if "cursor" not in lines[-1]:
            break
        cursor = ["--cursor", lines[-1]["cursor"]]
    assert seen == [f"item {i}" for i in range(5)]
    assert out(capsys, "list", "--corpus", "c", "--limit", "2").splitlines()[-1].startswith("more: --cursor ")
    latest = json_lines(
        out(capsys, "list", "--corpus", "c", "--order", "valid_from", "--reverse", "--limit", "1", "--json")
    )
    assert latest[0]["text"] == "item 0"


def test_stats(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out(capsys, "add", "one", "--user", "u")
    assert json.loads(out(capsys, "stats", "--json"))["items"] == 1
    assert "model_id        hashing" in out(capsys, "stats")


# -------------------------------------------------------------------------------------- exit codes


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["add", "", "--user", "u"], 1, "InvalidText: "),
        (["add", "text"], 1, "InvalidScope: "),
        (["add", "text", "--user", "u", "--corpus", "c"], 1, "InvalidScope: "),
        (["add", "text", "--user", "u", "--valid-from", "2025-01-01T00:00:00"], 1, "InvalidTime: "),
        (["add", "text", "--user", "u", "--priority", "2"], 1, "InputError: "),
        (["add", "text", "--user", "u", "--kind", "Not A Kind"], 1, "InputError: "),
        (["search", "q", "--user", "u", "--k", "0"], 1, "InputError: k must be an integer from 1 to 4096"),
        (["search", "q", "--user", "u", "--filter", '{"metadata.a": {"near": 1}}'], 1, "InvalidFilter: "),
        (["list", "--user", "u", "--cursor", "zzz"], 1, "InputError: "),
        (["import", "/nonexistent/file"], 1, "InputError: cannot read '/nonexistent/file'"),
        (["eval", "locomo", "/nonexistent/file"], 1, "InputError: cannot read '/nonexistent/file'"),
        (["search", "q", "--user", "u", "--store", "/nonexistent/store"], 3, "FormatError: "),
    ],
)  # fmt: skip
def test_refusals(
    store: Path, capsys: pytest.CaptureFixture[str], argv: list[str], code: int, message: str
) -> None:
    error = err(capsys, *argv, code=code)
    assert error.startswith(f"warpmem: {message}")
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["nothing"],
        ["add"],
        ["add", "text", "--metadata", "[1]", "--user", "u"],
        ["add", "text", "--metadata", "{", "--user", "u"],
        ["add", "text", "--valid-from", "yesterday", "--user", "u"],
        ["list", "--user", "u", "--order", "size"],
        ["import", "f", "--batch", "0"],
        ["eval", "locomo", "f", "--k", "0,5"],
        ["eval", "locomo", "f", "--k", "five"],
    ],
)
def test_wrong_usage(store: Path, capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    assert "usage: warpmem" in err(capsys, *argv, code=2)


def test_no_store_is_wrong_usage(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WARPMEM_STORE", raising=False)
    assert err(capsys, "stats", code=2) == (
        "warpmem: usage: which store? give --store PATH or set WARPMEM_STORE\n"
    )


def test_locked_store(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with warpmem.open(store):
        error = err(capsys, "add", "text", "--user", "u", code=3)
        assert error.startswith("warpmem: StoreLocked: ")
        assert str(os.getpid()) in error
        assert out(capsys, "list", "--user", "u") == ""  # reading takes no lock


def test_interrupt(store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(warpmem.Memory, "add", interrupt)
    assert err(capsys, "add", "text", "--user", "u", code=130) == "warpmem: interrupted\n"


def test_reader_that_goes_away(store: Path) -> None:
    with warpmem.open(store) as memory:
        memory.add_many([f"item {i} {'x' * 200}" for i in range(2_000)], user_id="u")
    command = [sys.executable, "-m", "warpmem", "export", "--store", str(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 141


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    text = out(capsys, "--help")
    for name in ("demo", "add", "search", "list", "export", "import", "stats", "doctor", "eval"):
        assert f"\n    {name} " in text
        assert out(capsys, name, "--help").startswith(f"usage: warpmem {name}")
    for code in (0, 1, 2, 3, 130, 141):
        assert f"\n  {code} " in text
    assert out(capsys, "--version") == f"warpmem {warpmem.__version__}\n"


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
    assert len(exported.splitlines()) == 15
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
    for _ in range(2):
        stdin(monkeypatch, data)
        assert main(["import", "-", "--agent", "a", "--kind", "event"]) == 0
        assert "imported 5 lines (added 5)" in capsys.readouterr().err
    items = json_lines(out(capsys, "list", "--user", "u", "--json"))
    assert [(item["text"], item["kind"]) for item in items] == [
        ("one", "event"), ("hi", "message"), ("hi", "message"), ("one", "event")
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
    assert error[1] == "imported 4 lines (added 4), skipped 1; 2 items in the store before, 4 after"
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
