"""The command line: every command, in process, on a store of its own with the hashing embedder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import warpmem
from commands import err, json_lines, out, stdin

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
