"""Running the command line in process."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest

from warpmem.cli import main


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
    """The objects of JSON lines; without the last line of an export, and the checks of its lines."""
    lines = [json.loads(line) for line in text.splitlines()]
    return [
        {name: value for name, value in line.items() if name != "check"}
        for line in lines
        if "end" not in line
    ]
