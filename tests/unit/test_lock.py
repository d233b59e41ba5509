"""One writing process per store."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from warpmem.errors import StoreError, StoreLocked
from warpmem.storage import lock
from warpmem.storage.lock import LOCK_NAME, PathLock, is_held

_HOLD = """
import sys
from warpmem.storage.lock import PathLock
lock = PathLock(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def test_holds_our_pid_and_releases(tmp_path: Path) -> None:
    lock = PathLock(tmp_path)
    assert (tmp_path / LOCK_NAME).read_text() == f"{os.getpid()}\n"
    with pytest.raises(StoreLocked, match=r"this process.*close it first") as caught:
        PathLock(tmp_path)
    assert caught.value.pid == os.getpid()
    lock.release()
    lock.release()
    again = PathLock(tmp_path)
    again.release()


def test_a_long_stale_pid_is_replaced(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text("123456789012345\n")
    lock = PathLock(tmp_path)
    assert (tmp_path / LOCK_NAME).read_text() == f"{os.getpid()}\n"
    lock.release()


def test_another_process_is_named_and_its_death_releases(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == b"held\n"
        with pytest.raises(
            StoreLocked, match=rf"process {child.pid}: close it there.*read_only=True"
        ) as caught:
            PathLock(tmp_path)
        assert caught.value.pid == child.pid
        child.kill()
        child.wait()
        lock = PathLock(tmp_path)
        lock.release()


def test_an_unreadable_pid_is_not_invented(tmp_path: Path) -> None:
    lock = PathLock(tmp_path)
    (tmp_path / LOCK_NAME).write_text("not a number")
    with pytest.raises(StoreLocked, match="another process") as caught:
        PathLock(tmp_path)
    assert caught.value.pid is None
    lock.release()


_HOLD_AND_FORK = """
import os, sys
from warpmem.storage.lock import PathLock
lock = PathLock(sys.argv[1])
if os.fork():
    os._exit(0)
print("alone", flush=True)
sys.stdin.read()
"""


def test_a_forked_child_does_not_keep_the_lock_of_its_dead_parent(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD_AND_FORK, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"alone\n"
        parent.wait()
        lock = PathLock(tmp_path)  # while the grandchild lives
        lock.release()


def test_who_asks_whether_it_is_held_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """verify() does, who has it itself while it asks: an open at that moment was refused."""
    PathLock(tmp_path).release()
    asking = os.open(tmp_path / LOCK_NAME, os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH)
    assert not is_held(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(lock, "time", SimpleNamespace(sleep=lambda seconds: os.close(asking)))
        held = PathLock(tmp_path)
    assert is_held(tmp_path)
    with pytest.raises(StoreLocked):
        PathLock(tmp_path)
    held.release()


def test_who_asks_whether_it_is_held_leaves_nothing_to_a_forked_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that was forked meanwhile has the open file, and had the lock, as long as it lived."""
    PathLock(tmp_path).release()
    children: list[int] = []
    close = os.close

    def close_here_alone(fd: int) -> None:
        children.append(os.dup(fd))
        close(fd)

    with monkeypatch.context() as patch:
        patch.setattr(lock, "os", SimpleNamespace(**{**vars(os), "close": close_here_alone}))
        assert not is_held(tmp_path)
    assert children
    PathLock(tmp_path).release()
    close(children[0])


def test_a_missing_directory_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        PathLock(tmp_path / "absent")
