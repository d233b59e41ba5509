"""Fixtures of the unit tests."""

from __future__ import annotations

from pathlib import Path

import pytest

import warpmem


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store with the hashing embedder, named by the environment."""
    path = tmp_path / "store"
    warpmem.open(path, embedder="hashing").close()
    monkeypatch.setenv("WARPMEM_STORE", str(path))
    return path
