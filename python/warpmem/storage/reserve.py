"""The reserve: space kept in the store's own directory, given back when the disk is full so that it opens."""

from __future__ import annotations

import contextlib
import os

from ..errors import StoreError
from .disk import free_bytes

RESERVE_NAME = "warpmem.reserve"


class Reserve:
    """The file `warpmem.reserve` of `size` bytes, whose content nobody reads. size 0 keeps none.

    It is derived: it may be missing, short or deleted at any time. Not thread-safe.
    """

    def __init__(self, path: str, size: int) -> None:
        self._path = path
        self._file = os.path.join(path, RESERVE_NAME)
        self._size = size

    def keep(self, min_free: int) -> bool:
        """Make it, if it is not there and `min_free` bytes stay free beside it; whether it is there then."""
        if self._size == 0:
            return False
        with contextlib.suppress(OSError, StoreError):
            if os.path.exists(self._file):
                if os.path.getsize(self._file) == self._size:
                    return True
                os.unlink(self._file)
            if free_bytes(self._path) < self._size + min_free:
                return False
            descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                os.posix_fallocate(descriptor, 0, self._size)
            except OSError:
                os.unlink(self._file)
                raise
            finally:
                os.close(descriptor)
            return True
        return False

    def release(self) -> bool:
        """Give its space back; False when there was none to give."""
        try:
            os.unlink(self._file)
        except OSError:
            return False
        return True
