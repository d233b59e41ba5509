"""House rules that no other tool checks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("python", "csrc", "tests", "bench", "tools", "cmake", "examples")
SUFFIXES = {".py", ".pyi", ".cpp", ".hpp", ".cu", ".cuh", ".cmake"}
MAX_LINES = 420

SOURCES = sorted(
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*")
    if path.suffix in SUFFIXES
    and not any(part.startswith(("build", ".")) for part in path.relative_to(ROOT).parts)
)
# Split so that this file does not find itself.
_UNFINISHED = re.compile(
    "|".join((r"\bTO" + "DO", r"\bFIX" + "ME", r"\bXX" + "X", "Not" + "ImplementedError"))
)
_CARELESS = re.compile(
    "|".join((r"\bexcept\s*:", r"\ballow_pickle=T" + "rue", r"^\s*import p" + "ickle")), re.MULTILINE
)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_there_are_sources_to_check():
    folders = {path.relative_to(ROOT).parts[0] for path in SOURCES}
    assert {"python", "csrc", "tests"} <= folders


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_source_keeps_the_house_rules(path: Path):
    text = path.read_text(encoding="utf-8")
    lines = text.count("\n")
    assert lines <= MAX_LINES, f"{_name(path)} wants splitting"
    found = [match[0] for pattern in (_UNFINISHED, _CARELESS) for match in pattern.finditer(text)]
    assert found == []


@pytest.mark.parametrize("path", sorted((ROOT / "csrc" / "core").glob("*.hpp")), ids=_name)
def test_core_headers_know_only_the_standard_library(path: Path):
    """csrc/core is valid on host and device, without Python and without a kernel's header."""
    included = re.findall(r'^#include\s+(["<])([^">]+)', path.read_text(encoding="utf-8"), re.MULTILINE)
    assert [
        name for mark, name in included if mark == '"' and not name.startswith("core/") and "/" in name
    ] == []
    assert [name for mark, name in included if mark == "<" and ("/" in name or "." in name)] == []
