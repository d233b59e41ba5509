"""Stores whose costs are looked at, and ledgers over a log that counts."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import warpmem
from warpmem import Memory, Scope
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import StoreReadOnly
from warpmem.memory.costs import CostLedger
from warpmem.ops.clock import FixedClock
from warpmem.ops.costs import PREFIX
from warpmem.storage import codec
from warpmem.storage.rocks import RocksEngine

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
MODEL = HashingEmbedder().model_id
ALL = ("day", "scope", "lane", "job", "model")


def open_store(path: Path | None, clock: FixedClock, **options: Any) -> Memory:
    return warpmem.open(path, embedder="hashing", clock=clock, durability="os", min_free_bytes=0, **options)


def user(name: str) -> Scope:
    return Scope(user_id=name)


def kept(path: Path) -> list[bytes]:
    """Keys of the costs in a closed store."""
    engine = RocksEngine(str(path), read_only=True)
    try:
        return [key for key, _ in engine.scan("meta", *codec.prefix_range(PREFIX))]
    finally:
        engine.close()


class Counting:
    """A log whose changes are counted."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self.changes = 0
        self.refuses = False

    def transact(self, *arguments: Any) -> Any:
        self.changes += 1
        if self.refuses:
            raise StoreReadOnly("no")
        return self._log.transact(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


def ledger(memory: Memory, times: list[float]) -> tuple[CostLedger, Counting]:
    counting = Counting(memory._log)
    return CostLedger(counting, memory._config, lambda: times[0]), counting  # type: ignore[arg-type]


def settled(costs: CostLedger, log: Counting, changes: int) -> None:
    """Wait for the thread that stores."""
    for _ in range(2000):
        if log.changes >= changes:
            break
        __import__("time").sleep(0.001)
    with costs._storing:
        assert log.changes == changes
