"""Backups: directories below one root, each a store of its own that shares unchanged tables with the others.

A backup is made while changes go on. RocksDB makes a snapshot of its files inside the store, by links, in a
change of its own; then the snapshot becomes a directory below the root, is read back, and gets its name. The
store keeps a note of each, because erasure cannot reach into backups and must say so.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import msgspec

from ..errors import NotSupported, StoreCorrupt, StoreError
from ..ops.clock import to_micros
from ..protocols import Engine, Log, Transaction
from ..protocols.storage import DigestsOf
from ..records import Backup, LogEntry, StoreIdentity
from . import codec
from .backup_list import VERSION, BackupFile, copies_at, read_backup, read_root
from .backup_notes import note_copies, note_key
from .copies import Attempt, copy_store, remove_part, typed
from .directory import BACKUP_NAME, SNAPSHOT_NAME, absolute, refuse_inside, remove_snapshot
from .repair import unchanging
from .rocks import RocksEngine
from .rocks_fork import check_threads
from .values import BackupNote, decode, encode
from .verify import verify_store

_UNCHECKED: Final = re.compile(r"warpmem\.(lock|backup)|LOCK|LOG(\.old\.\d+)?")
_NAME: Final = "%Y%m%dT%H%M%S.%fZ"  # of a backup, by its time
_PART: Final = re.compile(r"\.\d{8}T\d{6}\.\d{6}Z\.part", re.ASCII)  # see copies.part_of
_END: Final = b"\xff" * 64
_PIECE: Final = 1 << 20
_running: Final[set[str]] = set()
_running_lock: Final = threading.Lock()


# -------------------------------------------------------------------------------------------- making


def make_backup(log: Log, engine: Engine, root: str, digests: DigestsOf, *, verify: bool) -> Backup:
    """See protocols.Log.backup."""
    if not isinstance(engine, RocksEngine):
        raise NotSupported("a store in memory has no files to back up: export it instead")
    root = absolute(root)
    refuse_inside(engine.path, root)
    with alone(engine.path):
        try:
            return _make(log, engine, root, digests, verify)
        finally:
            remove_snapshot(engine.path)


@contextlib.contextmanager
def alone(store: str) -> Iterator[None]:
    """One backup of a store at a time, whose snapshot has one place. Raises StoreError."""
    with _running_lock:
        if store in _running:
            raise StoreError("a backup is being made: wait for it")
        _running.add(store)
    try:
        yield
    finally:
        with _running_lock:
            _running.remove(store)


def _make(log: Log, engine: RocksEngine, root: str, digests: DigestsOf, verify: bool) -> Backup:
    started = time.monotonic()
    at = datetime.now(UTC)
    target = os.path.join(root, at.strftime(_NAME))
    remove_snapshot(engine.path)
    log.erasures.backups()  # removes what backups of this store have left together with their notes
    _remove_left_behind(root)
    key, last = note_key(), log.position()
    note = BackupNote(to_micros(at, "at"), target, 0 if last is None else last.sequence)
    log.transact(lambda transaction: transaction.keep(key, encode(note)), "sync")
    attempt = Attempt(target)
    try:
        return _copy_out(log, engine, root, target, at, digests, verify, started, attempt)
    except BaseException:
        if attempt.came_to_nothing():
            with contextlib.suppress(StoreError):
                log.transact(lambda transaction: transaction.keep(key, None))
        raise


def _copy_out(
    log: Log, engine: RocksEngine, root: str, target: str, at: datetime, digests: DigestsOf, verify: bool,
    started: float, attempt: Attempt,
) -> Backup:  # fmt: skip
    place = os.path.join(engine.path, SNAPSHOT_NAME)
    snapshot = os.path.join(place, "state")
    engine.flush()

    def snap(transaction: Transaction) -> tuple[float, StoreIdentity]:
        began = time.monotonic()
        os.mkdir(place)
        engine.snapshot(snapshot)
        return time.monotonic() - began, log.identity

    try:
        pause, identity = log.transact(snap)
    except OSError as error:
        raise typed(error, target) from error
    store = hashlib.blake2b(log.identity.salt, digest_size=16).hexdigest()
    earlier = [known for known in read_root(root, whole_only=True) if known.store == store]
    made: list[Backup] = []

    def finish(whole: str) -> None:
        if verify:
            report = verify_store(whole, digests)
            if report.faults:
                raise StoreCorrupt(
                    f"the backup does not verify ({report.faults[0].what}): the store is damaged, and no "
                    "backup was made; run `warpmem verify` and `warpmem repair`"
                )
            if not report.ok:
                raise StoreError("an erasure is unfinished, and no backup was made: make it afterwards")
        files = dict(_digests_of(whole))
        _compare_with_earlier(whole, files, earlier)
        # Linked to the snapshot, and so to the store's own tables, or to an earlier backup's.
        links = {name: os.stat(os.path.join(whole, name)).st_nlink for name in files}
        shared = sum(size for name, (size, _) in files.items() if links[name] > 1)
        sequence, items = _position(whole)
        made.append(
            Backup(
                path=target, at=at, sequence=sequence, items=items, format=identity.format,
                model_id=identity.model_id, dimension=identity.dimension, files=len(files),
                bytes=sum(size for size, _ in files.values()), shared_bytes=shared, pause_seconds=pause,
                seconds=time.monotonic() - started, verified=verify,
            )
        )  # fmt: skip
        content = msgspec.json.format(msgspec.json.encode(BackupFile(VERSION, store, made[0], files)))
        with open(os.path.join(whole, BACKUP_NAME), "xb") as file:
            file.write(content + b"\n")

    reuse = earlier[-1].backup.path if earlier else None
    copy_store(snapshot, target, reuse=reuse, finish=finish, attempt=attempt)
    return made[0]


def _remove_left_behind(root: str) -> None:
    """Processes that died left parts of backups, which link to the store's tables and keep their bytes."""
    with contextlib.suppress(OSError), os.scandir(root) as entries:
        for entry in entries:
            if _PART.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(StoreError):  # StoreLocked: somebody is making it
                    remove_part(entry.path)


def _position(path: str) -> tuple[int, int]:
    """(last change, live items) of the store at a path."""
    engine = RocksEngine(path, read_only=True)
    try:
        for key, stored in engine.scan("log", b"", _END, reverse=True):
            last = decode(codec.unseal("log", key, stored), LogEntry)
            return last.sequence, last.items
        return 0, 0
    finally:
        engine.close()


def _digests_of(path: str) -> Iterator[tuple[str, tuple[int, str]]]:
    """(name, (bytes, digest)) of every file of a store that matters, read in full."""
    for name in sorted(os.listdir(path)):
        if _UNCHECKED.fullmatch(name):
            continue
        digest = hashlib.blake2b(digest_size=16)
        size = 0
        with open(os.path.join(path, name), "rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
                size += len(piece)
        yield name, (size, digest.hexdigest())


def _compare_with_earlier(path: str, files: dict[str, tuple[int, str]], earlier: list[BackupFile]) -> None:
    """A table that an earlier backup shares is the same file, and must be what it was then."""
    for known in earlier:
        for name, (size, digest) in known.files.items():
            there = os.path.join(known.backup.path, name)
            if name not in files or files[name] == (size, digest) or not os.path.exists(there):
                continue
            if os.path.samefile(there, os.path.join(path, name)):
                raise StoreCorrupt(
                    f"table {name} is not what it was when the backup {known.backup.path!r} was made: the "
                    "disk has damaged it, and no backup was made; run `warpmem verify` and `warpmem repair`"
                )


# ----------------------------------------------------------------------------------------- restoring


def restore_backup(path: str, target: str, *, link: bool) -> Backup:
    """Make `target`, which must not exist or be empty, a store with the content of a backup.

    link  share tables with the backup where the file system allows it, instead of copying them

    Every file is compared with the digest that the backup keeps. The store knows then of the backup and of
    the others of its store below the same root, later ones too. Raises InputError when `target` is taken or
    inside `path`, StoreCorrupt when a file is not what it was, FormatError when `path` is no backup,
    StoreLocked when somebody holds its lock, DiskFull, StoreError.
    """
    path, target = absolute(path), absolute(target)
    known = read_backup(path)

    def finish(whole: str) -> None:
        found = dict(_digests_of(whole))
        for name in sorted(found.keys() | known.files.keys()):
            if found.get(name) != known.files.get(name):
                raise StoreCorrupt(
                    f"the file {name} of the backup {path!r} is not what it was when the backup was made: it "
                    "is damaged, or the backup was written to; `warpmem repair` salvages what is whole"
                )
        note_copies(whole, copies_at(path))

    refuse_inside(path, target)
    check_threads()
    _remove_left_behind(os.path.dirname(path))
    with unchanging(path):
        copy_store(path, target, link=link, finish=finish)
    return msgspec.structs.replace(known.backup, path=target)
