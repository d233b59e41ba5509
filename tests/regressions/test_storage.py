"""Faults of the store that were mended, one test each."""

from __future__ import annotations

import errno
import os
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import warpmem
from warpmem import NewItem
from warpmem.errors import DiskFull, NotFound, StoreCorrupt, StoreError, StoreReadOnly
from warpmem.memory.editor import Editor
from warpmem.ops.clock import FixedClock
from warpmem.storage import backup, codec, disk, values
from warpmem.storage.directory import SNAPSHOT_NAME
from warpmem.storage.erasure import StoreErasures
from warpmem.storage.rocks import RocksEngine


def test_a_checkpoint_that_cannot_be_put_in_place_is_a_typed_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """os.replace failed, and its OSError came out of Memory.checkpoint()."""
    with warpmem.open(tmp_path, embedder="hashing") as memory:
        memory.add("a fact", user_id="ann")

        def fail(source: str, target: str) -> None:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fail)
            with pytest.raises(StoreError, match="checkpoint was not replaced"):
                memory.checkpoint()
        memory.add("another", user_id="ann")
        assert memory.checkpoint()


def test_a_walk_is_not_ended_by_what_is_written_behind_it(tmp_path: Path) -> None:
    """An owner could not be loaded while he was added to: what had come since the walk began was taken for
    entries that it had lost."""
    with closing(RocksEngine(str(tmp_path / "store"))) as engine:
        keys = [n.to_bytes(24, "big") for n in range(3000)]
        for size in (100, 2999, 3000, 5000):
            for gone in ([], [keys[-1]], keys[1000:]):
                engine.clear("items")
                engine.write([("items", key, b"x") for key in keys])
                walk = engine.chunks("items", b"", b"\x01" + bytes(23), size)
                found = next(walk)[0]
                engine.write([("items", key, None) for key in gone])
                engine.write([("items", n.to_bytes(24, "big"), b"y") for n in range(4000, 4010)])
                found += [key for some, _ in walk for key in some]
                assert found[:3000] == keys and found == sorted(set(found))


def test_a_time_beyond_all_years_is_damage() -> None:
    """A value whose checksum holds but whose time is none raised OverflowError."""
    item = values.ItemValue(
        ("ann", None, None, None), "fact", "text", "text", None, {}, 0.5, None, (), (), 1.0, 1, "m", 0, 0,
        1 << 62, 0, 1 << 62, 0, 1 << 62, 0, "add",
    )  # fmt: skip
    with pytest.raises(StoreCorrupt, match="a time that is none"):
        values.make_record(bytes(20), item)
    whole = msgspec.structs.replace(item, expires_at=2**63 - 1, valid_to=2**63 - 1, retired_at=2**63 - 1)
    assert values.make_record(bytes(20), whole).item.text == "text"


def test_a_disk_that_somebody_else_fills_is_seen_before_the_next_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The free space was asked for every 64 writes only, and a write then met a full disk."""
    free = 1 << 30
    monkeypatch.setattr(disk, "free_bytes", lambda path: free)
    guard = disk.SpaceGuard(tmp_path, 1 << 20, lambda: 0)
    guard.before(100)
    free = 1 << 20
    with pytest.raises(DiskFull):
        guard.before(100)
    free = 1 << 30
    guard.before(100)


def test_a_repair_gives_no_name_back_to_an_owner_who_is_being_erased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The erasure was finished after the repair, and took the name from the owner's successor: what was
    added since could not be found any more."""

    def fail(*arguments: object) -> None:
        raise StoreError("the process died here")

    with warpmem.open(tmp_path / "store", embedder="hashing") as memory:
        memory.add("to be erased", user_id="ann")
        with monkeypatch.context() as patch:
            patch.setattr(StoreErasures, "_remove_items", fail)
            with pytest.raises(StoreError, match="died here"):
                memory.erase(user_id="ann")
        memory.add("added since", user_id="ann")
    warpmem.repair(tmp_path / "store", tmp_path / "new")
    with warpmem.open(tmp_path / "new", embedder="hashing") as memory:
        assert memory.stats().pending_erasures == 0
        assert [hit.item.text for hit in memory.search("added", user_id="ann")] == ["added since"]
        assert [item.text for item in memory.list(user_id="ann").items] == ["added since"]


def test_the_feed_never_tells_of_a_change_whose_sync_failed() -> None:
    """A replayed idempotent call, which writes nothing, moved the feed on to what was written before it."""
    with warpmem.open(None, embedder="hashing") as memory:
        memory.add("known", user_id="ann", idempotency_key="call")
        memory._log._engine.fail_sync(StoreError("broken"))  # type: ignore[attr-defined]
        with pytest.raises(StoreReadOnly):
            memory.add("never durable", user_id="ann")
        assert memory.add("known", user_id="ann", idempotency_key="call", durability="os").action == "added"
        assert [change.cursor for change in memory.changes()] == [1]


def test_outcomes_of_idempotent_calls_do_not_pile_up_behind_batches() -> None:
    """Each call forgets up to four that are out of date; those of one change all forgot the same four."""
    clock = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
    with warpmem.open(None, embedder="hashing", clock=clock) as memory:
        for week in range(4):
            calls = [NewItem(text=f"item {week} {n}", idempotency_key=f"{week}-{n}") for n in range(50)]
            memory.add_many(calls, user_id="ann")
            clock.advance(timedelta(days=8))
        engine = memory._log._engine  # type: ignore[attr-defined]
        kinds = Counter(key[4:5] for key, _ in engine.scan("lookup", b"", codec.KEYS_END))
        assert kinds[codec.IDEMPOTENCY] == kinds[codec.REMEMBERED] == 50


def test_an_update_beside_an_erasure_brings_no_erased_id_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had read the item before the erasure took the id out of its sources, and stored what it had read."""
    with warpmem.open(tmp_path, embedder="hashing") as memory:
        sources = [memory.add(f"source {n}", user_id="ann").id for n in range(2)]
        derived = memory.add(NewItem(text="derived", sources=sources), user_id="ann").id
        corrected = Editor._corrected

        def beside(self: Editor, *arguments: Any) -> Any:
            if memory.get_many(sources[:1]) != (None,):
                memory.erase(sources[:1])
            return corrected(self, *arguments)

        monkeypatch.setattr(Editor, "_corrected", beside)
        assert memory.update(derived, text="derived again").sources == (sources[1],)
        assert memory.get(derived).sources == (sources[1],)
        assert memory.update(derived, sources=["elsewhere"]).sources == ("elsewhere",)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_backup_for_which_the_store_has_no_room_is_a_typed_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """os.mkdir failed inside the store, and its OSError came out of Memory.backup()."""
    mkdir = os.mkdir

    def fail(path: Any, *arguments: Any) -> None:
        if str(path).endswith(SNAPSHOT_NAME):
            raise OSError(number, os.strerror(number))
        mkdir(path, *arguments)

    with warpmem.open(tmp_path / "store", embedder="hashing") as memory:
        memory.add("a fact", user_id="ann")
        monkeypatch.setattr(os, "mkdir", fail)
        with pytest.raises(DiskFull if number == errno.ENOSPC else StoreError, match="backups"):
            memory.backup(tmp_path / "backups")
        monkeypatch.undo()
        assert memory.backup(tmp_path / "backups").items == 1


def test_two_stores_of_one_process_are_backed_up_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second was refused: one backup at a time was meant for one store."""
    copy_out = backup._copy_out
    with (
        warpmem.open(tmp_path / "first", embedder="hashing") as first,
        warpmem.open(tmp_path / "second", embedder="hashing") as second,
    ):
        refused: list[str] = []

        def beside(log: Any, engine: RocksEngine, *arguments: Any) -> Any:
            if engine.path == str(tmp_path / "first"):
                assert second.backup(tmp_path / "backups").items == 0
                with pytest.raises(StoreError, match="a backup is being made") as caught:
                    first.backup(tmp_path / "elsewhere")
                refused.append(str(caught.value))
            return copy_out(log, engine, *arguments)

        monkeypatch.setattr(backup, "_copy_out", beside)
        first.add("a fact", user_id="ann")
        assert first.backup(tmp_path / "backups").items == 1 and refused
    assert [made.items for made in warpmem.backups(tmp_path / "backups")] == [1, 0]


@pytest.mark.parametrize("what", ["update", "delete", "erase"])
def test_a_history_is_of_one_moment(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past versions were read first and then the current one: what was retired in between was in neither."""
    with warpmem.open(None, embedder="hashing") as memory:
        item_id = memory.add("version 1", user_id="ann").id
        memory.update(item_id, text="version 2")
        engine: Any = memory._log._engine  # type: ignore[attr-defined]
        scan = engine.scan

        def and_then_change(family: str, *bounds: Any, **options: Any) -> Any:
            found = scan(family, *bounds, **options)
            if family == "history":
                monkeypatch.undo()
                if what == "update":
                    memory.update(item_id, text="version 3")
                elif what == "delete":
                    memory.delete(item_id)
                else:
                    memory.erase([item_id])
            return found

        monkeypatch.setattr(engine, "scan", and_then_change)
        try:
            seen = [(entry.operation, entry.item and entry.item.version) for entry in memory.history(item_id)]
        except NotFound:
            seen = []
        made: list[Any] = [("add", 1), ("update", 2)]
        after = {"update": [*made, ("update", 3)], "delete": [*made, ("delete", None)], "erase": []}
        assert seen in (made, after[what])


@pytest.mark.parametrize("gone", [2, 4, 5])
def test_a_power_loss_that_took_a_change_and_left_the_next(tmp_path: Path, gone: int) -> None:
    """Both waited for one sync, and RocksDB had begun a file between them: the store opened, and counted an
    item that was not there."""
    path = tmp_path / "store"
    with warpmem.open(path, embedder="hashing") as memory:
        items = [memory.add(f"note {n}", user_id="u").id for n in range(6)]
    with closing(RocksEngine(path)) as engine:
        engine.write([("log", codec.log_key(gone), None)])
        engine.sync()
    with pytest.raises(StoreCorrupt, match=rf"change {gone} is missing, and change {gone + 1} is there"):
        warpmem.open(path, embedder="hashing")
    with warpmem.open(path, embedder="hashing", read_only=True) as memory:
        assert memory.get(items[0]).text == "note 0"
    report = warpmem.repair(path, tmp_path / "repaired")
    assert [lost.sequence for lost in report.lost] == [gone]
    assert warpmem.verify(tmp_path / "repaired").ok
    with warpmem.open(tmp_path / "repaired", embedder="hashing") as memory:
        memory.add("another", user_id="u")
        assert memory.stats().items == len(memory.list(user_id="u").items)
