"""RocksDB's errors made typed.

rocksdict raises plain `Exception` with RocksDB's text, and has no narrower type:
`call` is the one place that catches it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from ..errors import DiskFull, StoreClosed, StoreCorrupt, StoreError, StoreLocked, StoreReadOnly

T = TypeVar("T")

_NO_SPACE: Final = ("No space left", "Disk quota exceeded", "File too large")


def call(function: Callable[..., T], *arguments: Any) -> T:
    """function(*arguments) with RocksDB's errors made typed."""
    try:
        return function(*arguments)
    except Exception as error:
        if typed(error) is error:
            raise
        raise typed(error) from error  # no name here may hold it: its frames hold the database


def typed(error: Exception) -> Exception:
    """The typed error for one that rocksdict raised. Others, TypeError for example, stay what they are."""
    text = str(error)
    if type(error).__name__ == "DbClosedError":
        return StoreClosed("the store is closed: open it again")
    if isinstance(error, OSError):
        if isinstance(error, PermissionError):
            return StoreReadOnly(f"no permission to write in the store ({text}): open with read_only=True")
        return StoreError(f"the store cannot be used: {text}")
    if type(error) is not Exception:
        return error
    if any(part in text for part in _NO_SPACE):
        return DiskFull(f"the disk is full: {text}; free some space, then close the store and open it again")
    if "lock hold by" in text or "While lock file" in text:
        return StoreLocked(
            f"the store is open elsewhere ({text}): close it there, or open with read_only=True"
        )
    if "Corruption" in text or "No such file" in text:
        return StoreCorrupt(
            f"RocksDB reports damage: {text}; restore the directory from a backup, or salvage it with "
            "`warpmem repair`"
        )
    if "Permission denied" in text or "Read-only file system" in text:
        return StoreReadOnly(f"no permission to write in the store: {text}; open with read_only=True")
    return StoreError(f"RocksDB refused: {text}")
