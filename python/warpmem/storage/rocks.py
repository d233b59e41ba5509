"""The engine on disk: RocksDB through rocksdict in raw mode. Only rocks*.py import rocksdict.

What is odd about it, and why:

* A RocksDB handle stays open, with its lock, while any column family handle or iterator is referenced.
  close() therefore takes the iterators away from scans that are still around.
* `items()` of rocksdict ends early in silence at a damaged block; `iter()` and then `status()` does not.
* After a failed write or sync RocksDB's state on disk is unknown, so the engine stops writing for good.
* rocksdict writes a file of its own into the directory even when it opens read-only. A read-only open goes
  through a temporary directory of symbolic links instead, and leaves the store untouched.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final, TypeVar

from ..errors import DiskFull, StoreClosed, StoreCorrupt, StoreError, StoreReadOnly
from . import directory
from .codec import FAMILIES, KEYS_END
from .disk import SpaceGuard
from .lock import PathLock
from .reserve import Reserve
from .rocks_errors import call
from .rocks_fork import check_threads, keep_for_ever
from .rocks_open import UNCOMPRESSED, list_families, open_database
from .rocks_renewal import Renewable
from .rocks_scan import Chunks, Scan
from .rocks_writes import write_batch
from .steady import changed, held, linked

W = TypeVar("W", Scan, Chunks)

_BOOKS: Final = frozenset({"log", "meta"})
_SHARE_TO_RESERVE: Final = 4


def _frees(operations: Sequence[tuple[str, bytes, bytes | None]]) -> bool:
    """Whether a write makes room in the end: it deletes and adds no rows, or keeps the books of an erasure,
    whose marks come before its deletions and whose stubs after."""
    if any(family in UNCOMPRESSED and value for family, _, value in operations):
        return False
    return any(value is None for _, _, value in operations) or all(
        family in _BOOKS for family, _, _ in operations
    )


class RocksEngine(Renewable):
    """protocols.Engine on a directory. See there for the contract; every method is thread-safe but write,
    sync and close, which want one thread at a time.

    path            created when missing (not when read_only); refused when it holds something else
    read_only       no lock is taken and nothing in the directory changes; what is read is the state at open
    memtable_bytes  write buffer of one family; all together take at most four times that, the write-ahead
                    log eight times
    min_free_bytes  writes are refused with less than this free (see disk.py); 0 turns that off
    upgrade         called with the families found before families of a newer format are added, while the
                    store is locked and closed; without it a store that lacks them is refused

    Raises InputError (a path that is not UTF-8), FormatError (no store), StoreLocked, StoreCorrupt,
    StoreReadOnly (no permission), DiskFull, StoreError.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        read_only: bool = False,
        memtable_bytes: int = 16 << 20,
        min_free_bytes: int = 64 << 20,
        upgrade: Callable[[Collection[str]], None] = directory.refuse_older,
    ) -> None:
        self._path = directory.absolute(path)
        self._read_only = read_only
        self._upgrade = upgrade
        self._absent: tuple[str, ...] = ()
        self._guard = SpaceGuard(self._path, min_free_bytes, self._buffered)
        self._min_free = min_free_bytes
        self._reserve = Reserve(self._path, min_free_bytes // _SHARE_TO_RESERVE)
        self._failure: str | None = None
        self._closed = "the store is closed: open it again"
        self._lock: PathLock | None = None
        self._remove_mirror: weakref.finalize[..., RocksEngine] | None = None
        self._db: Any = None
        self._families: dict[str, Any] = {}
        self._handles: dict[str, Any] = {}
        self._scans: weakref.WeakSet[Scan | Chunks] = weakref.WeakSet()
        self._scans_lock = threading.RLock()
        self._whole = threading.RLock()  # held by who exchanges the database, and who must not see that
        self._memtable_bytes = memtable_bytes
        self._renewed = threading.Event()  # not set while renew() has no database for readers
        self._renewed.set()
        try:
            if read_only:
                self._take(*self._open_read_only(memtable_bytes))
            else:
                self._take(self._open())
            from rocksdict import WriteBatch

            self._new_batch = WriteBatch
            if not read_only:
                self._reserve.keep(min_free_bytes)
        except BaseException:
            self._release()
            raise
        _engines.add(self)

    def _open(self) -> Any:
        check_threads()
        directory.refuse_backup(self._path)
        exists = directory.prepare(self._path)
        if not exists:
            directory.create(self._path)
        if exists and not directory.is_ours(self._path):
            # Before the lock, which is a file: somebody else's database stays as it is.
            directory.check_families(self._path, call(list_families, self._path), read_only=False)
        self._lock = PathLock(self._path)
        directory.remove_snapshot(self._path)
        if exists:
            found = call(list_families, self._path)
            if directory.check_families(self._path, found, read_only=False):
                self._upgrade(found)
        return self._open_unlocked(1.0)

    def _open_database(self) -> Any:
        try:
            return call(open_database, self._path, self._memtable_bytes, "write")
        except DiskFull:
            self._reserve.release()
            return call(open_database, self._path, self._memtable_bytes, "write on a full disk")

    def _take(self, database: Any, absent: tuple[str, ...] = (), remove: Any = None) -> None:
        """Go on in a database. absent: the families it lacks; remove: takes its links away."""
        names = {name: "default" if name in absent else name for name in FAMILIES}
        handles = {name: database.get_column_family_handle(real) for name, real in names.items()}
        families = {name: database.get_column_family(real) for name, real in names.items()}
        # No call from here on: that is where an interrupt comes, and one half would stay another database's.
        self._db, self._handles, self._families = database, handles, families
        self._absent, self._remove_mirror = absent, remove

    def _open_read_only(self, memtable_bytes: int) -> tuple[Any, ...]:
        """What _take() wants."""
        directory.require(self._path)
        before = directory.data_files(self._path)
        try:
            return self._open_mirror(memtable_bytes, hold=False)
        except StoreCorrupt:
            if not changed(self._path, before):
                raise
        # A writer has replaced files between the listing and the open, or while it was going on.
        return self._open_mirror(memtable_bytes, hold=True)

    def _open_mirror(self, memtable_bytes: int, *, hold: bool) -> tuple[Any, tuple[str, ...], Any]:
        place = directory.scratch()
        remove = directory.removed_with(self, place)
        mirror = os.path.join(place, "store")
        try:
            with held(self._path, mirror) if hold else linked(self._path, mirror):
                absent = directory.check_families(mirror, call(list_families, mirror), read_only=True)
                database = call(open_database, mirror, memtable_bytes, "read", "", absent)
        except BaseException:
            remove()
            raise
        return database, absent, remove

    @property
    def path(self) -> str:
        """The directory, absolute."""
        return self._path

    # -------------------------------------------------------------------------------------- reads

    @property
    def absent(self) -> Sequence[str]:
        """See protocols.Engine. RocksDB's own family, which is empty, is read in their place."""
        return self._absent

    def get(self, family: str, key: bytes) -> bytes | None:
        """The value, or None. Raises StoreCorrupt when its block fails RocksDB's checksum."""
        value: bytes | None = call(self._family(family).get, key)
        return value

    def get_many(self, family: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """One value or None for each key, in order."""
        values: list[bytes | None] = call(self._family(family).get, list(keys)) if keys else []
        return values

    def scan(
        self, family: str, start: bytes, stop: bytes, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """See protocols.Engine.scan. Raises StoreClosed when the engine closes meanwhile."""
        return self._begin(
            Scan(lambda: self._closed, lambda: call(self._family(family).iter), start, stop, reverse)
        )

    def chunks(
        self, family: str, start: bytes, stop: bytes, size: int
    ) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """See protocols.Engine.chunks. Raises as scan."""
        return self._begin(
            Chunks(lambda: self._closed, lambda: call(self._family(family).snapshot), start, stop, size)
        )

    def _begin(self, walk: W) -> W:
        # Known first: an erasure could miss one that has a snapshot already, which keeps what was erased.
        with self._scans_lock:
            self._scans.add(walk)
        walk.begin()
        return walk

    def _family(self, family: str) -> Any:
        while (handle := self._families.get(family)) is None:
            if not self._renewed.is_set():
                self._renewed.wait()
            elif family in FAMILIES:
                raise StoreClosed(self._closed)
            else:
                raise KeyError(f"no family {family!r}: expected one of {', '.join(FAMILIES)}")
        return handle

    def sizes(self) -> dict[str, int]:
        """Bytes: tables, wal, other (on disk, but for the reserve); memtables, block_cache (in memory).
        Raises StoreError when the directory cannot be listed."""
        first = self._family(FAMILIES[0])
        sizes = {"tables": 0, "wal": 0, "other": 0, "memtables": self._buffered(), "block_cache": 0}
        sizes["block_cache"] = call(first.property_int_value, "rocksdb.block-cache-usage") or 0
        for name, size in directory.file_sizes(self._path).items():
            sizes[{".sst": "tables", ".log": "wal"}.get(os.path.splitext(name)[1], "other")] += size
        return sizes

    def _buffered(self) -> int:
        return sum(
            call(family.property_int_value, "rocksdb.size-all-mem-tables") or 0
            for family in self._families.values()
        )

    # ------------------------------------------------------------------------------------- writes

    def write(self, operations: Sequence[tuple[str, bytes, bytes | None]]) -> None:
        """See protocols.Engine.write. DiskFull below min_free_bytes leaves the engine usable; any error of
        RocksDB itself stops all later writes with StoreReadOnly."""
        self._check_writable()
        batch = self._batch(operations)
        if batch.is_empty():
            return
        if self._guard.before(batch.size_in_bytes(), frees=lambda: _frees(operations)):
            self._reserve.keep(self._min_free)
        made = [batch]  # the first time; another one for each time that RocksDB would not wait
        self._write(lambda: made.pop() if made else self._batch(operations))

    def _batch(self, operations: Sequence[tuple[str, bytes, bytes | None]]) -> Any:
        batch = self._new_batch(raw_mode=True)
        for family, key, value in operations:
            if value is None:
                batch.delete(key, self._handles[family])
            else:
                batch.put(key, value, self._handles[family])
        return batch

    def _write(self, make: Callable[[], Any]) -> None:
        self._change("write", write_batch, self._db, make, self._guard.has_room)

    def clear(self, family: str) -> None:
        """See protocols.Engine.clear. Raises as write."""
        self._check_writable()

        def everything() -> Any:
            batch = self._new_batch(raw_mode=True)
            batch.delete_range(b"", KEYS_END, self._handles[family])
            return batch

        self._write(everything)

    def sync(self) -> None:
        """See protocols.Engine.sync. Raises StoreReadOnly (DiskFull when that was the reason)."""
        self._check_writable()
        self._change("sync", self._db.flush_wal, True)

    def require_room(self, size: int) -> None:
        """See protocols.Engine."""
        self._guard.require(size)

    def _check_writable(self) -> None:
        if not self._families:
            raise StoreClosed(self._closed)
        if self._read_only:
            raise StoreReadOnly("the store was opened with read_only=True: open it without to change it")
        if self._failure is not None:
            raise StoreReadOnly(self._failure)

    def _change(self, what: str, function: Callable[..., None], *arguments: Any) -> None:
        try:
            call(function, *arguments)
        except StoreError as error:
            self._failure = (
                f"writes stopped after a failed {what} ({error}). What was acknowledged before is safe and "
                "reads go on; remove the cause, then close the store and open it again"
            )
            if isinstance(error, DiskFull):
                self._guard.alarm()
                raise
            raise StoreReadOnly(self._failure) from error

    # ------------------------------------------------------------------------------------- backup

    def flush(self) -> None:
        """Move what is in memory into tables, so that snapshot() has little left to move. On any thread."""
        with self._whole:
            self._check_writable()
            for family in self._families.values():
                call(family.flush)

    def snapshot(self, path: str) -> None:
        """Make `path`, which does not exist, a database in the state of now; its tables are links. On the
        thread of write. This holds the interpreter's lock."""
        from rocksdict import Checkpoint

        self._check_writable()
        call(Checkpoint(self._db).create_checkpoint, path)

    # -------------------------------------------------------------------------------------- close

    def close(self) -> None:
        """Move the write-ahead log into tables, release everything; idempotent.

        Raises the typed error when that fails and no earlier write had; all is released even so, and what
        was written is in the write-ahead log. Waits for a compaction that another thread is at.
        """
        with self._whole:
            self._close()

    def _close(self) -> None:
        if not self._families:
            return
        try:
            if not self._read_only and self._failure is None:
                self._change("sync", self._db.flush_wal, True)
                # An empty log at the next open: a cut at a record's border would look like its end. Not on a
                # disk too full for another copy; what was just synced is then read from the log.
                if self._guard.has_room():
                    for family in self._families.values():
                        self._change("flush", family.flush)
        finally:
            self._release()

    def _release(self) -> None:
        _engines.discard(self)
        self._families = {}
        self._handles = {}
        with self._scans_lock:
            for scan in self._scans:
                scan.abandon()
        database, self._db = self._db, None
        try:
            if database is not None:
                # RocksDB repeats the error that stopped the writes; it was raised when it happened.
                with contextlib.suppress(StoreError):
                    call(database.close)
        finally:
            del database
            if self._lock is not None:
                self._lock.release()
            if self._remove_mirror is not None:
                self._remove_mirror()

    def _orphan(self) -> None:
        # In a forked child: see rocks_fork.
        self._closed = (
            "the store was opened before a fork and is the parent's: open it in the child for reading only; "
            "start a process that writes by spawn, forkserver or exec"
        )
        # Not under the lock, which another thread may have held.
        keep_for_ever((self._db, self._families, self._handles, *(scan.abandon() for scan in self._scans)))
        self._renewed.set()
        self._whole, self._scans_lock = threading.RLock(), threading.RLock()
        self._families = {}
        self._handles = {}
        self._db = None
        if self._remove_mirror is not None:
            self._remove_mirror.detach()  # the parent still reads through it


_engines: weakref.WeakSet[RocksEngine] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for engine in list(_engines):
        engine._orphan()
    _engines.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
