"""The low-water mark: writes stop while there is still room to stop cleanly."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from ..errors import DiskFull, StoreError

_SHARE_TO_FREE: Final = 16


def free_bytes(path: str | os.PathLike[str]) -> int:
    """Bytes this user may still write on the file system of `path`. Raises StoreError when it is gone."""
    try:
        status = os.statvfs(path)
    except OSError as error:
        raise StoreError(f"cannot ask for the free space of {os.fspath(path)!r}: {error.strerror}") from error
    return status.f_bavail * status.f_frsize


def check_free(path: str | os.PathLike[str], min_free: int, needed: int) -> None:
    """Raise DiskFull when writing `needed` bytes would leave less than `min_free`. Both in bytes."""
    free = free_bytes(path)
    if free - needed < min_free:
        raise DiskFull(
            f"{free} bytes free on the disk of {os.fspath(path)!r}, {min_free + needed} are needed: "
            f"{needed} for this write and what is buffered, and min_free_bytes is {min_free}; "
            "free some space; nothing was written",
            min_free + needed,
            free,
        )


class SpaceGuard:
    """Calls check_free before every write, for others may fill the disk meanwhile. `min_free` 0 turns it
    off. Not thread-safe.

    A write that frees space in the end may use all but a sixteenth of `min_free`, and what is buffered does
    not count then.

    buffered: bytes that were accepted and will be written once more, when memtables become tables; it is
    asked every `max_writes` writes or `max_bytes` bytes, and what was written since is added. Compaction
    needs room of its own, which no one can tell in advance: `min_free` is there for it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        min_free: int,
        buffered: Callable[[], int],
        *,
        max_writes: int = 64,
        max_bytes: int = 1 << 20,
    ) -> None:
        self._path = path
        self._buffered = buffered
        self._min_free = min_free
        self._max_writes = max_writes
        self._max_bytes = max_bytes
        self._known = 0
        self._writes = max_writes
        self._bytes = 0

    def before(self, size: int, *, frees: Callable[[], bool] = bool) -> bool:
        """Account for a write of `size` bytes; whether the disk was looked at and has room. frees: asked on a
        full disk, whether the write deletes and adds no rows. Raises DiskFull, and then counts nothing."""
        if self._min_free == 0:
            return False
        looked = self._writes >= self._max_writes or self._bytes + size >= self._max_bytes
        if looked:
            self._known = self._buffered()
            self._writes = 0
            self._bytes = 0
        try:
            check_free(self._path, self._min_free, size + self._known + self._bytes)
        except DiskFull:
            self._writes = self._max_writes  # what is buffered may have become a table by the next time
            if not frees():
                raise
            check_free(self._path, self._min_free // _SHARE_TO_FREE, size)
            return False
        self._writes += 1
        self._bytes += size
        return looked

    def require(self, size: int) -> None:
        """Raise DiskFull unless `size` bytes and what is buffered can be written above the low-water mark.
        For files beside the database, which no write accounts for."""
        if self._min_free:
            check_free(self._path, self._min_free, size + self._buffered())

    def has_room(self) -> bool:
        """Whether what is buffered can be written above the low-water mark right now."""
        return free_bytes(self._path) - self._buffered() >= self._min_free

    def alarm(self) -> None:
        """Ask again before the next write, whatever the counts: the disk said that it was full."""
        self._writes = self._max_writes
