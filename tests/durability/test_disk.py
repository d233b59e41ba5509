"""A full, failing or read-only disk: a typed error, and nothing of what was acknowledged is lost."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from durability import shim
from durability.changes import Operations, last_sequence, operations, read_all
from durability.harness import run_script
from warpmem.errors import DiskFull, StoreReadOnly
from warpmem.storage.committer import Committer
from warpmem.storage.rocks import RocksEngine

DISK = "16m"


# --------------------------------------------------------------------------------------- full disk


def fill(committer: Committer[Operations, None], engine: RocksEngine, acknowledged: dict[int, bytes]) -> None:
    """Add changes until something refuses."""
    for sequence in range(last_sequence(engine) + 1, 10_000):
        part = os.urandom(8)
        committer.submit(lambda s=sequence, p=part: (operations(s, p, 10_000), None, None))  # type: ignore[misc]
        acknowledged[sequence] = part
    raise AssertionError("the disk never filled up")


def test_a_full_disk(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(6 << 20))
    engine = RocksEngine(small_disk / "store", memtable_bytes=1 << 20, min_free_bytes=0)
    committer: Committer[Operations, None] = Committer(engine.write, engine.sync, lambda effects: None)
    acknowledged: dict[int, bytes] = {}
    with pytest.raises(DiskFull, match=r"full.*free some space"):
        fill(committer, engine, acknowledged)
    assert len(acknowledged) > 100
    with pytest.raises(StoreReadOnly, match=r"writes stopped after a failed.*open it again"):
        committer.submit(lambda: (operations(20_000, b"x" * 8), None, None))
    assert read_all(engine).items() >= acknowledged.items()  # reads go on
    committer.stop()
    engine.close()  # quietly: the reason was raised when it happened

    ballast.unlink()
    engine = RocksEngine(small_disk / "store", memtable_bytes=1 << 20, min_free_bytes=0)
    found = read_all(engine)
    assert found.items() >= acknowledged.items()
    assert len(found) <= len(acknowledged) + 1
    engine.write(operations(len(found) + 1, b"y" * 8))
    engine.sync()
    engine.close()


def test_the_low_water_mark_stops_writes_before_the_disk_is_full(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(6 << 20))
    engine = RocksEngine(small_disk / "store", memtable_bytes=1 << 20, min_free_bytes=4 << 20)
    committer: Committer[Operations, None] = Committer(engine.write, engine.sync, lambda effects: None)
    acknowledged: dict[int, bytes] = {}
    with pytest.raises(DiskFull, match=r"bytes free.*min_free_bytes is 4194304.*nothing was written"):
        fill(committer, engine, acknowledged)
    free = shutil.disk_usage(small_disk).free
    assert (3 << 20) < free < (9 << 20)
    assert len(acknowledged) > 30
    ballast.unlink()
    with pytest.raises(DiskFull, match="bytes free"):
        fill(committer, engine, acknowledged)  # the same engine goes on while there is room
    committer.stop()
    engine.close()
    engine = RocksEngine(small_disk / "store", memtable_bytes=1 << 20, min_free_bytes=0)
    assert read_all(engine) == acknowledged
    engine.close()


_FILE_SIZE_LIMIT = """
import resource, sys
from durability.changes import operations, read_all
from warpmem.errors import DiskFull, StoreReadOnly
from warpmem.storage.rocks import RocksEngine
engine = RocksEngine(sys.argv[1], min_free_bytes=0)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
sequence = 0
try:
    while True:
        engine.write(operations(sequence + 1, b"12345678", 1000))
        engine.sync()
        sequence += 1
except DiskFull as error:
    assert "free some space" in str(error), error
assert sequence > 10
for use in (lambda: engine.write(operations(99, b"12345678")), engine.sync):
    try:
        use()
    except StoreReadOnly as error:
        assert "open it again" in str(error), error
    else:
        raise AssertionError("wrote after a failed write")
assert len(read_all(engine)) == sequence
engine.close()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
engine = RocksEngine(sys.argv[1], min_free_bytes=0)
assert sequence <= len(read_all(engine)) <= sequence + 1
engine.write(operations(len(read_all(engine)) + 1, b"12345678"))
engine.close()
"""


def test_a_file_size_limit_is_like_a_full_disk(tmp_path: Path) -> None:
    run_script(_FILE_SIZE_LIMIT, str(tmp_path / "store"))


# -------------------------------------------------------------------------------------- failed sync

_SYNC_FAILS = """
import sys
from durability import shim
from durability.changes import operations, read_all
from warpmem.errors import StoreReadOnly
from warpmem.storage.committer import Committer
from warpmem.storage.rocks import RocksEngine
shim.begin(sys.argv[1])
engine = RocksEngine(sys.argv[1], min_free_bytes=0)
applied = []
committer = Committer(engine.write, engine.sync, applied.append)
def add(n):
    committer.submit(lambda: (operations(n, b"12345678"), n, None))
def refused(n, text):
    try:
        add(n)
    except StoreReadOnly as error:
        assert text in str(error) and "open it again" in str(error), error
    else:
        raise AssertionError("acknowledged without a sync")
for n in range(1, 11):
    add(n)
shim.begin(sys.argv[1], fail="fsync", at=1, ever=True)
refused(11, "Input/output error")
shim.begin(sys.argv[1])
refused(12, "writes stopped after a failed sync")  # never tried again, though the disk is well
assert applied == list(range(1, 11)), applied
assert set(range(1, 11)) <= set(read_all(engine))
committer.stop()
engine.close()
engine = RocksEngine(sys.argv[1], min_free_bytes=0)
found = set(read_all(engine))
assert set(range(1, 11)) <= found <= set(range(1, 12)), found
engine.write(operations(len(found) + 1, b"12345678"))
engine.sync()
engine.close()
"""


def test_a_failed_sync_stops_writes_and_not_reads(tmp_path: Path) -> None:
    try:
        environment = shim.environment()
    except shim.Unavailable as reason:
        pytest.skip(str(reason))
    run_script(_SYNC_FAILS, str(tmp_path / "store"), **environment)


# ------------------------------------------------------------------------------ read-only directory

_KILLED = """
import os, sys
from durability.changes import operations
from warpmem.storage.rocks import RocksEngine

store = sys.argv[1]
engine = RocksEngine(store)
engine.write(operations(1, b"12345678"))
engine.close()
engine = RocksEngine(store)
engine.write(operations(2, b"12345678"))
engine.sync()
os._exit(0)  # the second change is in the write-ahead log alone
"""

_UNPRIVILEGED = """
import os, sys
from durability.changes import read_all
from warpmem.errors import StoreReadOnly
from warpmem.storage.rocks import RocksEngine
import rocksdict

store = sys.argv[1]
folder = os.path.dirname(store)
for name in os.listdir(store):
    os.chmod(os.path.join(store, name), 0o444)
os.chmod(store, 0o555)
os.chmod(folder, 0o555)
if os.geteuid() == 0:
    os.setuid(65534)
before = sorted((e.name, e.stat().st_mtime_ns) for e in os.scandir(store))
for path in (store, os.path.join(folder, "new")):
    try:
        RocksEngine(path)
    except StoreReadOnly as error:
        assert "ermission" in str(error), error
    else:
        raise AssertionError("opened for writing without permission")
reader = RocksEngine(store, read_only=True)
assert set(read_all(reader)) == {1, 2}
reader.close()
assert before == sorted((e.name, e.stat().st_mtime_ns) for e in os.scandir(store))
"""


def test_a_directory_without_write_permission() -> None:
    with tempfile.TemporaryDirectory() as folder:  # that of pytest is its user's alone
        os.chmod(folder, 0o755)
        store = os.path.join(folder, "store")
        run_script(_KILLED, store)
        try:
            run_script(_UNPRIVILEGED, store)
        finally:
            os.chmod(folder, 0o755)
            os.chmod(store, 0o755)
