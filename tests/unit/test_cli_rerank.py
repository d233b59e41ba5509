"""search --config FILE --rerank, and add --config FILE."""

from __future__ import annotations

from pathlib import Path

import pytest

import local_servers
from commands import err, json_lines, out

TEXTS = ("a harbour", "the old harbour at night", "a cat")


@pytest.fixture
def notes(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in TEXTS:
        out(capsys, "add", text, "--user", "u")


def config(tmp_path: Path, text: str) -> str:
    file = tmp_path / "models.toml"
    file.write_text(text)
    return str(file)


def test_hits_in_the_order_of_the_reranker(
    notes: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = config(tmp_path, 'reranker = "overlap"\n')
    asked = ("search", "old cat at night", "--user", "u", "--config", file)
    found = json_lines(out(capsys, *asked, "--json", "--explain", "--rerank"))
    assert [hit["text"] for hit in found] == [TEXTS[1], TEXTS[2], TEXTS[0]]
    assert [hit["parts"]["rerank"] for hit in found] == [0.75, 0.25, 0.0]
    shown = out(capsys, *asked, "--explain", "--rerank", "2")
    assert shown.count("; rerank 0.") == 2 and "rerank 0." in shown.splitlines()[1]
    assert "; rerank" not in out(capsys, *asked, "--explain")


def test_an_overloaded_server_is_told_on_stderr(
    notes: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with local_servers.serving(lambda handler, payload: handler.reply(b"{}", 429)) as server:
        text = f'[warpmem]\nreranker = "tei"\n[warpmem.reranker_options]\nurl = "{server.url}"\n'
        asked = ("search", "harbour", "--user", "u", "--config", config(tmp_path, text), "--json")
        plain = out(capsys, *asked)
        from warpmem.cli import main

        assert main([*asked, "--rerank"]) == 0
        captured = capsys.readouterr()
    assert captured.out == plain
    assert captured.err == "left out, for want of time: rerank\n"


def test_what_cannot_be(notes: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("search", "harbour", "--user", "u")
    assert "no reranker" in err(capsys, *asked, "--rerank", code=1)
    assert "rerank must be an integer from 1 to 1000" in err(capsys, *asked, "--rerank", "0", code=1)
    assert "configuration file" in err(capsys, *asked, "--config", str(tmp_path / "none"), code=1)
    file = config(tmp_path, 'reranker = "magic"\n')
    assert "reranker" in err(capsys, *asked, "--config", file, code=1)
    assert "reranker" in err(capsys, "add", "x", "--user", "u", "--config", file, code=1)
