"""`warpmem add --file`, `add --infer` and `extract-pending`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import scripted_extraction
import warpmem
from commands import err, out, stdin

GUIDE = "# Guide\n\nFirst things first.\n\n## Install\n\nRun the installer.\n"


def test_a_document_and_its_next_edition(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "guide.md"
    file.write_text(GUIDE)
    said = [
        "add",
        "--file",
        str(file),
        "--corpus",
        "docs",
        "--metadata",
        '{"team": "ops"}',
        "--priority",
        "0.75",
    ]
    first = out(capsys, *said).split(" ", 1)
    assert first[1] == "2 chunks: 2 added, 0 superseded, 0 moved, 0 removed\n"
    assert out(capsys, *said).split(" ", 1) == [
        first[0],
        "2 chunks: 0 added, 0 superseded, 0 moved, 0 removed\n",
    ]
    stdin(monkeypatch, GUIDE.replace("installer", "new installer").encode())
    again = out(capsys, "add", "--file", "-", "--name", str(file), "--corpus", "docs")
    assert again.split(" ", 1)[1].startswith("2 chunks: 0 added, 1 superseded")
    with warpmem.open(store, read_only=True) as memory:
        (hit,) = memory.search("installer", corpus_id="docs", kinds=["document"], k=1)
        assert "new installer" in hit.item.text and hit.item.metadata["document"]["name"] == str(file)


def test_how_a_document_is_parted(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "notes"
    file.write_text("\n".join(f"Line number {n} says something." for n in range(200)))
    whole = ["add", "--file", str(file), "--user", "u", "--kind", "procedure"]
    few = int(out(capsys, *whole).split()[1])
    many = int(out(capsys, *whole, "--name", "b", "--max-tokens", "32", "--format", "log").split()[1])
    assert 1 < few < many


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "one of the arguments text --file is required"),
        (["a text", "--file", "f"], "not allowed with"),
        (["--file", "f", "--key", "k"], "--file takes no --key"),
        (["--file", "f", "--valid-from", "2026-01-01T00:00:00Z"], "--file takes no --valid-from"),
        (["--file", "f", "--infer", "rules"], "--file takes no --infer"),
        (["a text", "--max-tokens", "9"], "only a --file takes --max-tokens"),
        (["a text", "--name", "n"], "only a --file takes --name"),
        (["--file", "-"], "needs --name"),
        (["--file", "f", "--format", "pdf"], "invalid choice"),
        (["a text", "--infer", "magic"], "invalid choice"),
    ],
)
def test_wrong_usage(store: Path, capsys: pytest.CaptureFixture[str], argv: list[str], said: str) -> None:
    assert said in err(capsys, "add", *argv, "--user", "u", code=2)


def test_refusals(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "cannot read" in err(capsys, "add", "--file", str(tmp_path / "none"), "--user", "u", code=1)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    assert "not UTF-8" in err(capsys, "add", "--file", str(tmp_path / "bytes"), "--user", "u", code=1)
    said = err(capsys, "add", "I moved to Porto", "--user", "u", "--infer", "llm", code=1)
    assert "no language model" in said
    said = err(capsys, "add", "I moved to Porto", "--user", "u", "--infer", "rules", "--key", "k", code=1)
    assert "neither key nor vector" in said
    with warpmem.open(store, read_only=True) as memory:
        assert memory.stats().items == 0


def test_facts_by_rule(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (made,) = out(capsys, "add", "Hello! I moved to Porto.", "--user", "u", "--infer", "rules").splitlines()
    with warpmem.open(store, read_only=True) as memory:
        by_kind = {item.kind: item for item in memory.list(user_id="u")}
    assert made == f"{by_kind['message'].id} added"
    assert by_kind["fact"].text == "I moved to Porto." and by_kind["fact"].sources == (by_kind["message"].id,)


def test_memories_by_a_model(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = [
        json.dumps({"memories": [scripted_extraction.memory("Ann lives in Porto")], "relations": []}),
        "no JSON", "none either", "nor now", "nor now",
    ]  # fmt: skip
    file = tmp_path / "warpmem.toml"

    def by(*given: str) -> list[str]:
        options = ", ".join(json.dumps(answer) for answer in given)
        file.write_text(f'language_model = "scripted"\n[language_model_options]\nanswers = [{options}]\n')
        return ["--config", str(file)]

    said = ["add", "I moved to Porto", "--user", "u", "--infer", "llm"]
    lines = out(capsys, *said, *by(answers[0])).splitlines()
    assert [line.split()[1] for line in lines] == ["added", "added"]
    with warpmem.open(store, read_only=True) as memory:
        assert memory.get(lines[1].split()[0]).text == "Ann lives in Porto"
        assert memory.get(lines[1].split()[0]).sources == (lines[0].split()[0],)
        assert memory.stats().pending["extract"].waiting == 0
    from warpmem.cli import main

    assert main([*said, *by(*answers[1:])]) == 1
    shown = capsys.readouterr()
    assert shown.out.split()[1] == "added" and "ModelError" in shown.err
    assert out(capsys, "extract-pending", *by(*answers[1:])) == "0 read, 1 that the model gave no answer to\n"
    assert out(capsys, "extract-pending", *by(answers[0])) == "1 read\n"
    assert out(capsys, "extract-pending", *by()) == "0 read\n"
