"""Writing without ever waiting inside RocksDB.

RocksDB lets a write wait while memtables are written out, and for ever when they find no room on the disk: it
polls for some. rocksdict holds the interpreter's lock meanwhile, so that nothing else goes on. Here RocksDB
is told not to wait; the wait is Python's, others run, and a full disk ends it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from ..errors import DiskFull

if TYPE_CHECKING:
    from rocksdict import WriteBatch

_STALLED: Final = "Write stall"
_FIRST_PAUSE, _SHORT_PAUSE, _LONG_PAUSE = 0.0005, 0.02, 2.0
PATIENCE: Final = 5.0
"""Seconds of waiting, in short pauses, after which the disk is looked at, for a compaction may free some of
it, and pauses grow: each refused write counts against RocksDB's rate of delayed writes, which may be as low
as 16 KiB a second."""


@lru_cache(maxsize=1)
def _options() -> Any:
    from rocksdict import WriteOptions

    options = WriteOptions()
    options.no_slowdown = True
    return options


def write_batch(database: Any, make: Callable[[], WriteBatch], has_room: Callable[[], bool]) -> None:
    """Write what `make` gives, which rocksdict consumes at each try. has_room: whether what RocksDB has
    buffered fits on the disk above the low-water mark. Raises DiskFull when it does not, and what rocksdict
    raises."""
    options = _options()
    began = 0.0
    pause = _FIRST_PAUSE
    while True:
        try:
            database.write(make(), options)
            return
        except Exception as error:
            if type(error) is not Exception or _STALLED not in str(error):
                raise
        began = began or time.monotonic()
        patient = time.monotonic() - began <= PATIENCE
        if not patient and not has_room():
            raise DiskFull(
                "the disk is full: there is no room for what is buffered, and nothing of this was written; "
                "free some space, then close the store and open it again"
            )
        time.sleep(pause)
        pause = min(2 * pause, _SHORT_PAUSE if patient else _LONG_PAUSE)
