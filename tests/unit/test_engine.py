"""The engine contract, for every engine, and what only the engine on disk does."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from warpmem.errors import (
    DiskFull,
    FormatError,
    StoreClosed,
    StoreCorrupt,
    StoreError,
    StoreLocked,
    StoreReadOnly,
)
from warpmem.protocols import Engine
from warpmem.storage import disk
from warpmem.storage.codec import FAMILIES
from warpmem.storage.memory import MemoryEngine
from warpmem.storage.rocks import RocksEngine

Opener = Callable[[], Engine]


@pytest.fixture(params=["rocks", "memory"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    made: Engine = (
        RocksEngine(tmp_path / "store", min_free_bytes=0) if request.param == "rocks" else MemoryEngine()
    )
    yield made
    made.close()


def everything(engine: Engine, family: str) -> list[tuple[bytes, bytes]]:
    return list(engine.scan(family, b"", b"\xff" * 64))


# ---------------------------------------------------------------------------------------- contract


def test_get_and_get_many(engine: Engine) -> None:
    engine.write([("items", b"a", b"1"), ("log", b"a", b"2"), ("items", b"b", b"")])
    assert engine.get("items", b"a") == b"1"
    assert engine.get("log", b"a") == b"2"
    assert engine.get("items", b"b") == b""
    assert engine.get("meta", b"a") is None
    assert engine.get_many("items", [b"b", b"missing", b"a", b"b"]) == [b"", None, b"1", b""]
    assert engine.get_many("items", []) == []


def test_operations_apply_in_order(engine: Engine) -> None:
    engine.write([("items", b"a", b"1"), ("items", b"a", None), ("items", b"a", b"2"), ("items", b"b", b"x")])
    engine.write([("items", b"b", b"y"), ("items", b"b", None), ("items", b"absent", None)])
    assert everything(engine, "items") == [(b"a", b"2")]
    engine.write([])


def test_a_write_is_all_or_nothing(engine: Engine) -> None:
    engine.write([("items", b"a", b"1")])
    for bad in (("nowhere", b"k", b"v"), ("items", "text", b"v"), ("items", b"k", 7)):
        with pytest.raises((KeyError, TypeError, ValueError)):
            engine.write([("items", b"a", b"2"), ("items", b"c", b"3"), bad])  # type: ignore[list-item]
    assert everything(engine, "items") == [(b"a", b"1")]
    engine.write([("items", b"c", b"3")])
    assert engine.get("items", b"c") == b"3"


def test_scan_bounds(engine: Engine) -> None:
    keys = [b"", b"\0", b"a", b"aa", b"ab", b"b", b"b\xff", b"c", b"\xff\xff"]
    engine.write([("items", key, key + b"!") for key in keys])
    for start in (b"", b"a", b"ab", b"b", b"zz"):
        for stop in (b"", b"a", b"b", b"b\xff", b"c", b"\xff" * 9):
            expected = [(key, key + b"!") for key in keys if start <= key < stop]
            assert list(engine.scan("items", start, stop)) == expected
            assert list(engine.scan("items", start, stop, reverse=True)) == expected[::-1]


def test_scan_is_from_one_moment(engine: Engine) -> None:
    engine.write([("items", b"%03d" % i, b"old") for i in range(100)])
    forward, backward = engine.scan("items", b"", b"\xff"), engine.scan("items", b"", b"\xff", reverse=True)
    engine.write([("items", b"%03d" % i, None if i % 2 else b"new") for i in range(100)])
    engine.write([("items", b"050x", b"new")])
    old = [(b"%03d" % i, b"old") for i in range(100)]
    assert list(forward) == old
    assert list(backward) == old[::-1]
    assert [value for _, value in everything(engine, "items")] == [b"new"] * 51


@pytest.mark.parametrize("seed", [1, 2])
def test_random_operations_agree_with_a_dict(engine: Engine, seed: int) -> None:
    rng = random.Random(seed)
    model: dict[str, dict[bytes, bytes]] = {family: {} for family in FAMILIES}
    for _ in range(300):
        operations: list[tuple[str, bytes, bytes | None]] = []
        for _ in range(rng.randrange(1, 8)):
            family, key = rng.choice(FAMILIES), rng.randbytes(rng.randrange(1, 3))
            value = None if rng.random() < 0.4 else rng.randbytes(rng.randrange(40))
            operations.append((family, key, value))
            if value is None:
                model[family].pop(key, None)
            else:
                model[family][key] = value
        engine.write(operations)
        start, stop = sorted((rng.randbytes(1), rng.randbytes(2)))
        family = rng.choice(FAMILIES)
        expected = [(key, model[family][key]) for key in sorted(model[family]) if start <= key < stop]
        assert list(engine.scan(family, start, stop)) == expected, f"seed {seed}"
    for family in FAMILIES:
        assert everything(engine, family) == sorted(model[family].items()), f"seed {seed}"


def test_use_after_close(engine: Engine) -> None:
    engine.write([("items", b"%d" % i, b"x") for i in range(10)])
    scan = engine.scan("items", b"", b"\xff")
    next(scan)
    engine.close()
    engine.close()
    uses: list[Callable[[], Any]] = [
        lambda: engine.get("items", b"1"),
        lambda: engine.get_many("items", [b"1"]),
        lambda: list(engine.scan("items", b"", b"\xff")),
        lambda: next(scan),
        lambda: engine.write([("items", b"1", b"y")]),
        engine.sync,
        engine.sizes,
    ]
    for use in uses:
        with pytest.raises(StoreClosed, match="open it again"):
            use()


def test_unknown_families_are_programming_errors(engine: Engine) -> None:
    for use in (lambda: engine.get("events", b"a"), lambda: list(engine.scan("jobs", b"", b"\xff"))):
        with pytest.raises(KeyError, match="expected one of"):
            use()


def test_sizes_are_bytes(engine: Engine) -> None:
    engine.write([("items", b"%d" % i, b"x" * 1000) for i in range(100)])
    sizes = engine.sizes()
    assert sum(sizes.values()) >= 100_000
    assert all(isinstance(size, int) and size >= 0 for size in sizes.values())


def test_concurrent_readers_see_whole_writes(engine: Engine) -> None:
    engine.write([("items", b"a", b"0"), ("log", b"a", b"0")])
    stop = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not stop.is_set():
            pairs = list(engine.scan("items", b"", b"\xff"))
            if len({value for _, value in pairs}) != 1 or len(pairs) not in (1, 3):
                wrong.append(pairs)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(500):
        value = b"%d" % i
        engine.write([("items", key, value) for key in (b"a", b"b", b"c")])
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


# ------------------------------------------------------------------------------------------ faults


def test_memory_engine_faults() -> None:
    engine = MemoryEngine()
    engine.fail_after(2, DiskFull("no room"))
    engine.write([("items", b"a", b"1")])
    engine.write([("items", b"b", b"1")])
    for _ in range(2):
        with pytest.raises(DiskFull, match="no room"):
            engine.write([("items", b"c", b"1"), ("items", b"a", b"2")])
    assert everything(engine, "items") == [(b"a", b"1"), (b"b", b"1")]
    engine.clear_faults()
    engine.write([("items", b"c", b"1")])
    engine.fail_sync(StoreError("I/O error"))
    with pytest.raises(StoreError, match="I/O error"):
        engine.sync()
    for _ in range(2):
        with pytest.raises(StoreReadOnly, match=r"I/O error.*open it again"):
            engine.write([("items", b"d", b"1")])
        with pytest.raises(StoreReadOnly):
            engine.sync()
    assert engine.get("items", b"c") == b"1"


def write_and_sync(engine: RocksEngine) -> None:
    engine.write([("items", b"b", b"1")])
    engine.sync()


class FailingDatabase:
    """A RocksDB handle whose chosen method fails as rocksdict would."""

    def __init__(self, database: Any, method: str, text: str) -> None:
        self._database = database
        self._method = method
        self._text = text

    def __getattr__(self, name: str) -> Any:
        if name == self._method:

            def fail(*_: object) -> None:
                raise Exception(self._text)

            return fail
        return getattr(self._database, name)


@pytest.mark.parametrize(
    ("method", "text", "first"),
    [
        ("write", "IO error: While appending to file: 000004.log: Input/output error", StoreReadOnly),
        ("write", "IO error: No space left on device: While appending to file: 000004.log", DiskFull),
        ("write", "Corruption: block checksum mismatch", StoreReadOnly),
        ("flush_wal", "IO error: While fdatasync: 000004.log: Input/output error", StoreReadOnly),
        ("flush_wal", "IO error: No space left on device: While fdatasync: 000004.log", DiskFull),
    ],
)
def test_a_failed_write_or_sync_stops_writes_for_good(
    tmp_path: Path, method: str, text: str, first: type[StoreError]
) -> None:
    engine = RocksEngine(tmp_path, min_free_bytes=0)
    engine.write([("items", b"a", b"1")])
    engine.sync()
    database = engine._db
    engine._db = FailingDatabase(database, method, text)
    with pytest.raises(first, match="open it again"):
        write_and_sync(engine)
    engine._db = database  # the disk is well again, and yet nothing may be trusted
    with pytest.raises(StoreReadOnly, match=r"writes stopped after a failed (write|sync).*open it again"):
        engine.write([("items", b"c", b"1")])
    with pytest.raises(StoreReadOnly):
        engine.sync()
    assert engine.get("items", b"a") == b"1"
    assert (b"a", b"1") in everything(engine, "items")
    del database
    engine.close()
    with_again = RocksEngine(tmp_path, min_free_bytes=0)
    assert with_again.get("items", b"a") == b"1"
    assert with_again.get("items", b"c") is None
    with_again.write([("items", b"c", b"1")])
    with_again.close()


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
    with pytest.raises(FormatError, match=r"no store in .*does not create"):
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
        ("plain", "0 of 8 families.*not a warpmem store"),
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
        engine.write([("items", b"b", b"1")])  # after a refusal every write asks
    assert everything(engine, "items") == [(b"a", b"1")]
    free = 10 << 20
    engine.write([("items", b"b", b"1")])
    engine.sync()
    free = 1000
    for small in range(63):  # one write since the last look at the disk, 63 more before the next
        engine.write([("items", b"c%d" % small, b"1")])
    with pytest.raises(DiskFull):
        engine.write([("items", b"late", b"1")])
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
