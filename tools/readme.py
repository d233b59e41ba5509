"""The code blocks of the documents: `python tools/readme.py` prints the test command that .ci/run runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
_FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One fenced block: its language, which may be empty, its text, and whether it runs as it stands, which
    "no-run" behind the language denies."""

    language: str
    text: str
    runs: bool


def blocks(text: str) -> list[Block]:
    """The fenced code blocks of a Markdown text, in order."""
    return [Block(language, body, "no-run" not in said) for language, said, body in _FENCE.findall(text)]


def program(text: str) -> str:
    """The Python blocks that run, one after the other."""
    return "\n".join(block.text for block in blocks(text) if block.language == "python" and block.runs)


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
