"""The engine on disk: RocksDB through rocksdict in raw mode. The only file that imports rocksdict.

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
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ..errors import DiskFull, StoreClosed, StoreCorrupt, StoreError, StoreLocked, StoreReadOnly
from . import directory
from .codec import FAMILIES, KEYS_END, VECTOR_FAMILIES
from .disk import SpaceGuard
from .lock import PathLock
from .rocks_errors import call
from .rocks_scan import Chunks, Scan

_OPTIONS: Final = Path(__file__).with_name("rocksdb_options")
_READ_ONLY_ATTEMPTS: Final = 3
_CACHE_BYTES: Final = 32 << 20
_MAX_OPEN_FILES: Final = 256
_INFO_LOG_BYTES: Final = 1 << 20
_INFO_LOGS: Final = 2
_UNCOMPRESSED: Final = frozenset(VECTOR_FAMILIES)  # float32 of unit vectors do not compress


# ----------------------------------------------------------------------------------------- opening


def _options(memtable_bytes: int, cache: Any, *, compress: bool, read_only: bool) -> tuple[Any, Any]:
    """Options of the database and of one family: those of the options file, then these."""
    from rocksdict import BlockBasedOptions, DBCompressionType, DBRecoveryMode, Options

    options, families = Options.load_latest(
        os.fspath(_OPTIONS)
    )  # in raw mode, as no file there says otherwise
    options.create_if_missing(not read_only)
    options.create_missing_column_families(not read_only)
    # Refuses a flipped bit in the log and accepts a torn end; RocksDB's default loses data in silence.
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_paranoid_checks(True)
    options.set_db_write_buffer_size(4 * memtable_bytes)
    options.set_max_total_wal_size(8 * memtable_bytes)
    # A reader keeps every table open from the start: a writer elsewhere may remove any of them later.
    options.set_max_open_files(-1 if read_only else _MAX_OPEN_FILES)
    options.set_keep_log_file_num(_INFO_LOGS)
    options.set_max_log_file_size(_INFO_LOG_BYTES)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    options.set_bytes_per_sync(1 << 20)

    family = families["default"]
    tables = BlockBasedOptions()
    tables.set_block_cache(cache)
    tables.set_bloom_filter(10, False)
    tables.set_cache_index_and_filter_blocks(True)
    tables.set_pin_l0_filter_and_index_blocks_in_cache(True)
    family.set_block_based_table_factory(tables)
    family.set_write_buffer_size(memtable_bytes)
    family.set_compression_type(DBCompressionType.lz4() if compress else DBCompressionType.none())
    return options, family


def open_database(
    path: str, memtable_bytes: int, access: str, info: str = "", absent: Collection[str] = ()
) -> Any:
    """RocksDB at a path; access "write", "read" or "follow". info: folder for what a follower logs. absent:
    families that it does not have."""
    from rocksdict import AccessType, Cache, Rdict

    cache = Cache(_CACHE_BYTES)
    read_only = access != "write"
    options, compressed = _options(memtable_bytes, cache, compress=True, read_only=read_only)
    _, plain = _options(memtable_bytes, cache, compress=False, read_only=read_only)
    return Rdict(
        path,
        options=options,
        column_families={
            family: plain if family in _UNCOMPRESSED else compressed
            for family in FAMILIES
            if family not in absent
        },
        access_type=(
            AccessType.secondary(info)
            if access == "follow"
            else AccessType.read_only(False)
            if access == "read"
            else AccessType.read_write()
        ),
    )


def list_families(path: str) -> list[str]:
    """The families of the database at a path."""
    from rocksdict import Rdict

    return Rdict.list_cf(path)


# ------------------------------------------------------------------------------------------ engine


class RocksEngine:
    """protocols.Engine on a directory. See there for the contract; every method is thread-safe but write,
    sync and close, which want one thread at a time.

    path            created when missing (not when read_only); refused when it holds something else
    read_only       no lock is taken and nothing in the directory changes; what is read is the state at open
    memtable_bytes  write buffer of one family; all together take at most four times that, the write-ahead
                    log eight times
    min_free_bytes  writes are refused with less than this free (see disk.py); 0 turns that off
    upgrade         called with the families found before families of a newer format are added, while the
                    store is locked and closed; without it a store that lacks them is refused

    Raises FormatError (no store), StoreLocked, StoreCorrupt, StoreReadOnly (no permission), DiskFull,
    StoreError.
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
        self._path = os.path.abspath(path)
        self._read_only = read_only
        self._upgrade = upgrade
        self._absent: tuple[str, ...] = ()
        self._guard = SpaceGuard(self._path, min_free_bytes, self._buffered)
        self._failure: str | None = None
        self._closed = "the store is closed: open it again"
        self._lock: PathLock | None = None
        self._remove_mirror: weakref.finalize[..., RocksEngine] | None = None
        self._db: Any = None
        self._families: dict[str, Any] = {}
        self._handles: dict[str, Any] = {}
        self._scans: weakref.WeakSet[Scan | Chunks] = weakref.WeakSet()
        self._scans_lock = threading.Lock()
        try:
            self._db = self._open_read_only(memtable_bytes) if read_only else self._open(memtable_bytes)
            names = {name: "default" if name in self._absent else name for name in FAMILIES}
            self._families = {name: self._db.get_column_family(real) for name, real in names.items()}
            self._handles = {name: self._db.get_column_family_handle(real) for name, real in names.items()}
            from rocksdict import WriteBatch

            self._new_batch = WriteBatch
        except BaseException:
            self._release()
            raise
        _engines.add(self)

    def _open(self, memtable_bytes: int) -> Any:
        exists = directory.prepare(self._path)
        if exists and not directory.is_ours(self._path):
            # Before the lock, which is a file: somebody else's database stays as it is.
            directory.check_families(self._path, call(list_families, self._path), read_only=False)
        self._lock = PathLock(self._path)
        directory.remove_snapshot(self._path)
        if exists:
            found = call(list_families, self._path)
            if directory.check_families(self._path, found, read_only=False):
                self._upgrade(found)
        # A reader inside a call when this process closed the store holds RocksDB's lock a moment longer.
        deadline = time.monotonic() + 1.0
        while True:
            try:
                return call(open_database, self._path, memtable_bytes, "write")
            except StoreLocked:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _open_read_only(self, memtable_bytes: int) -> Any:
        directory.require(self._path)
        attempt = 1
        while True:
            place = directory.scratch()
            remove = weakref.finalize(self, shutil.rmtree, place, ignore_errors=True)
            mirror = os.path.join(place, "store")
            try:
                directory.mirror(self._path, mirror)
                absent = directory.check_families(mirror, call(list_families, mirror), read_only=True)
                database = call(open_database, mirror, memtable_bytes, "read", "", absent)
            except StoreCorrupt:
                remove()
                # A writer may have removed a file between the listing and the open.
                if attempt == _READ_ONLY_ATTEMPTS:
                    raise
                attempt += 1
            except BaseException:
                remove()
                raise
            else:
                self._remove_mirror = remove
                self._absent = absent
                return database

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
        scan = Scan(lambda: self._closed, call(self._family(family).iter), start, stop, reverse)
        with self._scans_lock:
            self._scans.add(scan)
        return scan

    def chunks(
        self, family: str, start: bytes, stop: bytes, size: int
    ) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """See protocols.Engine.chunks. Raises as scan."""
        chunks = Chunks(lambda: self._closed, self._moment(family), start, stop, size)
        with self._scans_lock:
            self._scans.add(chunks)
        return chunks

    def _moment(self, family: str) -> Any:
        return call(self._family(family).snapshot)

    def _family(self, family: str) -> Any:
        handle = self._families.get(family)
        if handle is None:
            if not self._families:
                raise StoreClosed(self._closed)
            raise KeyError(f"no family {family!r}: expected one of {', '.join(FAMILIES)}")
        return handle

    def sizes(self) -> dict[str, int]:
        """Bytes: tables, wal, other (on disk); memtables, block_cache (in memory)."""
        first = self._family(FAMILIES[0])
        sizes = {"tables": 0, "wal": 0, "other": 0, "memtables": self._buffered(), "block_cache": 0}
        sizes["block_cache"] = call(first.property_int_value, "rocksdb.block-cache-usage") or 0
        with os.scandir(self._path) as entries:
            for entry in entries:
                part = {".sst": "tables", ".log": "wal"}.get(os.path.splitext(entry.name)[1], "other")
                with contextlib.suppress(FileNotFoundError):  # compaction removes files at any time
                    sizes[part] += entry.stat(follow_symlinks=False).st_size
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
        batch = self._new_batch(raw_mode=True)
        for family, key, value in operations:
            if value is None:
                batch.delete(key, self._handles[family])
            else:
                batch.put(key, value, self._handles[family])
        if batch.is_empty():
            return
        self._guard.before(batch.size_in_bytes())
        self._change("write", self._db.write, batch)

    def clear(self, family: str) -> None:
        """See protocols.Engine.clear. Raises as write."""
        self._check_writable()
        batch = self._new_batch(raw_mode=True)
        batch.delete_range(b"", KEYS_END, self._handles[family])
        self._change("write", self._db.write, batch)

    def sync(self) -> None:
        """See protocols.Engine.sync. Raises StoreReadOnly (DiskFull when that was the reason)."""
        self._check_writable()
        self._change("sync", self._db.flush_wal, True)

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
        self._check_writable()
        for family in list(self._families.values()):
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
        was written is in the write-ahead log.
        """
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
            for scan in list(self._scans):
                scan.abandon()
        database, self._db = self._db, None
        if database is not None:
            # RocksDB repeats the error that stopped the writes; it was raised when it happened.
            with contextlib.suppress(StoreError):
                call(database.close)
        del database
        if self._lock is not None:
            self._lock.release()
        if self._remove_mirror is not None:
            self._remove_mirror()

    def _orphan(self) -> None:
        # In a forked child RocksDB's threads are gone and its mutexes may be held: touch and free nothing.
        self._closed = (
            "the store was opened before a fork: open it in the child, after closing it in the parent"
        )
        _orphans.extend((self._db, self._families, self._handles, *(scan.abandon() for scan in self._scans)))
        self._families = {}
        self._handles = {}
        self._db = None
        if self._remove_mirror is not None:
            self._remove_mirror.detach()  # the parent still reads through it


_engines: weakref.WeakSet[RocksEngine] = weakref.WeakSet()
_orphans: list[Any] = []


def _after_fork_in_child() -> None:
    for engine in list(_engines):
        engine._orphan()
    _engines.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
