"""The last steps of an erasure: RocksDB's files without the bytes of what was deleted in them.

What is odd about it, and why:

* A compaction of a range leaves tables of the last level as they are, unless it is forced to take them.
* A snapshot keeps what was deleted after it, and an iterator keeps the tables of its moment. So walks let go
  of theirs, and go on behind their last entry.
* Keys stand in the MANIFEST, in RocksDB's own log and in its cache until they begin anew, and opening is what
  does that. So the database is closed and opened again inside the engine, which takes about 0.1 s.
* rocksdict cannot close what another thread is inside of. So whoever works on the database as a whole holds
  one lock. It is taken first; a walk's own lock is never waited for while there is no database. A
  store that is dropped is closed by the collector, wherever its thread is then, so locks are reentrant.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from ..errors import StoreLocked
from . import directory
from .disk import SpaceGuard
from .rocks_errors import call
from .rocks_scan import Chunks, Scan

_OPEN_SECONDS: Final = 30.0


class Renewable:
    """The part of RocksEngine that erases."""

    _path: str
    _guard: SpaceGuard
    _closed: str
    _db: Any
    _families: dict[str, Any]
    _handles: dict[str, Any]
    _scans: weakref.WeakSet[Scan | Chunks]
    _scans_lock: threading.RLock
    _whole: threading.RLock
    _renewed: threading.Event
    _check_writable: Callable[[], None]
    _change: Callable[..., None]
    _release: Callable[[], None]
    _take: Callable[[Any], None]
    _open_database: Callable[[], Any]

    def compact(self, ranges: Sequence[tuple[str, bytes, bytes]], *, frees: bool = True) -> int:
        """See protocols.Engine.compact."""
        with self._whole:
            self._check_writable()
            return self._compact(ranges, frees)

    def _compact(self, ranges: Sequence[tuple[str, bytes, bytes]], frees: bool) -> int:
        database, families = self._db, self._families
        self._flush()
        self._let_walks_go(wait=True)
        self._guard.before(_holding(database, ranges), frees=lambda: frees)
        before = directory.tables(self._path)
        for family, start, stop in ranges:
            self._change("compaction", _compact, families[family], start, stop)
        return len(before - directory.tables(self._path))

    def renew(self) -> None:
        """See protocols.Engine.renew. When the database cannot be opened again the engine is closed."""
        with self._whole:
            self._check_writable()
            self._flush()
            self._reopen()
        directory.remove_old_logs(self._path)

    def _reopen(self) -> None:
        self._renewed.clear()
        try:
            self._families, self._handles = {}, {}
            self._let_walks_go()
            database, self._db = self._db, None
            call(database.close)
            del database
            self._take(self._open_unlocked(_OPEN_SECONDS))
        except BaseException as error:
            self._closed = f"the store was closed when it could not be opened again ({error}): open it again"
            self._release()
            raise
        finally:
            self._renewed.set()

    def _flush(self) -> None:
        self._change("sync", self._db.flush_wal, True)
        for family in self._families.values():
            self._change("flush", family.flush)

    def _let_walks_go(self, *, wait: bool = False) -> None:
        with self._scans_lock:
            walks = list(self._scans)
        for walk in walks:
            walk.let_go(wait)

    def _open_unlocked(self, seconds: float) -> Any:
        """The database, once whoever is inside a call to the one before has left and gives up its lock."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self._open_database()
            except StoreLocked:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
                self._let_walks_go()


def _compact(family: Any, start: bytes, stop: bytes) -> None:
    from rocksdict import BottommostLevelCompaction, CompactOptions

    options = CompactOptions()
    options.set_bottommost_level_compaction(BottommostLevelCompaction.force())
    family.compact_range(start, stop, options)


def _holding(database: Any, ranges: Sequence[tuple[str, bytes, bytes]]) -> int:
    """Bytes of the tables that may hold keys of some ranges, those of other families with such keys included:
    RocksDB's list does not tell whose a table is."""
    found: Iterable[dict[str, Any]] = call(database.live_files)
    return sum(
        table["size"]
        for table in found
        if any(table["start_key"] <= stop and start <= table["end_key"] for _, start, stop in ranges)
    )
