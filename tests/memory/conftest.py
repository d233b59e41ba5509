"""A Memory on each engine, with a clock that stands still and the deterministic fake embedder."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import warpmem
from warpmem.ops.clock import FixedClock

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(START)


@pytest.fixture(params=["memory", "disk"])
def memory(request: pytest.FixtureRequest, clock: FixedClock, tmp_path: Path) -> Iterator[warpmem.Memory]:
    path = None if request.param == "memory" else tmp_path / "store"
    with warpmem.open(path, embedder="hashing", clock=clock, durability="os") as opened:
        yield opened
