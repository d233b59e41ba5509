"""One writing process per store: an advisory lock on a file inside the directory.

Read-only opens do not take it. They see the store as it was when they opened it and nothing later, so they
neither disturb a writer nor are disturbed by one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import weakref
from pathlib import Path
from typing import Final

from ..errors import StoreError, StoreLocked, StoreReadOnly

LOCK_NAME: Final = "warpmem.lock"

_TRIES: Final = 6  # is_held() has the lock itself for some microseconds, or a turn of the scheduler
_PAUSE: Final = 0.01
_READ_ONLY: Final = (errno.EROFS, errno.EACCES, errno.EPERM)

_held: weakref.WeakSet[PathLock] = weakref.WeakSet()


class PathLock:
    """Holds `<path>/warpmem.lock` by flock(2) from construction until release() or the death of the process.

    The file holds the holder's process id in decimal and a newline, and stays when the lock is released:
    removing it would let two processes lock two files of the same name. A second open in the same process
    is refused too. A forked child does not hold its parent's lock.

    Raises StoreLocked when held elsewhere, StoreReadOnly when the directory is not writable.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = Path(path) / LOCK_NAME
        self._fd = -1
        try:
            fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            if error.errno in _READ_ONLY:
                raise StoreReadOnly(
                    f"no permission to write in {os.fspath(path)!r} ({error.strerror}): "
                    "open with read_only=True, or give this user write permission"
                ) from error
            raise StoreError(
                f"cannot open the lock file {os.fspath(self._file)!r}: {error.strerror}"
            ) from error
        try:
            _lock(fd)
        except OSError as error:
            pid = _read_pid(fd)
            os.close(fd)
            if isinstance(error, BlockingIOError):
                raise _locked(path, pid) from error
            raise StoreError(
                f"cannot lock {os.fspath(self._file)!r} ({error.strerror}): "
                "keep the store on a file system with flock"
            ) from error
        self._fd = fd
        # The pid is a courtesy to others: a full disk must not keep a store from opening.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        _held.add(self)

    def release(self) -> None:
        """Give the lock up; idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            _held.discard(self)
            # Explicitly, and not by the close alone: a process forked just now may still share the open file.
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    def _forget(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _lock(fd: int) -> None:
    """Raises OSError."""
    for _ in range(_TRIES - 1):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_PAUSE)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_held(path: str | os.PathLike[str]) -> bool:
    """Whether a process has the store open for writing; False where that cannot be asked."""
    try:
        fd = os.open(Path(path) / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # Explicitly: a process forked just now may still share the open file.
        fcntl.flock(fd, fcntl.LOCK_UN)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    finally:
        os.close(fd)
    return False


def _locked(path: str | os.PathLike[str], pid: int | None) -> StoreLocked:
    if pid == os.getpid():
        holder = f"this process (pid {pid})"
        remedy = "use the store that is already open, or close it first"
    else:
        holder = "another process" if pid is None else f"process {pid}"
        remedy = "close it there, share one process, or open with read_only=True"
    return StoreLocked(f"the store {os.fspath(path)!r} is open in {holder}: {remedy}", pid)


def _read_pid(fd: int) -> int | None:
    try:
        text = os.pread(fd, 32, 0)
    except OSError:
        return None
    return int(text) if text.strip().isdigit() else None


def _after_fork_in_child() -> None:
    # flock belongs to the open file, which a child shares: it would go on holding the lock of a dead parent.
    for lock in list(_held):
        lock._forget()
    _held.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
