"""RocksEngine alone: reopening, options, locks, read-only opens, foreign directories, space, forks."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engines import everything
from warpmem.errors import (
    DiskFull,
    FormatError,
    StoreClosed,
    StoreCorrupt,
    StoreLocked,
    StoreReadOnly,
)
from warpmem.protocols import Engine
from warpmem.storage import disk
from warpmem.storage.codec import FAMILIES
from warpmem.storage.rocks import RocksEngine

Opener = Callable[[], Engine]


# ------------------------------------------------------------------------------------------ on disk


def test_survives_reopening(tmp_path: Path) -> None:
    for i in range(3):
        engine = RocksEngine(tmp_path / "new" / "store")
        assert everything(engine, "items") == [(b"%d" % j, b"x") for j in range(i)]
        engine.write([("items", b"%d" % i, b"x")])
        engine.close()


def test_a_clean_close_leaves_an_empty_log(tmp_path: Path) -> None:
    engine = RocksEngine(tmp_path)
    engine.write([(family, b"a", b"x" * 100) for family in FAMILIES])
    assert engine.sizes()["wal"] > 800
    engine.close()
    assert sum(path.stat().st_size for path in tmp_path.glob("*.log")) == 0


def test_the_options_that_matter_reached_rocksdb(tmp_path: Path) -> None:
    engine = RocksEngine(tmp_path, memtable_bytes=1 << 20)
    options = max(tmp_path.glob("OPTIONS-*")).read_text()
    engine.close()
    for line in (
        "track_and_verify_wals_in_manifest=true",
        "wal_recovery_mode=kTolerateCorruptedTailRecords",
        "paranoid_checks=true",
        "paranoid_file_checks=true",
        "max_bgerror_resume_count=0",
        "info_log_level=WARN_LEVEL",
        "keep_log_file_num=2",
        "max_open_files=256",
        f"max_total_wal_size={8 << 20}",
        f"write_buffer_size={1 << 20}",
        "compression=kLZ4Compression",
        "filter_policy=bloomfilter",
    ):
        assert line in options, line
    assert options.split('[CFOptions "vectors"]')[1].split("[")[0].count("compression=kNoCompression") >= 1


def test_locked_by_this_process(tmp_path: Path) -> None:
    engine = RocksEngine(tmp_path)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(StoreLocked, match="close it first") as caught:
        RocksEngine(tmp_path)
    assert caught.value.pid == os.getpid()
    assert sorted(os.listdir(tmp_path)) == before
    engine.close()
    RocksEngine(tmp_path).close()


def test_close_frees_the_lock_under_live_scans(tmp_path: Path) -> None:
    engine = RocksEngine(tmp_path)
    engine.write([("items", b"%d" % i, b"x") for i in range(10)])
    scans = [engine.scan("items", b"", b"\xff") for _ in range(3)]
    next(scans[0])
    engine.close()
    again = RocksEngine(tmp_path)
    assert len(everything(again, "items")) == 10
    again.close()
    del scans


def test_read_only_sees_the_state_at_open_and_changes_nothing(tmp_path: Path) -> None:
    store = tmp_path / "store"
    writer = RocksEngine(store)
    writer.write([("items", b"a", b"1")])
    before = {path.name: path.stat().st_mtime_ns for path in store.iterdir()}
    reader = RocksEngine(store, read_only=True)
    assert {path.name: path.stat().st_mtime_ns for path in store.iterdir()} == before
    writer.write([("items", b"b", b"1")])
    assert everything(reader, "items") == [(b"a", b"1")]
    for use in (lambda: reader.write([("items", b"c", b"1")]), reader.sync):
        with pytest.raises(StoreReadOnly, match="read_only=True"):
            use()
    writer.close()
    assert reader.get("items", b"a") == b"1"
    mirror = reader._db.path()
    assert os.path.isdir(mirror)
    reader.close()
    assert not os.path.exists(mirror)
    reopened = RocksEngine(store, read_only=True)
    assert len(everything(reopened, "items")) == 2
    reopened.close()


def test_read_only_outlives_compaction_by_a_writer(tmp_path: Path) -> None:
    writer = RocksEngine(tmp_path, memtable_bytes=64 << 10)
    value = random.Random(5).randbytes(2000)
    for i in range(100):
        writer.write([("items", b"%03d" % i, value)])
    writer.close()
    writer = RocksEngine(tmp_path, memtable_bytes=64 << 10)
    reader = RocksEngine(tmp_path, read_only=True)
    for i in range(500):
        writer.write([("items", b"%03d" % (i % 100), value[::-1])])
    for family in writer._families.values():
        family.compact_range(None, None)
    assert all(found == value for _, found in everything(reader, "items"))
    assert len(everything(reader, "items")) == 100
    reader.close()
    writer.close()


@pytest.mark.parametrize("read_only", [False, True])
def test_a_directory_of_something_else_is_refused_untouched(tmp_path: Path, read_only: bool) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FormatError, match=r"not a warpmem store.*'thesis.txt'.*nothing was changed"):
        RocksEngine(tmp_path, read_only=read_only)
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for read_only in (False, True):
        with pytest.raises(FormatError, match="not a directory"):
            RocksEngine(file, read_only=read_only)
    assert file.read_text() == "x"


def test_read_only_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"no store at .*No such file"):
        RocksEngine(tmp_path / "absent", read_only=True)
    with pytest.raises(FormatError, match=r"no store in .*only opening for writing creates one"):
        RocksEngine(tmp_path, read_only=True)
    assert os.listdir(tmp_path) == []


def test_another_rocksdb_database_is_refused_untouched(tmp_path: Path) -> None:
    from rocksdict import Options, Rdict

    options = Options(raw_mode=True)
    options.create_if_missing(True)
    plain = Rdict(str(tmp_path / "plain"), options)
    plain[b"theirs"] = b"1"
    plain.close()
    named = Rdict(str(tmp_path / "named"), options)
    named.create_column_family("users", options)
    named.close()
    del plain, named
    for name, message in (
        ("plain", "0 of 10 families.*not a warpmem store"),
        ("named", "'users', which warpmem"),
    ):
        for read_only in (True, False):
            with pytest.raises(FormatError, match=message):
                RocksEngine(tmp_path / name, read_only=read_only)
        assert "warpmem.lock" not in os.listdir(tmp_path / name)
        assert "users" in Rdict.list_cf(str(tmp_path / name)) or name == "plain"
        assert not set(FAMILIES) & set(Rdict.list_cf(str(tmp_path / name)))


def test_a_lost_current_file_is_corruption_and_not_a_new_store(tmp_path: Path) -> None:
    engine = RocksEngine(tmp_path)
    engine.write([("items", b"a", b"1")])
    engine.close()
    current = (tmp_path / "CURRENT").read_bytes()
    (tmp_path / "CURRENT").unlink()
    for read_only in (False, True):
        with pytest.raises(StoreCorrupt, match="CURRENT is missing"):
            RocksEngine(tmp_path, read_only=read_only)
    (tmp_path / "CURRENT").write_bytes(current)
    again = RocksEngine(tmp_path)
    assert again.get("items", b"a") == b"1"
    again.close()


def test_a_creation_cut_short_starts_over(tmp_path: Path) -> None:
    for name in ("warpmem.lock", "LOCK", "LOG", "IDENTITY", "MANIFEST-000001", "rocksdict-config.json"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "rocksdict-config.json").write_text('{"raw_mode":true,"prefix_extractors":{}}')
    engine = RocksEngine(tmp_path)
    engine.write([("items", b"a", b"1")])
    engine.close()


def test_too_little_space_is_refused_and_passes_when_there_is_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 10 << 20
    monkeypatch.setattr(disk, "free_bytes", lambda path: free)
    engine = RocksEngine(tmp_path, min_free_bytes=1 << 20)
    engine.write([("items", b"a", b"1")])
    free = 1000
    big = [("items", b"big", bytes(1 << 20))]
    with pytest.raises(DiskFull, match=r"1000 bytes free .*min_free_bytes is 1048576.*nothing was written"):
        engine.write(big)
    with pytest.raises(DiskFull):
        engine.write([("items", b"b", b"1")])
    assert everything(engine, "items") == [(b"a", b"1")]
    free = 10 << 20
    engine.write([("items", b"b", b"1")])
    engine.sync()
    free = 1000
    with pytest.raises(DiskFull):
        engine.write([("items", b"late", b"1")])  # somebody else filled the disk since the last write
    engine.close()


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_a_forked_child_cannot_use_the_engine_and_does_no_harm(tmp_path: Path) -> None:
    engine = RocksEngine(tmp_path)
    engine.write([("items", b"a", b"1")])
    reader = RocksEngine(tmp_path, read_only=True)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            engine.get("items", b"a")
        except StoreClosed as error:
            engine.close()
            reader.close()
            code = 0 if "fork" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    engine.write([("items", b"b", b"1")])
    engine.sync()
    assert os.path.isdir(reader._db.path())
    assert everything(reader, "items") == [(b"a", b"1")]
    with pytest.raises(StoreLocked):
        RocksEngine(tmp_path)
    reader.close()
    engine.close()


def test_rocksdict_is_imported_on_first_open_only() -> None:
    script = "import sys, warpmem.storage.rocks; sys.exit('rocksdict' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", script], env=environment, check=False).returncode == 0
