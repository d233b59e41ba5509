"""A small disk of its own, for the tests that fill one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from durability import fullness


@pytest.fixture
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A tmpfs; the module's DISK is its size."""
    try:
        with fullness.small_disk(tmp_path, request.module.DISK) as disk:
            yield disk
    except fullness.Unavailable as reason:
        pytest.skip(str(reason))
