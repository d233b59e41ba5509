"""No copy of a store that a receipt of an erasure does not name: notes are made before copies."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest

import warpmem
from durability.golden_stores import GOLDEN, open_golden
from warpmem.errors import DiskFull, InputError, StoreError, StoreReadOnly
from warpmem.storage import backup as backup_module
from warpmem.storage import backup_list, backup_notes, copies, migrate
from warpmem.storage.lock import PathLock
from warpmem.storage.rocks import RocksEngine


@pytest.fixture
def memory(tmp_path: Path) -> Any:
    with warpmem.open(tmp_path / "store", embedder="hashing") as opened:
        for n in range(20):
            opened.add(f"item {n}", user_id="ann")
        yield opened


def named(memory: warpmem.Memory) -> list[str]:
    """The backups that the receipt of an erasure names."""
    item = memory.list(user_id="ann", limit=1).items[0]
    return [known.path for known in memory.erase([item.id]).backups]


def test_an_erasure_beside_a_backup_names_it(
    memory: warpmem.Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The note was made when the backup was whole: an erasure in between said that nothing held the data."""
    real, found = backup_module.copy_store, []

    def copy_store(*arguments: Any, **options: Any) -> Any:
        found.extend(named(memory))
        return real(*arguments, **options)

    monkeypatch.setattr(backup_module, "copy_store", copy_store)
    made = memory.backup(tmp_path / "backups")
    assert found == [made.path]
    with warpmem.open(made.path, embedder="hashing", read_only=True) as copy:
        assert copy.stats().items == 20
    restored = warpmem.restore(made.path, tmp_path / "restored").path
    with warpmem.open(restored, embedder="hashing") as again:
        assert named(again) == [made.path], "a restored store knows where it came from"


@pytest.mark.parametrize("failing", ["_digests_of", "copy_store"])
def test_a_backup_that_comes_to_nothing_takes_its_note_back(
    memory: warpmem.Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """Its part was removed, or there was none yet."""

    def fail(*_: Any, **__: Any) -> Any:
        raise StoreError("an error of the disk")

    root = tmp_path / "backups"
    with monkeypatch.context() as patch:
        patch.setattr(backup_module, failing, fail)
        with pytest.raises(StoreError, match="of the disk"):
            memory.backup(root)
    assert root.exists() == (failing == "_digests_of") and warpmem.backups(root) == ()
    assert named(memory) == []


@pytest.mark.parametrize("left", [None, "mountpoint"])
@pytest.mark.parametrize("moment", ["sync_tree", "_sync_name"])
def test_a_backup_whose_disk_went_away_is_named(
    memory: warpmem.Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, left: str | None
) -> None:
    """Its note was taken back, for nothing was there any more; the disk came back with all of it."""
    root, away, real = tmp_path / "backups", tmp_path / "away", getattr(copies, moment)

    def unplugged(*arguments: Any) -> None:
        if not away.exists():
            real(*arguments)
            os.rename(root, away)
            if left:
                root.mkdir()
            raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(copies, moment, unplugged)
        with pytest.raises(StoreError, match="Input/output error"):
            memory.backup(root)
    (name,) = {entry.name.strip(".").removesuffix(".part") for entry in away.iterdir()}
    assert named(memory) == [str(root / name)]
    shutil.rmtree(root, ignore_errors=True)
    os.rename(away, root)
    whole = [str(root / name)] if moment == "_sync_name" else []
    assert [known.path for known in warpmem.backups(root)] == whole
    assert named(memory) == whole
    assert whole or os.listdir(root) == [], "the erasure has removed the part"


def test_the_part_of_a_backup_whose_process_died_goes_with_the_next(
    memory: warpmem.Memory, tmp_path: Path
) -> None:
    """It was left, with links to all tables, until a backup of the very same moment came."""
    root = tmp_path / "backups"
    dead, alive = root / ".20200101T000000.000000Z.part", root / ".20200101T000001.000000Z.part"
    for part in (dead, alive):
        (part / "whole").mkdir(parents=True)
        (part / "whole" / "000001.sst").write_bytes(b"erased long ago")
    lock = PathLock(alive)  # of a process that is still making it
    memory.backup(root)
    assert not dead.exists()
    assert alive.exists()
    lock.release()


def test_what_is_no_part_of_a_backup_stays(memory: warpmem.Memory, tmp_path: Path) -> None:
    """Every hidden directory below the root whose name ends so was removed, by a restore from there too."""
    root = tmp_path / "backups"
    foreign, alike = root / ".oscarZ.part", root / ".20200101T000000.000000Z.part"
    for folder in (foreign, alike):
        folder.mkdir(parents=True)
        (folder / "film").write_text("not ours")
    link = root / ".20200101T000001.000000Z.part"
    link.symlink_to(foreign)
    made = memory.backup(root)
    warpmem.restore(made.path, tmp_path / "restored")
    assert set(root.iterdir()) == {foreign, alike, link, Path(made.path)}
    assert os.listdir(foreign) == os.listdir(alike) == ["film"], "nor is anything written there"
    (tmp_path / ".new.part").mkdir()
    (tmp_path / ".new.part" / "film").write_text("not ours")
    with pytest.raises(InputError, match=r"\.new\.part.*where something else is \('film'\)"):
        warpmem.restore(made.path, tmp_path / "new")
    assert os.listdir(tmp_path / ".new.part") == ["film"]


def test_the_copy_of_a_migration_is_named(tmp_path: Path) -> None:
    """It holds the whole store, and no receipt knew of it."""
    store = tmp_path / "store"
    shutil.copytree(GOLDEN / "format-1" / "closed", store)
    with open_golden(store) as memory:
        first = next(iter(memory.list(scope).items[0] for scope in [warpmem.Scope(user_id="ann")]))
        assert [known.path for known in memory.erase([first.id]).backups] == [f"{store}.format-1"]


@pytest.mark.parametrize("failure", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_a_backup_that_stands_is_named_though_the_call_failed(
    memory: warpmem.Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    """Its name could not be synced, or Ctrl-C came then: the note was taken back, and it was there."""
    root = tmp_path / "backups"
    sync = copies.sync_path

    def sync_path(path: str) -> None:
        if path == str(root):
            raise failure
        sync(path)

    with monkeypatch.context() as patch:
        patch.setattr(copies, "sync_path", sync_path)
        with pytest.raises((StoreError, KeyboardInterrupt), match=r"was made and is whole|^$"):
            memory.backup(root)
    (made,) = warpmem.backups(root)
    assert named(memory) == [made.path]


def test_a_note_stays_while_what_came_to_nothing_may_come_back(
    memory: warpmem.Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C came while the part was removed: what is left of it went unnamed."""
    root = tmp_path / "backups"

    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(backup_module, "verify_store", interrupted)
        patch.setattr(copies, "shutil", Mock(wraps=shutil, rmtree=interrupted))
        with pytest.raises(KeyboardInterrupt):
            memory.backup(root)
    (part,) = root.iterdir()
    assert any(part.rglob("*.sst"))
    assert named(memory) == [] and list(root.iterdir()) == [], "an erasure removes it instead"


_KILLED = """
import os, signal, sys, warpmem
from warpmem.storage import backup
backup.verify_store = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
with warpmem.open(sys.argv[1], embedder="hashing", min_free_bytes=0) as memory:
    memory.add("a secret", user_id="ann")
    memory.backup(sys.argv[2])
"""


def kill_a_backup(folder: Path) -> tuple[Path, Path]:
    """(store, root) of a backup that was killed while it was read back."""
    store, root = folder / "store", folder / "backups"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(store), str(root)], env=environment)
    assert killed.returncode == -signal.SIGKILL
    return store, root


@pytest.mark.parametrize("removable", [True, False])
def test_what_a_killed_backup_has_left_is_removed_or_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removable: bool
) -> None:
    """The receipt named a directory that was never there; the bytes lay beside it."""
    store, root = kill_a_backup(tmp_path)
    (part,) = root.iterdir()
    assert part.name.endswith(".part")

    def refused(path: str) -> None:
        raise StoreError("not allowed")

    with warpmem.open(store, embedder="hashing") as memory:
        if removable:
            assert named(memory) == [] and list(root.iterdir()) == []
        else:
            monkeypatch.setattr(backup_notes, "remove_part", refused)
            assert named(memory) == [str(part)]
    engine = RocksEngine(store, read_only=True)
    assert len(backup_notes.noted_backups(engine)) == (not removable)
    engine.close()


def test_the_note_of_a_killed_backup_goes_with_what_it_has_left(tmp_path: Path) -> None:
    """The next backup removed that, and receipts went on naming a directory that was never there."""
    store, root = kill_a_backup(tmp_path)
    with warpmem.open(store, embedder="hashing") as memory:
        made = memory.backup(root)
        assert [entry.name for entry in root.iterdir()] == [Path(made.path).name]
        assert named(memory) == [made.path]


def test_a_backup_that_is_being_made_is_left_alone_and_named(
    memory: warpmem.Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, found = backup_module.verify_store, []

    def verify(*arguments: Any, **options: Any) -> Any:
        found.extend(named(memory))
        return real(*arguments, **options)

    monkeypatch.setattr(backup_module, "verify_store", verify)
    assert found == [] and [memory.backup(tmp_path / "backups").path] == found


def test_a_restored_store_knows_later_backups_and_where_they_are_now(
    memory: warpmem.Memory, tmp_path: Path
) -> None:
    """It knew what the restored backup knew, at the place of then."""
    for _ in range(2):
        memory.backup(tmp_path / "backups")
    with warpmem.open(tmp_path / "other", embedder="hashing") as other:
        other.add("not of this store", user_id="ann")
        others = other.backup(tmp_path / "backups").path
        broken = Path(other.backup(tmp_path / "backups").path)
    (broken / "warpmem.backup").write_text("{")
    moved = tmp_path / "moved"
    os.rename(tmp_path / "backups", moved)
    first, later, unknown = sorted(str(path) for path in moved.iterdir() if path.name != Path(others).name)
    before = {file: file.read_bytes() for file in Path(first).iterdir()}
    warpmem.restore(first, tmp_path / "restored")
    assert {file: file.read_bytes() for file in Path(first).iterdir()} == before
    assert warpmem.verify(tmp_path / "restored").ok
    with warpmem.open(tmp_path / "restored", embedder="hashing") as restored:
        receipt = named(restored)
    assert {first, later, unknown} <= set(receipt) and str(moved / Path(others).name) not in receipt


def test_a_backup_is_named_once_however_it_was_reached(memory: warpmem.Memory, tmp_path: Path) -> None:
    """Restored through a link to its root, it had two names."""
    root, link, moved = tmp_path / "backups", tmp_path / "link", tmp_path / "moved"
    made = Path(memory.backup(root).path)
    link.symlink_to(root)
    warpmem.restore(link / made.name, tmp_path / "restored")
    with warpmem.open(tmp_path / "restored", embedder="hashing") as restored:
        assert named(restored) == [str(made)]
        shutil.copytree(root, moved)
        link.unlink()
        link.symlink_to(moved)
        assert set(named(restored)) == {str(made), str(link / made.name)}, "they are two by now"


def test_a_backup_of_an_older_format_is_restored_with_its_notes(tmp_path: Path) -> None:
    old = tmp_path / "backups" / "1"
    shutil.copytree(GOLDEN / "format-1" / "closed", old)
    files = dict(backup_module._digests_of(str(old)))
    for name, age in (("1", 0), ("2", 1)):
        made = warpmem.Backup(
            path="", at=datetime(2026, 1, 1 + age, tzinfo=UTC), sequence=1, items=1, format=1, model_id="m",
            dimension=1, files=len(files), bytes=1, shared_bytes=0, pause_seconds=0, seconds=0, verified=True,
        )  # fmt: skip
        (tmp_path / "backups" / name).mkdir(exist_ok=True)
        content = backup_list.BackupFile(1, "same", made, files)
        (tmp_path / "backups" / name / "warpmem.backup").write_bytes(msgspec.json.encode(content))
    warpmem.restore(old, tmp_path / "restored")
    with pytest.raises(StoreReadOnly, match="is a backup"):
        open_golden(old)
    with open_golden(tmp_path / "restored") as memory:
        first = memory.list(user_id="ann").items[0]
        places = [Path(known.path) for known in memory.erase([first.id]).backups]
    assert set(places) == {old, old.with_name("2"), tmp_path / "restored.format-1"}


def test_a_repaired_store_names_the_original(memory: warpmem.Memory, tmp_path: Path) -> None:
    """It holds everything, and no receipt knew of it; nor of the backups beside a backup."""
    first, later = (memory.backup(tmp_path / "backups").path for _ in range(2))
    memory.close()
    for original, place in ((str(tmp_path / "store"), "new"), (first, "newer")):
        assert warpmem.repair(original, tmp_path / place).ok
        with warpmem.open(tmp_path / place, embedder="hashing") as repaired:
            assert set(named(repaired)) == {original, first, later}
    shutil.rmtree(tmp_path / "store")
    os.rename(tmp_path / "new", tmp_path / "store")
    with warpmem.open(tmp_path / "store", embedder="hashing") as in_its_place:
        assert named(in_its_place) == [first, later], "nobody is told to remove the store itself"


def test_the_copy_of_a_migration_that_was_cut_short_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was noted with the identity, by the call that got so far: at the place that this one named."""
    store, place = tmp_path / "store", tmp_path / "elsewhere"
    shutil.copytree(GOLDEN / "format-1" / "closed", store)

    def die(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(migrate, "identity_entry", die)
        with pytest.raises(KeyboardInterrupt):
            open_golden(store, migration_backup=str(place))
    with open_golden(store) as memory:
        first = memory.list(user_id="ann").items[0]
        assert [known.path for known in memory.erase([first.id]).backups] == [str(place)]


def test_a_migration_whose_note_failed_can_be_tried_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error kept the store locked while it was looked at."""
    store, real = tmp_path / "store", backup_notes.call
    shutil.copytree(GOLDEN / "format-1" / "closed", store)

    def call(function: Any, *arguments: Any) -> Any:
        if function.__name__ == "flush":
            raise DiskFull("no room")
        return real(function, *arguments)

    monkeypatch.setattr(backup_notes, "call", call)
    with pytest.raises(DiskFull) as failed:
        open_golden(store)
    assert failed.value.__traceback__ is not None
    assert os.listdir(tmp_path) == ["store"], "nothing is copied before it is noted"
    monkeypatch.undo()
    open_golden(store).close()


def test_the_copy_of_a_migration_that_failed_is_not_named(tmp_path: Path) -> None:
    store, inside = tmp_path / "store", tmp_path / "link"
    shutil.copytree(GOLDEN / "format-1" / "closed", store)
    inside.symlink_to(store)
    with pytest.raises(InputError, match="inside the store"):
        open_golden(store, migration_backup=str(inside / "copy"))
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(InputError, match="cannot be a new directory"):
        open_golden(store, migration_backup=str(tmp_path / "file" / "copy"))
    with open_golden(store) as memory:
        first = memory.list(user_id="ann").items[0]
        assert [known.path for known in memory.erase([first.id]).backups] == [f"{store}.format-1"]
