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
PAGES = sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))
DOCUMENTS = (
    "README.md", "ARCHITECTURE.md", "FORMATS.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", *PAGES
)  # fmt: skip


def _commands() -> dict[str, argparse.ArgumentParser]:
    """The parser of each command, by the command's name."""
    (commands,) = (action.choices for action in make_parser()._actions if isinstance(action.choices, dict))
    return commands


@pytest.mark.parametrize("name", DOCUMENTS)
def test_document_is_there(name: str):
    assert len((ROOT / name).read_text(encoding="utf-8").split()) > 100


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_every_page_is_named_by_the_readme():
    assert len(PAGES) >= 8
    assert [name for name in PAGES if f"]({name})" not in README] == []


def test_the_page_on_the_command_line_names_every_command():
    commands = _commands()
    assert {"demo", "add", "search", "list", "export", "import", "stats", "doctor", "eval"} <= set(commands)
    page = text_of("docs/command_line.md")
    in_code = " ".join([*(block.text for block in readme.blocks(page)), *re.findall(r"`([^`\n]+)`", page)])
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


@pytest.mark.parametrize("name", ["README.md", *PAGES])
def test_python_blocks_are_python(name: str):
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    for position, block in enumerate(readme.blocks(text_of(name))):
        if block.language == "python":
            compile(block.text, f"{name} block {position}", "exec", flags)


def _run(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_readme_quickstart_runs(tmp_path: Path):
    code = readme.quickstart(README)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    assert _run(code, tmp_path).strip(), "the quickstart prints what it found"


@pytest.mark.parametrize(
    "name", [name for name in ["README.md", *PAGES] if readme.program(text_of(name)).strip()]
)
def test_the_blocks_of_a_page_run_as_one_program(name: str, tmp_path: Path):
    _run(readme.program(text_of(name)), tmp_path)


def test_the_vector_index_runs_alone(tmp_path: Path):
    page = text_of("docs/vector_index.md")
    (code,) = (block.text for block in readme.blocks(page) if "VectorIndex(" in block.text)
    assert _run(code, tmp_path).startswith("995 exact scan")


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name.endswith(".md")])
def test_relative_links_lead_somewhere(name: str):
    text = (ROOT / name).read_text(encoding="utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text)]
    folder = (ROOT / name).parent
    assert [link for link in links if link and not (folder / link).exists()] == []


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name.endswith(".md")])
def test_links_to_headings_lead_to_one(name: str):
    for link, heading in re.findall(r"\]\(((?!https?:|mailto:)[^)\s#]*)#([^)\s]+)\)", text_of(name)):
        target = (ROOT / name).parent / link if link else ROOT / name
        titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
        known = {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}
        assert heading in known, f"{name}: {link}#{heading}"
