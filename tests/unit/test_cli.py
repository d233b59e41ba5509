"""The command line: every command, in process, on a store of its own with the hashing embedder."""

from __future__ import annotations

import json
import os
import re
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

    (now,) = json_lines(
        out(capsys, "search", "where does Nadia live", "--user", "nadia", "--mode", "dense", "--json")
    )
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


def test_the_mode_of_a_search(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A configured mode was passed by, for weights that nobody had given."""
    out(capsys, "add", "the invoice INV-20931", "--user", "u")
    (tmp_path / "words.toml").write_text('mode = "lexical"\n')
    configured = ("--config", str(tmp_path / "words.toml"))
    weights = ("--recency", "0.5")
    for options, similarity, lexical in (
        ((), 1, 3.2), (("--mode", "dense"), 1, 0), (configured, 0, 1), ((*configured, *weights), 0, 1),
        ((*configured, "--mode", "dense", *weights), 1, 0), (weights, 1, 3.2),
    ):  # fmt: skip
        asked = ("search", "INV-20931", "--user", "u", "--json", "--explain", *options)
        (hit,) = json_lines(out(capsys, *asked))
        assert hit["parts"]["weight_similarity"] == similarity, options
        assert hit["parts"]["weight_lexical"] == pytest.approx(lexical), options


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
    (shown,) = re.findall("[0-9.]+ = .*", text)
    score, terms = shown.split(" = ")
    products = re.findall(r"([0-9.]+) x [a-z]+ ([0-9.-]+)", terms)
    total = sum(float(weight) * float(value) for weight, value in products)
    assert total == pytest.approx(float(score), abs=1e-3)
    assert " x similarity " in text and " + 3.2 x lexical " in text and " + 1.8 x adjacent " in text
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
    shown = out(capsys, "stats")
    assert "model_id        hashing" in shown
    assert "embedder        served 0/0/0, tokens 0/0/0, waiting 0/0/0, batches 0" in shown
    assert "cache           vectors 0, bytes 0" in shown


def test_store_with_its_own_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "own"
    with warpmem.open(path, dimension=4, model_id="mine") as memory:
        memory.add("one", user_id="u", vector=[1.0, 0.0, 0.0, 0.0])
    monkeypatch.setenv("WARPMEM_STORE", str(path))
    assert json_lines(out(capsys, "list", "--user", "u", "--json"))[0]["text"] == "one"
    stats = json.loads(out(capsys, "stats", "--json"))
    assert (stats["items"], stats["model_id"], stats["dimension"]) == (1, "mine", 4)
    (line,) = json_lines(out(capsys, "export"))
    assert (line["text"], line["model_id"]) == ("one", "mine")
    assert err(capsys, "search", "one", "--user", "u", code=1).startswith("warpmem: ")
    assert err(capsys, "add", "two", "--user", "u", code=3).startswith("warpmem: ModelMismatch: ")


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


DEEP = '{"a": ' * 5_000 + "1" + "}" * 5_000


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["add", "text", "--metadata", DEEP], "InputError: --metadata: the JSON is nested too deeply"),
        (["search", "q", "--filter", DEEP], "InputError: --filter: the JSON is nested too deeply"),
        (["list", "--filter", DEEP], "InputError: --filter: the JSON is nested too deeply"),
        (["add", "text", "--metadata", DEEP[:3_000] + "1" + "}" * 500], "InvalidMetadata: "),
        (["add", "\udcff"], "InputError: the argument text holds bytes that are not UTF-8"),
        (["add", "text", "--agent", "\udcff"], "InputError: the argument agent holds bytes"),
        (["add", "text", "--key", "\udcff"], "InputError: the argument key holds bytes"),
        (["add", "text", "--kind", "\udcff"], "InputError: the argument kind holds bytes"),
        (["add", "text", "--metadata", '{"a": "\udcff"}'], "InvalidMetadata: "),
        (["add", "text", "--store", "\udcff"], "InputError: the argument store holds bytes"),
        (["search", "\udcff"], "InputError: the argument query holds bytes"),
        (["search", "q", "--kinds", "\udcff"], "InputError: "),
        (["import", "-", "--kind", "\udcff"], "InputError: the argument kind holds bytes"),
        (["import", "\udcff"], "InputError: cannot read '\\udcff'"),
        (
            ["add", "text", "--valid-from", "0001-01-01T00:00:00+05:00"],
            "InvalidTime: valid_from lies outside",
        ),
        (
            ["add", "text", "--valid-from", "9999-12-31T23:59:59-05:00"],
            "InvalidTime: valid_from lies outside",
        ),
        (
            ["add", "text", "--expires-at", "9999-12-31T23:59:59-05:00"],
            "InvalidTime: expires_at lies outside",
        ),
        (["search", "q", "--as-of", "0001-01-01T00:00:00+05:00"], "InvalidTime: as_of lies outside"),
        (["search", "q", "--known-at", "9999-12-31T23:59:59-05:00"], "InvalidTime: known_at lies outside"),
    ],
    ids=lambda value: (
        " ".join(value)[:60].encode("unicode_escape").decode() if isinstance(value, list) else ""
    ),
)
def test_hostile_arguments(
    store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    argv: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    error = err(capsys, *argv, "--user", "u", code=1)
    assert error.startswith(f"warpmem: {message}")
    assert len(error.splitlines()) == 1
    assert out(capsys, "list", "--user", "u") == ""


def test_paths_that_are_not_unicode(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "InputError: the argument keep holds bytes" in err(
        capsys, "demo", "--keep", str(tmp_path / "\udcff"), code=1
    )
    monkeypatch.setenv("WARPMEM_STORE", str(tmp_path / "\udcff"))
    for argv in (["add", "text", "--user", "u"], ["stats"], ["doctor"]):
        assert "InputError: the path of the store holds bytes that are not UTF-8" in err(
            capsys, *argv, code=1
        )


@pytest.mark.parametrize("when", ["0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999998+00:00"])
def test_times_at_the_edges(store: Path, capsys: pytest.CaptureFixture[str], when: str) -> None:
    out(capsys, "add", "edge", "--user", "u", "--valid-from", when)
    (item,) = json_lines(out(capsys, "list", "--user", "u", "--include-past", "--json"))
    assert item["valid_from"] == when.replace("+00:00", "Z")
    assert when[:10] in out(capsys, "list", "--user", "u", "--include-past")
    assert len(json_lines(out(capsys, "search", "edge", "--user", "u", "--as-of", when, "--json"))) == 1


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


def _bytes_shown(encoding: str, *argv: str) -> bytes:
    """Stdout of a command run with this encoding, which must succeed."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(
        [sys.executable, "-m", "warpmem", *argv],
        env=environment,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_terminal_that_is_not_unicode(store: Path) -> None:
    text = "grün 日本 \N{GRINNING FACE}"
    with warpmem.open(store) as memory:
        memory.add(text, user_id="u", metadata={"q": 'ü"\\'})
    assert _bytes_shown("ascii", "list", "--user", "u").endswith(b" gr\\xfcn \\u65e5\\u672c \\U0001f600\n")
    assert " grün ".encode("latin-1") in _bytes_shown("latin-1", "search", "x", "--user", "u", "--explain")
    assert _bytes_shown("utf-8", "list", "--user", "u").endswith(f" {text}\n".encode())
    for argv in (("list", "--user", "u", "--json"), ("search", "x", "--user", "u", "--json")):
        shown = _bytes_shown("ascii", *argv)
        assert shown.isascii()
        (item,) = json_lines(shown.decode("ascii"))
        assert (item["text"], item["metadata"]) == (text, {"q": 'ü"\\'})
    assert text.encode() in _bytes_shown("ascii", "export")  # bytes, not text


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


@pytest.mark.parametrize(
    ("closed", "command", "code"),
    [
        ("<&-", "add - --user u", 1), ("<&-", "list --user u", 0), (">&-", "list --user u", 141),
        (">&-", "export -", 141), ("2>&-", "export -", 0), ("<&- >&- 2>&-", "stats", 141),
        ("<&- >&- 2>&-", "add text --user u", 141),
    ],
)  # fmt: skip
def test_closed_streams(
    store: Path, capsys: pytest.CaptureFixture[str], closed: str, command: str, code: int
) -> None:
    out(capsys, "add", "text", "--user", "u")
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {sys.executable} -m warpmem {command} {closed}"],
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, b"Traceback" in done.stderr) == (code, False), done.stderr
    assert warpmem.verify(store).ok


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    text = out(capsys, "--help")
    for name in ("demo", "add", "search", "list", "export", "import", "stats", "doctor", "eval"):
        assert f"\n    {name} " in text
        assert out(capsys, name, "--help").startswith(f"usage: warpmem {name}")
    for code in (0, 1, 2, 3, 130, 141):
        assert f"\n  {code} " in text
    assert out(capsys, "--version") == f"warpmem {warpmem.__version__}\n"
