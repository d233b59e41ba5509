"""What the committer knows of owners without reading: no more than the engine has."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from warpmem.errors import DiskFull
from warpmem.ops.clock import SystemClock
from warpmem.ops.ids import owner_of
from warpmem.protocols import Transaction
from warpmem.records import Record
from warpmem.storage.log import StoreLog, open_log
from warpmem.storage.memory import MemoryEngine
from warpmem.storage.owner_book import OwnerBook
from warpmem.storage.values import OwnerValue
from warpmem.types import MemoryItem, Owner, Scope

ANN, BEN = Owner("user", "ann"), Owner("user", "ben")
NOW = datetime(2026, 6, 1, tzinfo=UTC)


class Reading(MemoryEngine):
    """Notes the families that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def get(self, family: str, key: bytes) -> bytes | None:
        self.read.append(family)
        return super().get(family, key)


@pytest.fixture
def engine() -> Reading:
    return Reading()


@pytest.fixture
def log(engine: Reading) -> Iterator[StoreLog]:
    opened = open_log(
        engine, SystemClock(), model_id="given", dimension=2, durability="sync", max_queue=4, read_only=False
    )
    assert isinstance(opened, StoreLog)
    yield opened
    opened.close()


def add(log: StoreLog, owner: Owner) -> Record:
    item = MemoryItem(
        id="", scope=Scope(user_id=owner.id), kind="message", text="said", model_id="given", created_at=NOW,
        touched_at=NOW, recorded_at=NOW, valid_from=NOW,
    )  # fmt: skip

    def change(transaction: Transaction) -> Record:
        number = transaction.owner(owner)
        return transaction.add(number, item, np.ones(2, np.float32), duplicate=None, slot=None)

    return log.transact(change)


def test_an_owner_who_is_known_is_not_read_again(log: StoreLog, engine: Reading) -> None:
    first = add(log, ANN)
    engine.read.clear()
    second = add(log, ANN)
    assert engine.read == []
    assert (owner_of(first.key), first.ordinal, second.ordinal) == (owner_of(second.key), 0, 1)
    assert log.owner_items(owner_of(first.key)) == 2 and log.owner(ANN) == owner_of(first.key)


def test_what_a_change_that_was_not_written_gave_out_is_not_known(log: StoreLog, engine: Reading) -> None:
    """Its number belongs to the next owner, and its name has to be written."""
    kept = add(log, ANN)
    engine.fail_after(0, DiskFull("no room"))
    for owner in (BEN, ANN):
        with pytest.raises(DiskFull):
            add(log, owner)
    engine.clear_faults()
    other, again = add(log, Owner("user", "eva")), add(log, BEN)
    assert [owner_of(record.key) for record in (kept, other, again)] == [1, 2, 3]
    assert log.owner(BEN) == 3 and log.owner_items(3) == 1
    assert add(log, ANN).ordinal == 1 and log.owner_items(1) == 2


def test_a_change_that_raised_leaves_nothing_known(log: StoreLog) -> None:
    def change(transaction: Transaction) -> None:
        transaction.owner(BEN)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        log.transact(change)
    assert log.owner(BEN) is None
    assert owner_of(add(log, BEN).key) == 1 and log.owner(BEN) == 1


def test_who_was_erased_gets_another_number(log: StoreLog) -> None:
    add(log, ANN)
    log.erasures.remove(bytes(16), [1], [], {}, late=False)
    assert not log._book.numbers and not log._book.values  # a name may stand nowhere any more
    assert owner_of(add(log, ANN).key) == 2
    assert log.owner(ANN) == 2 and log.owner_items(2) == 1


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warpmem.storage.owner_book._MOST", 3)
    book = OwnerBook()
    told: Any = None
    for number in range(20):
        told = {Owner("user", str(number)): number}, {number: OwnerValue("user", str(number), 0, 0)}
        book.take(told)
        assert len(book.numbers) <= 4 and len(book.values) <= 4
        assert book.numbers[Owner("user", str(number))] == number
    book.take(None)
    assert not book.numbers and not book.values
