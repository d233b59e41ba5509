"""Writes that RocksDB would have wait."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from warpmem.errors import DiskFull
from warpmem.storage import rocks_writes
from warpmem.storage.rocks_writes import write_batch


class Stalling:
    """Refuses the first `times` batches as RocksDB does when it is told not to wait."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.batches: list[object] = []

    def write(self, batch: object, options: object) -> None:
        assert options.no_slowdown  # type: ignore[attr-defined]
        self.batches.append(batch)
        if len(self.batches) <= self.times:
            raise Exception("Result incomplete: Write stall")


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: 100.0 + sum(pauses), sleep=pauses.append)
    monkeypatch.setattr(rocks_writes, "time", clock)
    return pauses


def test_a_stalled_write_is_tried_again_with_another_batch(slept: list[float]) -> None:
    database = Stalling(300)
    write_batch(database, object, lambda: True)
    assert len(set(map(id, database.batches))) == 301
    assert len(slept) == 300 and slept[0] < 0.001 and max(slept[:200]) == 0.02 and max(slept) == 2.0


def test_a_full_disk_ends_the_wait(slept: list[float]) -> None:
    database = Stalling(1000)
    with pytest.raises(DiskFull, match=r"full.*nothing of this was written.*free some space"):
        write_batch(database, object, lambda: False)
    assert rocks_writes.PATIENCE < sum(slept) < rocks_writes.PATIENCE + 4


def test_other_errors_are_not_waited_for(slept: list[float]) -> None:
    class Broken:
        def write(self, batch: object, options: object) -> None:
            raise Exception("IO error: Input/output error")

    with pytest.raises(Exception, match="Input/output error"):
        write_batch(Broken(), object, lambda: False)
    assert slept == []
