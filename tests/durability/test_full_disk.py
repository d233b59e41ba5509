"""A disk without a free byte: the store reopens from its reserve, reads go on, deletions are still taken."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpmem
from durability.changes import operations, read_all
from durability.harness import run_script
from warpmem.errors import DiskFull, StoreError
from warpmem.storage import directory, disk
from warpmem.storage.reserve import RESERVE_NAME, Reserve
from warpmem.storage.rocks import RocksEngine
from warpmem.storage.rocks_follow import FollowingEngine

DISK = "32m"


MIB = 1 << 20


def fill_up(folder: Path) -> None:
    """Leave not one byte free."""
    file = os.open(folder / "ballast", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for size in (1 << 16, 1):
            try:
                while os.write(file, bytes(size)) == size:
                    pass
            except OSError:
                continue
    finally:
        os.close(file)
    assert disk.free_bytes(folder) == 0


_CRASH = """
import os, sys
from durability.changes import operations
from warpmem.storage.rocks import RocksEngine

path, changes, min_free = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
engine = RocksEngine(path, min_free_bytes=min_free)
for sequence in range(1, changes + 1):
    engine.write(operations(sequence, b"%8d" % sequence, 1_000))
engine.sync()
os._exit(0)
"""


def crashed_store(path: Path, changes: int, min_free: int) -> None:
    """A store whose writer was killed: everything is in the write-ahead log."""
    run_script(_CRASH, str(path), str(changes), str(min_free))


def test_a_store_reopens_on_a_full_disk(small_disk: Path) -> None:
    """With more in the write-ahead log than the reserve holds, so that it cannot be written into tables."""
    store = small_disk / "store"
    crashed_store(store, 2_000, 4 * MIB)
    assert (store / RESERVE_NAME).stat().st_size == MIB
    fill_up(small_disk)
    for _ in range(2):
        engine = RocksEngine(store, min_free_bytes=4 * MIB)
        assert not (store / RESERVE_NAME).exists()
        assert len(read_all(engine)) == 2_000
        with pytest.raises(DiskFull) as caught:
            engine.write(operations(2_001, b"x" * 8))
        assert caught.value.free is not None and caught.value.free < MIB
        assert caught.value.needed is not None and caught.value.needed > 4 * MIB
        assert str(caught.value.needed) in str(caught.value)
        engine.close()
    (small_disk / "ballast").unlink()
    engine = RocksEngine(store, min_free_bytes=4 * MIB)
    assert (store / RESERVE_NAME).stat().st_size == MIB  # made again
    engine.write(operations(2_001, b"x" * 8))
    engine.close()


def test_logs_that_are_not_written_into_tables_are_synced(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that died may not have done it, and what is written from now on builds on them."""
    store = small_disk / "store"
    crashed_store(store, 2_000, 4 * MIB)
    logs = {log.stat().st_ino for log in store.glob("*.log") if log.stat().st_size}
    fill_up(small_disk)
    synced, fsync = set(), os.fsync

    def noted(file: Any) -> None:
        synced.add(os.fstat(file if isinstance(file, int) else file.fileno()).st_ino)
        fsync(file)

    monkeypatch.setattr(os, "fsync", noted)
    engine = RocksEngine(store, min_free_bytes=4 * MIB)
    assert logs and logs <= synced
    assert logs <= {log.stat().st_ino for log in store.glob("*.log")}
    engine.close()


def test_without_a_reserve_it_says_so(small_disk: Path) -> None:
    store = small_disk / "store"
    crashed_store(store, 500, 4 * MIB)
    (store / RESERVE_NAME).unlink()
    fill_up(small_disk)
    with pytest.raises(DiskFull):
        RocksEngine(store, min_free_bytes=4 * MIB)
    (small_disk / "ballast").unlink()
    engine = RocksEngine(store, min_free_bytes=4 * MIB)
    assert len(read_all(engine)) == 500
    engine.close()


def test_reading_needs_no_free_byte(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even when the place for temporary files is the full disk."""
    store = small_disk / "store"
    crashed_store(store, 500, 0)
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    fill_up(small_disk)
    before = sorted((e.name, e.stat().st_mtime_ns) for e in os.scandir(store))
    for engine in (RocksEngine(store, read_only=True), FollowingEngine(store)):
        assert len(read_all(engine)) == 500
        engine.close()
    assert sorted((e.name, e.stat().st_mtime_ns) for e in os.scandir(store)) == before
    assert os.listdir(small_disk) == ["store", "ballast"] or os.listdir(small_disk) == ["ballast", "store"]
    monkeypatch.setattr(directory, "_MEMORY", ())
    for read_only in (True, False):  # whoever writes is not told that he only reads
        with pytest.raises(StoreError, match=r"^opening this store needs .* set TMPDIR"):
            RocksEngine(store, read_only=read_only)


def test_deleting_goes_on_below_the_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 1 << 40
    monkeypatch.setattr(disk, "free_bytes", lambda path: free)
    with warpmem.open(tmp_path, dimension=4, min_free_bytes=64 * MIB) as memory:
        ids = [memory.add(f"{i}", user_id="a", vector=np.ones(4)).id for i in range(4)]  # type: ignore[union-attr]
        free = 20 * MIB

        def add_many() -> None:
            for i in range(100):
                memory.add(f"more {free} {i}", user_id="a", vector=np.ones(4))

        with pytest.raises(DiskFull) as caught:
            add_many()
        assert (caught.value.free, caught.value.needed > 64 * MIB) == (20 * MIB, True)  # type: ignore[operator]
        with pytest.raises(DiskFull):
            memory.update(ids[0], text="other", vector=np.ones(4))
        memory.delete(ids[0])
        assert memory.get_many(ids[:1]) == (None,)
        assert memory.delete_all(user_id="a") >= 3
        with pytest.raises(DiskFull):
            memory.add("again", user_id="a", vector=np.ones(4))
        assert memory.stats().items == 0
        free = 1 << 40
        last = memory.add("again", user_id="a", vector=np.ones(4))
        assert isinstance(last, warpmem.AddResult)
        free = 3 * MIB
        with pytest.raises(DiskFull):
            add_many()
        with pytest.raises(DiskFull):
            memory.delete(last.id)


def test_the_index_is_not_saved_below_the_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It filled the disk to the last byte, and found out then."""
    free = 1 << 40
    monkeypatch.setattr(disk, "free_bytes", lambda path: free)
    saved = tmp_path / directory.INDEX_NAME

    def add_and_find(memory: warpmem.Memory, count: int) -> None:
        rows = [warpmem.NewItem(text=f"{i}", vector=np.ones(8)) for i in range(count)]
        memory.add_many(rows, user_id="a")
        assert memory.search(vector=np.ones(8), user_id="a")

    options = {"backend": "cpu", "min_free_bytes": 64 * MIB, "checkpoint_rows": 1}
    with warpmem.open(tmp_path, dimension=8, **options) as memory:
        add_and_find(memory, 300)
        assert memory.checkpoint()
        before = saved.read_bytes()
        add_and_find(memory, 600)
        free = 64 * MIB + len(before)
        files = sorted(os.listdir(tmp_path))
        with pytest.raises(DiskFull) as caught:
            memory.checkpoint()
        needed = caught.value.needed
        assert needed is not None and needed > free == caught.value.free
        assert sorted(os.listdir(tmp_path)) == files
        assert saved.read_bytes() == before
        free = needed - 1
    assert saved.read_bytes() == before, "closing does without"
    free = 1 << 40
    with warpmem.open(tmp_path, dimension=8, **options) as memory:
        assert len(memory.search(vector=np.ones(8), user_id="a", k=1000)) == 600
        memory.flush()
        free = needed + MIB
        assert memory.checkpoint()
        assert len(before) < saved.stat().st_size < needed - 64 * MIB


def test_erasing_goes_on_below_the_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The marks with which an erasure begins, and the stubs it leaves, delete nothing by themselves: they
    were refused."""
    free = 1 << 40
    monkeypatch.setattr(disk, "free_bytes", lambda path: free)
    with warpmem.open(tmp_path, dimension=4, min_free_bytes=64 * MIB) as memory:
        for i in range(200):
            memory.add(f"secret {i}", user_id="a", vector=np.ones(4))
        free = 20 * MIB
        with pytest.raises(DiskFull):
            memory.add("more", user_id="a", vector=np.ones(4))
        receipt = memory.erase(user_id="a")
        assert (receipt.items, receipt.log_entries) == (200, 200)
        assert memory.stats().pending_erasures == 0
        with pytest.raises(DiskFull):
            memory.add("more", user_id="a", vector=np.ones(4))
    assert not any(b"secret" in file.read_bytes() for file in tmp_path.iterdir())


def test_the_reserve_is_kept_where_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 100
    monkeypatch.setattr("warpmem.storage.reserve.free_bytes", lambda path: free)
    reserve, file = Reserve(str(tmp_path), 1000), tmp_path / RESERVE_NAME
    assert not reserve.keep(0) and not file.exists()
    free = 1100
    assert not reserve.keep(101) and not file.exists()
    assert reserve.keep(100) and file.stat().st_size == 1000
    free = 0
    assert reserve.keep(100)  # it is there already
    file.write_bytes(b"short")
    assert not reserve.keep(100) and not file.exists()
    free = 2000
    assert reserve.keep(100) and reserve.release() and not file.exists() and not reserve.release()
    assert not Reserve(str(tmp_path), 0).keep(0)
    assert not Reserve(str(tmp_path / "nowhere"), 10).keep(0)
