"""A Memory on each engine, with a clock that stands still and the deterministic fake embedder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import warpmem
from queued import QUIET, START, Moody
from warpmem.ops.clock import FixedClock


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(START)


@pytest.fixture(params=["memory", "disk"])
def memory(request: pytest.FixtureRequest, clock: FixedClock, tmp_path: Path) -> Iterator[warpmem.Memory]:
    path = None if request.param == "memory" else tmp_path / "store"
    with warpmem.open(path, embedder="hashing", clock=clock, durability="os") as opened:
        yield opened


@pytest.fixture
def embedder() -> Moody:
    return Moody()


@pytest.fixture
def queueing(tmp_path: Path, clock: FixedClock, embedder: Moody) -> Iterator[warpmem.Memory]:
    """A store on disk whose queue nobody works off by himself; whole when it is closed."""
    with warpmem.open(tmp_path / "store", embedder=embedder, clock=clock, **QUIET) as opened:
        yield opened
    report = warpmem.verify(tmp_path / "store")
    assert report.ok, report.faults
