"""A full, failing or read-only disk: a typed error, and nothing of what was acknowledged is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from durability.changes import Operations, last_sequence, operations, read_all
from warpmem.errors import DiskFull, StoreReadOnly
from warpmem.storage.committer import Committer
from warpmem.storage.rocks import RocksEngine


def run_script(script: str, *arguments: str, **environment: str) -> None:
    """Run Python code in a process of its own; its assertions are the test."""
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


# --------------------------------------------------------------------------------------- full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount_point = tmp_path / "disk"
    mount_point.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root and mount(8)")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(mount_point)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"not permitted to mount a tmpfs: {done.stderr.decode().strip()}")
    yield mount_point
    subprocess.run(["umount", "-l", str(mount_point)], check=True)


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

_FAILING_SYNC = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
/* Every fsync and fdatasync fails with EIO while the file named by FAIL_SYNC exists. */
static int failing(void) {
  const char *trigger = getenv("FAIL_SYNC");
  if (trigger == NULL || access(trigger, F_OK) != 0) return 0;
  errno = EIO;
  return 1;
}
int fsync(int fd) {
  int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  return failing() ? -1 : next(fd);
}
int fdatasync(int fd) {
  int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
  return failing() ? -1 : next(fd);
}
"""

_SYNC_FAILS = """
import os, sys
from durability.changes import operations, read_all
from warpmem.errors import StoreReadOnly
from warpmem.storage.committer import Committer
from warpmem.storage.rocks import RocksEngine
trigger = os.environ["FAIL_SYNC"]
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
open(trigger, "w").close()
refused(11, "Input/output error")
os.remove(trigger)
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
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs a C compiler for the shim that makes fsync fail")
    source, shim = tmp_path / "shim.c", tmp_path / "shim.so"
    source.write_text(_FAILING_SYNC)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(shim), str(source), "-ldl"], check=True)
    run_script(_SYNC_FAILS, str(tmp_path / "store"), LD_PRELOAD=str(shim), FAIL_SYNC=str(tmp_path / "fail"))


# ------------------------------------------------------------------------------ read-only directory

_UNPRIVILEGED = """
import os, stat, sys, tempfile
from durability.changes import operations, read_all
from warpmem.errors import StoreReadOnly
from warpmem.storage.rocks import RocksEngine
import rocksdict
with tempfile.TemporaryDirectory() as folder:
    os.chmod(folder, 0o755)
    store = os.path.join(folder, "store")
    engine = RocksEngine(store)
    engine.write(operations(1, b"12345678"))
    engine.close()
    engine = RocksEngine(store)
    engine.write(operations(2, b"12345678"))
    engine.sync()
    # As after a crash: the second change is in the write-ahead log alone.
    child = os.fork()
    if child == 0:
        code = 1
        try:
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
            code = 0
        except BaseException as error:
            print(type(error).__name__, error, file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    os.chmod(folder, 0o755)
    os.chmod(store, 0o755)
    engine.close()
    sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_directory_without_write_permission(tmp_path: Path) -> None:
    run_script(_UNPRIVILEGED)
