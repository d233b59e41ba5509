"""The durable log alone: records in, acknowledged. Informational, but group commit must help."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from stores import unit_rows

from warpmem.ops.clock import SystemClock
from warpmem.protocols import Log, Transaction
from warpmem.storage.log import open_log
from warpmem.storage.rocks import RocksEngine
from warpmem.types import Durability, MemoryItem, Owner, Scope

DIMENSION = 256
VECTOR = unit_rows(1)[0]
NOW = datetime(2026, 6, 1, tzinfo=UTC)
ITEM = MemoryItem(
    id="",
    scope=Scope(user_id="one"),
    kind="message",
    text="A line of chat, of about the length that lines of chat have in practice.",
    model_id="given-256",
    created_at=NOW,
    touched_at=NOW,
    recorded_at=NOW,
    valid_from=NOW,
)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    opened = open_log(
        RocksEngine(tmp_path / "store"),
        SystemClock(),
        model_id="given-256",
        dimension=DIMENSION,
        durability="sync",
        max_queue=4096,
        read_only=False,
    )
    yield opened
    opened.close()


def put(transaction: Transaction) -> None:
    transaction.add(transaction.owner(Owner("user", "one")), ITEM, VECTOR, duplicate=None, slot=None)


@pytest.mark.parametrize("durability", ["os", "sync"])
def test_put(benchmark: BenchmarkFixture, log: Log, durability: Durability) -> None:
    benchmark.pedantic(log.transact, (put, durability), rounds=300, warmup_rounds=20)
    assert log.totals()["items"] == 320


def test_group_commit(log: Log, report: Callable[[str], None]) -> None:
    """Sixteen threads share fsyncs: more acknowledged puts a second than from one thread. Gated at 2x."""
    one, sixteen = (_rate(log, threads, 640) for threads in (1, 16))
    report(
        f"synced puts: 1 thread {one:,.0f}/s, 16 threads {sixteen:,.0f}/s, ratio {sixteen / one:.1f} (gate 2)"
    )
    assert sixteen / one >= 2


def _rate(log: Log, threads: int, puts: int) -> float:
    def work() -> None:
        for _ in range(puts // threads):
            log.transact(put, "sync")

    before = log.totals()["items"]
    workers = [threading.Thread(target=work) for _ in range(threads)]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    elapsed = time.perf_counter() - started
    assert log.totals()["items"] == before + puts
    return puts / elapsed
