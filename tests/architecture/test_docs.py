"""The documents say what the program does, and their examples run."""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import readme
from warpmem.cli.parser import make_parser

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "FORMATS.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE")


def _commands() -> dict[str, argparse.ArgumentParser]:
    """The parser of each command, by the command's name."""
    (commands,) = (action.choices for action in make_parser()._actions if isinstance(action.choices, dict))
    return commands


@pytest.mark.parametrize("name", DOCUMENTS)
def test_document_is_there(name: str):
    assert len((ROOT / name).read_text(encoding="utf-8").split()) > 100


def test_readme_names_every_command():
    commands = _commands()
    assert {"demo", "add", "search", "list", "export", "import", "stats", "doctor", "eval"} <= set(commands)
    in_code = " ".join(
        [*(block.text for block in readme.blocks(README)), *re.findall(r"`([^`\n]+)`", README)]
    )
    assert [name for name in commands if not re.search(rf"\b{name}\b", in_code)] == []


def test_every_command_and_option_is_explained():
    for name, parser in _commands().items():
        shown = parser.format_help()
        for action in parser._actions:
            if action.option_strings:
                assert action.help, f"{name}: no help for {action.option_strings}"
                assert all(option in shown for option in action.option_strings)


def test_readme_holds_the_test_command_that_the_gate_runs():
    assert readme.test_command(README) == "python -m pip install '.[test]' && python -m pytest"


def test_readme_python_blocks_are_python():
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    for position, block in enumerate(readme.blocks(README)):
        if block.language == "python":
            compile(block.text, f"README.md block {position}", "exec", flags)


def test_readme_quickstart_runs(tmp_path: Path):
    code = readme.quickstart(README)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "the quickstart prints what it found"


def test_readme_vector_index_runs(tmp_path: Path):
    (code,) = (block.text for block in readme.blocks(README) if "VectorIndex(" in block.text)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("995 exact scan")


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name.endswith(".md")])
def test_relative_links_lead_somewhere(name: str):
    text = (ROOT / name).read_text(encoding="utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text)]
    assert [link for link in links if link and not (ROOT / link).exists()] == []
