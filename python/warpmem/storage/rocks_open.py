"""How RocksDB is opened: every option of the database and of its families."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

from . import directory
from .codec import FAMILIES, VECTOR_FAMILIES
from .log_check import check_logs
from .rocks_fork import check_threads, note_open

_OPTIONS: Final = Path(__file__).with_name("rocksdb_options")
_CACHE_BYTES: Final = 32 << 20
_MAX_OPEN_FILES: Final = 256
_INFO_LOG_BYTES: Final = 1 << 20
_INFO_LOGS: Final = 2
_LARGE_BLOCK: Final = 16 << 10  # vectors are read by the thousand, which takes two thirds of the time with it
UNCOMPRESSED: Final = frozenset(VECTOR_FAMILIES)  # float32 of unit vectors do not compress


@contextlib.contextmanager
def _option_file(access: str) -> Iterator[str]:
    if access != "write on a full disk":
        yield os.fspath(_OPTIONS)
        return
    folder = directory.scratch()
    try:
        text = next(_OPTIONS.iterdir()).read_text("ascii")
        text = text.replace("[DBOptions]\n", "[DBOptions]\n  avoid_flush_during_recovery=true\n")
        Path(folder, "OPTIONS-000001").write_text(text, "ascii")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sync_logs(path: str) -> None:
    """Sync the write-ahead logs at a path. RocksDB does it where it writes them into tables; else what a
    process that died had not synced could be gone after a loss of power, and what was built on it not."""
    for name in directory.file_names(path):
        if name.endswith(".log"):
            with open(os.path.join(path, name), "rb") as file:
                os.fsync(file)


def _options(
    folder: str, memtable_bytes: int, cache: Any, *, compress: bool, read_only: bool
) -> tuple[Any, Any]:
    """Options of the database and of one family: those of the options file, then these."""
    from rocksdict import BlockBasedOptions, DBCompressionType, DBRecoveryMode, Options

    options, families = Options.load_latest(folder)  # in raw mode, as no file there says otherwise
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
    if not compress:
        tables.set_block_size(_LARGE_BLOCK)
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
    """RocksDB at a path; access "write", "write on a full disk" (what the write-ahead log holds is not
    written into tables), "read" or "follow". info: folder for what a follower logs. absent: families
    that it does not have. Raises StoreError for writing in a forked child, see rocks_fork.py."""
    from rocksdict import AccessType, Cache, Rdict

    read_only = not access.startswith("write")
    if not read_only:
        check_threads()
    if access == "write on a full disk":
        _sync_logs(path)
    note_open()
    cache = Cache(_CACHE_BYTES)
    with _option_file(access) as folder:
        options, compressed = _options(folder, memtable_bytes, cache, compress=True, read_only=read_only)
        _, plain = _options(folder, memtable_bytes, cache, compress=False, read_only=read_only)
    return Rdict(
        path,
        options=options,
        column_families={
            family: plain if family in UNCOMPRESSED else compressed
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
    """The families of the database at a path. Raises StoreCorrupt for what RocksDB would not survive."""
    from rocksdict import Rdict

    check_logs(path)
    return Rdict.list_cf(path)
