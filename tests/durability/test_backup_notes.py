"""No backup that a receipt of an erasure does not name: notes are made before backups."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import warpmem
from durability.golden_stores import GOLDEN, open_golden
from warpmem.errors import StoreError
from warpmem.storage import backup as backup_module
from warpmem.storage.lock import PathLock


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


def test_a_backup_that_comes_to_nothing_takes_its_note_back(
    memory: warpmem.Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy_store(*arguments: Any, **options: Any) -> Any:
        raise StoreError("the disk went away")

    with monkeypatch.context() as patch:
        patch.setattr(backup_module, "copy_store", copy_store)
        with pytest.raises(StoreError, match="went away"):
            memory.backup(tmp_path / "backups")
    assert named(memory) == []


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


def test_the_copy_of_a_migration_is_named(tmp_path: Path) -> None:
    """It holds the whole store, and no receipt knew of it."""
    store = tmp_path / "store"
    shutil.copytree(GOLDEN / "format-1" / "closed", store)
    with open_golden(store) as memory:
        first = next(iter(memory.list(scope).items[0] for scope in [warpmem.Scope(user_id="ann")]))
        assert [known.path for known in memory.erase([first.id]).backups] == [f"{store}.format-1"]
