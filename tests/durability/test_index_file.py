"""An index that cannot be saved: a typed error, nothing left behind, the file there before intact."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from durability.harness import run_script
from warpmem._cpu import Pool, open_pool
from warpmem.errors import DiskFull, StoreError

DISK = "4m"


def pool_of(n: int) -> Pool:
    pool = Pool(64, 0)
    ids = np.arange(n)
    vectors = np.random.default_rng(0).standard_normal((n, 64), np.float32)
    pool.apply([], np.zeros(n, np.int64), ids, ids.astype(np.uint32), np.zeros((n, 0), np.int64), vectors)
    return pool


def test_a_full_disk(small_disk: Path) -> None:
    path = small_disk / "index"
    pool_of(100).save(path, {"v": b"1"})
    for pool in (pool_of(12_000), open_pool(path)[0]):
        with pytest.raises(DiskFull, match=r"'.*index' cannot be written: No space.*free some space"):
            pool.save(path, {"v": bytes(4 << 20)})
        assert os.listdir(small_disk) == ["index"]
        opened, sections = open_pool(path)
        assert opened.stats()["rows"] == 100 and bytes(sections["v"]) == b"1"
    pool_of(200).save(path)
    assert open_pool(path)[0].stats()["rows"] == 200


_FILE_SIZE_LIMIT = """
import os, resource, sys
from durability.test_index_file import pool_of
from warpmem._cpu import open_pool
from warpmem.errors import DiskFull
path = sys.argv[1]
pool_of(10).save(path)
for limit in (0, 100, 4096, 100_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        pool_of(5000).save(path)
    except DiskFull as error:
        assert "File too large" in str(error), error
    else:
        raise AssertionError("saved beyond the limit")
    assert os.listdir(os.path.dirname(path)) == ["index"]
    assert open_pool(path)[0].stats()["rows"] == 10
"""


def test_a_file_size_limit_is_like_a_full_disk(tmp_path: Path) -> None:
    run_script(_FILE_SIZE_LIMIT, str(tmp_path / "index"))


_UNPRIVILEGED = """
import os, sys, tempfile
from durability.test_index_file import pool_of
from warpmem._cpu import open_pool
from warpmem.errors import StoreError, StoreReadOnly
with tempfile.TemporaryDirectory() as folder:
    os.chmod(folder, 0o755)
    path = os.path.join(folder, "index")
    pool_of(10).save(path)
    hidden = os.path.join(folder, "hidden")
    pool_of(20).save(hidden)
    os.chmod(hidden, 0)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.chmod(folder, 0o555)
            if os.geteuid() == 0:
                os.setuid(65534)
            pool, _ = open_pool(path)
            for name in (path, os.path.join(folder, "new")):
                try:
                    pool.save(name)
                except StoreReadOnly as error:
                    assert "Permission denied" in str(error) and "can be written to" in str(error), error
                else:
                    raise AssertionError("saved without permission")
            try:
                open_pool(hidden)
            except StoreError as error:
                assert "Permission denied" in str(error), error
            else:
                raise AssertionError("opened without permission")
            assert sorted(os.listdir(folder)) == ["hidden", "index"]
            assert open_pool(path)[0].stats()["rows"] == 10
            code = 0
        except BaseException as error:
            print(type(error).__name__, error, file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    os.chmod(folder, 0o755)
    sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_folder_without_write_permission() -> None:
    run_script(_UNPRIVILEGED)


def test_no_folder_and_a_folder_in_the_way(tmp_path: Path) -> None:
    pool = pool_of(3)
    with pytest.raises(StoreError, match=r"cannot be written: No such file.*check the path"):
        pool.save(tmp_path / "absent" / "index")
    (tmp_path / "taken").mkdir()
    with pytest.raises(StoreError, match=r"'.*taken' cannot be put in place"):
        pool.save(tmp_path / "taken")
    assert os.listdir(tmp_path) == ["taken"]


_KILLED = """
import sys
from durability.test_index_file import pool_of

pools = [pool_of(n) for n in (3000, 5000)]
print("ready", flush=True)
while True:
    for pool in pools:
        pool.save(sys.argv[1])
"""


def test_a_killed_save_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "index"
    pool_of(3000).save(path)
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    for round_ in range(5):
        child = subprocess.Popen(
            [sys.executable, "-c", _KILLED, str(path)],
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        with child.stdout as output:
            assert output.readline() == b"ready\n"
            try:
                child.wait(0.01 + 0.013 * round_)
            except subprocess.TimeoutExpired:
                child.kill()
        assert child.wait() == -9
        opened, _ = open_pool(path)
        rows = opened.rows(0)[0]
        assert len(rows) in (3000, 5000)
        assert np.isfinite(opened.vectors(0, rows)).all()
