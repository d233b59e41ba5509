"""The demo: its data, its output, and that it notices when answers change."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

import warpmem
from warpmem.cli import demo, main


def test_sample() -> None:
    sample = demo.load_sample()
    assert len(sample) >= 200
    assert len({line.user_id for line in sample}) == 5
    assert len({line.text for line in sample}) == len(sample)
    assert all(line.at.tzinfo is not None and line.at < demo.NOW for line in sample)
    for user in {line.user_id for line in sample}:
        times = [line.at for line in sample if line.user_id == user]
        assert all(earlier < later for earlier, later in pairwise(times))
    keys = Counter((line.user_id, fact.key) for line in sample for fact in line.facts if fact.key is not None)
    assert sum(count > 1 for count in keys.values()) >= 15


def test_demo(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    text = capsys.readouterr().out
    assert "230 messages of 5 users" in text
    assert "the same ids in the same order with the same score bits" in text
    assert "UNEXPECTED" not in text
    assert re.search(
        r"score 0\.\d{4} = 1 x similarity 0\.\d{4} \+ 3\.2 x lexical 0\.\d{4} \+ 1\.8 x adjacent 0\.\d{4} "
        r"\+ 0\.3 x recency 0\.\d{4} \+ 0\.2 x priority",
        " ".join(text.split()),
    )
    tokens = re.search(r"(\d+) of (\d+) tokens, [1-9]\d* items cited by id", text)
    assert tokens is not None
    assert int(tokens[1]) <= int(tokens[2])
    assert max(map(len, text.splitlines())) <= 100
    assert text.isascii() or "\x1b" not in text


def test_demo_keeps_its_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "kept"
    assert main(["demo", "--keep", str(path)]) == 0
    assert f"--store {path}" in capsys.readouterr().out
    with warpmem.open(path, read_only=True) as memory:
        assert memory.stats().items == 311
        assert memory.stats().owners == 5
    assert main(["demo", "--keep", str(path)]) == 1
    assert "InputError: --keep" in capsys.readouterr().err


def test_demo_fails_when_an_answer_is_not_the_expected_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    question = demo.Question(user="odile", query="trip to Lisbon", expect="trip to Mars")
    monkeypatch.setattr(demo, "SECTIONS", (("Wrong", (question,)),))
    assert demo.run(argparse.Namespace(keep=None)) == 1
    assert "UNEXPECTED: odile asked 'trip to Lisbon', expected 'trip to Mars'" in capsys.readouterr().out


def test_demo_fails_when_answers_change(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = demo._answers
    calls: list[int] = []

    def changed(memory: warpmem.Memory) -> list[list[tuple[str, bytes]]]:
        calls.append(1)
        found = answers(memory)
        return found if len(calls) == 1 else [[(hit[0], b"\0\0\0\0") for hit in hits] for hits in found]

    monkeypatch.setattr(demo, "_answers", changed)
    assert demo.run(argparse.Namespace(keep=None)) == 1
    assert "DIFFERENT ANSWERS" in capsys.readouterr().out
