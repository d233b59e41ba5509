"""A small disk of its own, for the tests that fill one; stores to be damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from durability import fullness
from durability.damage import make_live_store, make_store


@pytest.fixture
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A tmpfs; the module's DISK is its size."""
    try:
        with fullness.small_disk(tmp_path, request.module.DISK) as disk:
            yield disk
    except fullness.Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that was "closed", and one as a crash leaves it, "live"."""
    folder = tmp_path_factory.mktemp("templates")
    make_store(folder / "closed", 1, items=40)
    make_live_store(folder / "live", 2, items=40)
    return folder
