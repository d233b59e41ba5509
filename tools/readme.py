"""The code blocks of README.md: `python tools/readme.py` prints the test command that .ci/run executes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One fenced block: its language, which may be empty, and its text."""

    language: str
    text: str


def blocks(text: str) -> list[Block]:
    """The fenced code blocks of a Markdown text, in order."""
    return [Block(language, body) for language, body in _FENCE.findall(text)]


def test_command(text: str) -> str:
    """The one line that installs the package for testing and runs the tests. Raises ValueError otherwise."""
    lines = {
        line.strip().removeprefix("$ ")
        for block in blocks(text)
        for line in block.text.splitlines()
        if "pip install '.[test]'" in line and "-m pytest" in line
    }
    if len(lines) != 1:
        raise ValueError(f"README.md must hold one test command in its code blocks, not {len(lines)}")
    return lines.pop()


def quickstart(text: str) -> str:
    """The first Python block. Raises ValueError when there is none."""
    for block in blocks(text):
        if block.language == "python":
            return block.text
    raise ValueError("README.md holds no python block")


if __name__ == "__main__":
    print(test_command((ROOT / "README.md").read_text(encoding="utf-8")))
