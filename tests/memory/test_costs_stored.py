"""Costs in files: copied, mended and verified with the store, and gone with who is erased."""

from __future__ import annotations

import random
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import warpmem
from cost_stores import ALL, kept, ledger, open_store, user
from durability.canaries import Canaries
from warpmem import Budget
from warpmem.errors import StoreCorrupt, StoreReadOnly
from warpmem.ops.clock import FixedClock
from warpmem.ops.costs import PREFIX, cost_key


def test_costs_go_with_who_is_erased(tmp_path: Path, clock: FixedClock) -> None:
    path, canaries = tmp_path / "store", Canaries(random.Random(1))
    with open_store(path, clock) as memory:
        gone = canaries.word("gone")
        memory.add("a note", user_id=gone)
        memory.add("a note", user_id="stays")
        memory.flush()
        clock.advance(timedelta(days=1))
        memory.add("another note", user_id=gone)
        memory.flush()
        memory.search("note", user_id=gone)
        number = memory._log.owner(warpmem.Owner("user", gone))
        assert number == 1
        memory.erase(user_id=gone)
        assert [row.scope for row in memory.costs(by=("scope",))] == [user("stays")]
        assert canaries.in_objects() == []
        memory.add("anew", user_id=gone)
        assert memory.costs(user_id=gone)[0].calls == 1
    assert all(key[8:] != (1).to_bytes(4, "big") for key in kept(path))
    assert cost_key(20_454, 1) not in b"".join(file.read_bytes() for file in path.glob("*.sst"))
    assert warpmem.verify(path).ok


def test_an_erasure_while_costs_are_on_their_way_leaves_no_name(clock: FixedClock) -> None:
    with open_store(None, clock) as memory:
        memory.add("a note", user_id="gone")
        costs, log = ledger(memory, [0.0])
        costs.spend((warpmem.Owner("user", "gone"), "interactive", "search", "m"), 7)
        log.refuses = True

        def erase(*_: Any) -> Any:
            memory.erase(user_id="gone")
            costs.forget(lambda owner: True)
            raise StoreReadOnly("no")

        log.transact = erase  # type: ignore[method-assign]
        assert not costs.store()
        assert costs._new == {}


def test_backups_and_repairs_have_them(tmp_path: Path, clock: FixedClock) -> None:
    path = tmp_path / "store"
    with open_store(path, clock) as memory:
        memory.add("one", user_id="a")
        memory.flush()
        backup = memory.backup(tmp_path / "backups")
        wanted = memory.costs(by=ALL)
    with open_store(Path(backup.path), clock, read_only=True) as memory:
        assert memory.costs(by=ALL) == wanted
    assert warpmem.repair(path, tmp_path / "new").ok
    with open_store(tmp_path / "new", clock) as memory:
        assert memory.costs(by=ALL) == wanted


def test_a_repair_brings_no_costs_of_who_is_being_erased(tmp_path: Path, clock: FixedClock) -> None:
    path = tmp_path / "store"
    with open_store(path, clock) as memory:
        memory.add("one", user_id="a")
        memory.add("one", user_id="b")
        memory.flush()
        erasures = memory._log.erasures
        erasures._remove = lambda *_: {}  # type: ignore[attr-defined]
        erasures.remove(bytes(16), [1], [], {}, late=True)
        memory._log._engine.sync()  # type: ignore[attr-defined]
        shutil.copytree(path, tmp_path / "copy", ignore=shutil.ignore_patterns("warpmem.lock", "LOCK"))
    warpmem.repair(tmp_path / "copy", tmp_path / "new")
    assert [key[8:] for key in kept(tmp_path / "new")] == [(2).to_bytes(4, "big")]


@pytest.mark.parametrize(
    ("key", "payload", "what"),
    [
        (cost_key(20_453, 9), b"\x90", "costs of owner 9, whom there is not"),
        (cost_key(20_453, 1), b"\x91\x01", "a day of costs cannot be read"),
        (PREFIX + b"!", b"\x90", "a key of costs has 5 bytes, expected 12"),
    ],
)
def test_verify_knows_them(tmp_path: Path, clock: FixedClock, key: bytes, payload: bytes, what: str) -> None:
    path = tmp_path / "store"
    with open_store(path, clock) as memory:
        memory.add("one", user_id="a")
        memory._log.transact(lambda transaction: transaction.keep(key, payload))
    (fault,) = warpmem.verify(path).faults
    assert fault.family == "meta" and what in fault.what


def test_damaged_totals_stop_nobody(clock: FixedClock) -> None:
    """They are told by verify and by the log; a search or a change has nothing to do with them."""
    with open_store(None, clock, owner_limit=Budget(money=1e6)) as memory:
        memory.add("one", user_id="a")
        key = cost_key(20_454, 1)
        memory._log._engine.write([("meta", key, b"not a value")])  # type: ignore[attr-defined]
        with pytest.raises(StoreCorrupt):
            memory.costs()
        memory.search("one two", user_id="a")
        memory.add("two", user_id="a")
        memory.flush()
        assert memory.costs(user_id="a")[0].calls == 3, "the day began anew"
