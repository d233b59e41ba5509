"""Every format version that was ever written is still read, and opened for writing, with all it holds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from durability.golden_stores import GOLDEN, content, describe, families, open_golden
from warpmem.storage.rocks import RocksEngine

FOLDERS = sorted(GOLDEN.glob("format-*"))
STORES = [folder / name for folder in FOLDERS for name in ("closed", "unclean")]


@pytest.fixture(params=STORES, ids=lambda path: f"{path.parent.name}-{path.name}")
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A copy of a golden store, and what it holds."""
    copy = tmp_path / "store"
    shutil.copytree(request.param, copy)
    return copy, content(request.param.parent)


@pytest.mark.parametrize("read_only", [True, False], ids=["read-only", "for-writing"])
def test_a_golden_store_holds_what_was_written(golden: tuple[Path, dict[str, Any]], read_only: bool) -> None:
    path, expected = golden
    with open_golden(path, read_only=read_only) as memory:
        assert describe(memory) == expected["memory"]
    engine = RocksEngine(path, read_only=True)
    held = families(engine, tuple(expected["families"]))
    engine.close()
    assert held == expected["families"]
