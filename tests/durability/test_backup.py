"""Backups: whole, consistent and verified, or not there; restored, they are the store of that moment."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest

import warpmem
from durability.harness import run_kills
from warpmem.errors import FormatError, InputError, NotSupported, StoreCorrupt, StoreError, StoreReadOnly
from warpmem.storage.backup import alone
from warpmem.storage.backup_notes import noted_backups
from warpmem.storage.rocks import RocksEngine

TEXTS = 30


def open_store(path: Path, **options: object) -> warpmem.Memory:
    return warpmem.open(path, embedder="hashing", min_free_bytes=0, **options)


def texts(path: Path) -> list[str]:
    with open_store(path) as memory:
        return sorted(item.text for item in memory.list(user_id="u", limit=10_000, include_past=True))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with open_store(tmp_path / "store") as memory:
        memory.add_many([f"item {n}" for n in range(TEXTS)], user_id="u")
    return tmp_path / "store"


def test_a_backup_opens_and_the_next_one_shares_its_tables(store: Path, tmp_path: Path) -> None:
    root = tmp_path / "backups"
    with open_store(store) as memory:
        first = memory.backup(root)
        memory.add("later", user_id="u")
        second = memory.backup(root)
    assert warpmem.backups(root) == (first, second)
    assert first.verified and first.items == TEXTS and first.sequence == TEXTS and first.pause_seconds > 0
    assert second.items == TEXTS + 1
    tables = {file.name for file in Path(first.path).glob("*.sst")}
    assert tables
    for name in tables:
        assert (Path(first.path) / name).samefile(Path(second.path) / name)
    assert second.shared_bytes >= sum((Path(first.path) / name).stat().st_size for name in tables)
    for backup, count in ((first, TEXTS), (second, TEXTS + 1)):
        with open_store(Path(backup.path), read_only=True) as memory:
            assert memory.count(user_id="u") == count
            assert len(memory.search("item", user_id="u", k=100)) == count
    assert not (store / "warpmem.snapshot").exists()
    engine = RocksEngine(store, read_only=True)
    assert [note.path for note in noted_backups(engine)] == [first.path, second.path]
    engine.close()


@pytest.mark.parametrize("link", [True, False])
def test_restore_is_the_store_of_that_moment_and_leaves_the_backup_alone(
    store: Path, tmp_path: Path, link: bool
) -> None:
    with open_store(store) as memory:
        backup = memory.backup(tmp_path / "backups")
        memory.delete(memory.list(user_id="u").items[0].id)
    restored = tmp_path / "restored"
    assert warpmem.restore(backup.path, restored, link=link).path == str(restored)
    for file in restored.iterdir():
        shared = file.stat().st_nlink > 1
        assert shared == (link and file.suffix == ".sst"), file.name
    before = {file.name: file.read_bytes() for file in Path(backup.path).iterdir()}
    assert len(texts(restored)) == TEXTS
    with open_store(restored) as memory:
        memory.add("in the restored one", user_id="u")
    assert {file.name: file.read_bytes() for file in Path(backup.path).iterdir()} == before
    assert warpmem.verify(restored).ok and warpmem.verify(backup.path).ok
    assert not (restored / "warpmem.backup").exists()


def test_restore_refuses_what_is_taken_and_what_is_no_backup(store: Path, tmp_path: Path) -> None:
    with open_store(store) as memory:
        backup = memory.backup(tmp_path / "backups")
    with pytest.raises(InputError, match="not empty"):
        warpmem.restore(backup.path, store)
    assert len(texts(store)) == TEXTS
    with pytest.raises(FormatError, match="no backup"):
        warpmem.restore(store, tmp_path / "new")
    with pytest.raises(InputError, match="inside"):
        warpmem.restore(backup.path, Path(backup.path) / "new")
    assert not (Path(backup.path) / "new").exists()
    content = json.loads((Path(backup.path) / "warpmem.backup").read_text())
    content["version"] = 2
    (Path(backup.path) / "warpmem.backup").write_text(json.dumps(content))
    with pytest.raises(FormatError, match="format 2, this warpmem reads up to 1"):
        warpmem.restore(backup.path, tmp_path / "new")
    (Path(backup.path) / "warpmem.backup").write_text("{")
    with pytest.raises(StoreCorrupt, match="damaged"):
        warpmem.restore(backup.path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("content", ["{", '{"version": 99}'], ids=["damaged", "newer"])
def test_a_backup_that_cannot_be_read_does_not_stop_new_ones(
    store: Path, tmp_path: Path, content: str
) -> None:
    root = tmp_path / "backups"
    with open_store(store) as memory:
        first = memory.backup(root)
        (Path(first.path) / "warpmem.backup").write_text(content)
        second = memory.backup(root)
    with pytest.raises((StoreCorrupt, FormatError), match=re.escape(first.path)):
        warpmem.backups(root)
    warpmem.restore(second.path, tmp_path / "new")
    assert len(texts(tmp_path / "new")) == TEXTS


@pytest.mark.parametrize("pattern", ["*.sst", "MANIFEST-*", "CURRENT", "OPTIONS-*", "rocksdict-config.json"])
def test_a_damaged_backup_is_not_restored(store: Path, tmp_path: Path, pattern: str) -> None:
    with open_store(store) as memory:
        backup = memory.backup(tmp_path / "backups")
    file = next(Path(backup.path).glob(pattern))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.unlink()
    file.write_bytes(data)
    with pytest.raises(StoreCorrupt, match=file.name):
        warpmem.restore(backup.path, tmp_path / "new")
    file.unlink()
    with pytest.raises(StoreCorrupt, match=file.name):
        warpmem.restore(backup.path, tmp_path / "new")
    assert sorted(os.listdir(tmp_path)) == ["backups", "store"]


def test_a_table_that_changed_since_the_last_backup_is_found(store: Path, tmp_path: Path) -> None:
    with open_store(store) as memory:
        first = memory.backup(tmp_path / "backups")
        # A byte of a table's properties, which RocksDB reads only when it opens the table.
        file = next(Path(first.path).glob("*.sst"))
        data = bytearray(file.read_bytes())
        data[data.index(b"rocksdb.") + 9] ^= 1
        file.write_bytes(data)
        with pytest.raises(StoreCorrupt, match="no backup was made"):
            memory.backup(tmp_path / "backups", verify=False)
    assert os.listdir(tmp_path / "backups") == [Path(first.path).name]


def test_a_damaged_store_gives_no_backup(store: Path, tmp_path: Path) -> None:
    file = max(store.glob("*.sst"), key=lambda table: table.stat().st_size)
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    with open_store(store) as memory, pytest.raises(StoreCorrupt, match="does not verify"):
        memory.backup(tmp_path / "backups")
    assert not (tmp_path / "backups").exists() or os.listdir(tmp_path / "backups") == []
    assert not (store / "warpmem.snapshot").exists()


def test_no_backup_while_an_erasure_is_unfinished(store: Path, tmp_path: Path) -> None:
    key = b"erase" + bytes(20)
    with open_store(store) as memory:
        memory._log.transact(lambda transaction: transaction.keep(key, b"\x90"))
        with pytest.raises(StoreError, match="an erasure is unfinished"):
            memory.backup(tmp_path / "backups")


def test_nothing_is_written_to_a_backup(store: Path, tmp_path: Path) -> None:
    """A backup of a backup opened it and added a note, and the first could not be restored any more."""
    with open_store(store) as memory:
        made = memory.backup(tmp_path / "backups")
    with pytest.raises(StoreReadOnly, match=r"is a backup.*copy the directory"):
        warpmem.backup(made.path, tmp_path / "offsite")
    with pytest.raises(StoreReadOnly, match="is a backup"):
        open_store(Path(made.path))
    for options in ({"read_only": True}, {"follow": True}):
        with open_store(Path(made.path), **options) as memory:
            assert memory.count(user_id="u") == TEXTS
    shutil.copytree(made.path, tmp_path / "offsite" / "copy")
    for number, backup in enumerate((made.path, tmp_path / "offsite" / "copy")):
        warpmem.restore(backup, tmp_path / f"restored-{number}")


def test_on_another_disk_earlier_backups_are_shared(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def other_device(origin: str, copy: str) -> None:
        if "warpmem.snapshot" in str(origin):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        link(origin, copy)

    monkeypatch.setattr(os, "link", other_device)
    with open_store(store) as memory:
        first = memory.backup(tmp_path / "backups")
        second = memory.backup(tmp_path / "backups")
    assert first.shared_bytes == 0
    for table in Path(first.path).glob("*.sst"):
        assert table.samefile(Path(second.path) / table.name)


def test_what_cannot_be_backed_up_says_so(store: Path, tmp_path: Path) -> None:
    with warpmem.open(embedder="hashing") as memory, pytest.raises(NotSupported, match="export"):
        memory.backup(tmp_path / "backups")
    with open_store(store, read_only=True) as memory, pytest.raises(StoreReadOnly):
        memory.backup(tmp_path / "backups")
    with open_store(store) as memory, pytest.raises(InputError, match="inside the store"):
        memory.backup(store / "backups")
    (tmp_path / "link").symlink_to(store)
    with open_store(store) as memory, pytest.raises(InputError, match="inside the store"):
        memory.backup(tmp_path / "link" / "backups")
    (tmp_path / "link").unlink()
    with open_store(store) as memory, pytest.raises(InputError, match="must be a path"):
        memory.backup(5)  # type: ignore[arg-type]
    assert sorted(os.listdir(tmp_path)) == ["store"]


@pytest.mark.parametrize("bad", ["a\0b", "a\udcffb"])
def test_paths_that_no_store_has_are_refused(store: Path, tmp_path: Path, bad: str) -> None:
    """They were a ValueError of `os`, and a UnicodeEncodeError of the note."""
    reason, bad = "NUL" if "\0" in bad else "UTF-8", str(tmp_path / bad)
    with warpmem.open(store, embedder="hashing") as memory:
        made = memory.backup(tmp_path / "backups")
        with pytest.raises(InputError, match=reason):
            memory.backup(bad)
        if reason == "UTF-8":  # a file may have such a name
            assert memory.export(bad) == TEXTS and memory.import_(bad).refused == ()
        else:
            for call in (memory.export, memory.import_):
                with pytest.raises(InputError, match="NUL"):
                    call(bad)
    for arguments in ((made.path, bad), (bad, str(tmp_path / "new"))):
        with pytest.raises(InputError, match=reason):
            warpmem.restore(*arguments)
    with pytest.raises(InputError, match=reason):
        warpmem.backups(bad)


def test_backups_while_others_write(tmp_path: Path) -> None:
    """Every backup holds all that was acknowledged before it began, and each list of items whole."""
    done: list[int] = []
    stop = threading.Event()
    with open_store(tmp_path / "store", memtable_bytes=64 << 10) as memory:

        def write() -> None:
            n = 0
            while not stop.is_set():
                memory.add_many([f"item {n} {part}" for part in range(3)], user_id="u")
                done.append(n)
                n += 1

        writer = threading.Thread(target=write)
        writer.start()
        try:
            made = []
            for _ in range(3):
                before = len(done)
                made.append((before, memory.backup(tmp_path / "backups")))
                with pytest.raises(StoreError, match="wait for it"), alone(str(tmp_path / "store")):
                    memory.backup(tmp_path / "backups")
        finally:
            stop.set()
            writer.join()
    for before, backup in made:
        with open_store(Path(backup.path), read_only=True) as copy:
            found = [item.text for item in copy.list(user_id="u", limit=10_000)]
        assert len(found) % 3 == 0 and len(found) == backup.items
        assert {f"item {n} {part}" for n in range(before) for part in range(3)} <= set(found)


# ------------------------------------------------------------------------------------------- kill -9


def child(path: str, seed: int, acknowledge: object) -> None:
    """Backs up a growing store without end; acknowledges each backup with what it must hold."""
    root = f"{path}-backups"
    memory = open_store(Path(path), memtable_bytes=64 << 10)
    while True:
        added = memory.add_many([f"{uuid.uuid4()} {'words ' * 100}" for _ in range(3)], user_id="u")
        memory.update(added[0].id, text=str(uuid.uuid4()))
        memory.delete(added[1].id)
        backup = memory.backup(root, verify=False)
        acknowledge(f"{backup.path} {backup.sequence}".encode())  # type: ignore[operator]


def check(path: str, acknowledged: Sequence[bytes]) -> None:
    """What looks like a backup is one, every acknowledged one is there, and the store is as good as ever."""
    root = Path(f"{path}-backups")
    listed = {backup.path: backup.sequence for backup in warpmem.backups(root)}
    for token in acknowledged:
        place, sequence = token.decode().rsplit(" ", 1)
        assert listed[place] == int(sequence)
    for folder in root.iterdir() if root.exists() else ():
        assert folder.name.startswith(".") or str(folder) in listed, f"{folder.name} looks like a backup"
    if listed:
        last = max(listed)
        restored = f"{path}-restored"
        shutil.rmtree(restored, ignore_errors=True)
        warpmem.restore(last, restored)
        assert warpmem.verify(restored).ok
    open_store(Path(path)).close()
    assert not (Path(path) / "warpmem.snapshot").exists()
    assert warpmem.verify(path).ok


def kill_backups(folder: Path, kills: int, seed: int) -> int:
    """Kill a process that makes backups, `kills` times; returns how many backups were acknowledged."""
    return run_kills(
        "durability.test_backup:child", check, folder, kills=kills, seed=seed, fresh_every=10, longest=3.0
    )


@pytest.mark.slow
def test_kill_9_during_backup(tmp_path: Path) -> None:
    assert kill_backups(tmp_path, kills=6, seed=1) > 0
