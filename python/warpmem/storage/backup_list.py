"""What the backups below a root say of themselves, in their files `warpmem.backup`."""

from __future__ import annotations

import os
import time
from typing import Final

import msgspec

from ..errors import FormatError, StoreCorrupt, StoreError
from ..ops.clock import to_micros
from ..records import Backup
from .directory import BACKUP_NAME, absolute, is_backup
from .values import BackupNote

VERSION: Final = 1


class BackupFile(msgspec.Struct, frozen=True):
    """What stands in a backup's file `warpmem.backup`, as JSON. files: name -> [bytes, BLAKE2b-128 in hex].
    store: digest of the store's salt, the same in all backups of one store."""

    version: int
    store: str
    backup: Backup
    files: dict[str, tuple[int, str]]


def list_backups(root: str) -> tuple[Backup, ...]:
    """The backups below a root, oldest first. Directories without a whole `warpmem.backup` are not among
    them; a missing root is empty. Raises InputError for what no path can be, StoreError when the root cannot
    be read, StoreCorrupt or FormatError for a backup whose `warpmem.backup` is damaged or of a newer format.
    """
    return tuple(known.backup for known in read_root(absolute(root)))


def read_root(root: str, *, whole_only: bool = False) -> list[BackupFile]:
    """What the backups below a root say of themselves, oldest first. whole_only: pass over those that cannot
    be read, instead of raising StoreCorrupt or FormatError."""
    found = []
    for name in _names(root):
        try:
            found.append(read_backup(os.path.join(root, name)))
        except (StoreCorrupt, FormatError):
            if not whole_only:
                raise
    return sorted(found, key=lambda known: known.backup.at)


def read_backup(path: str) -> BackupFile:
    """What a backup says of itself, its path as it is now. Raises FormatError, StoreCorrupt."""
    try:
        with open(os.path.join(path, BACKUP_NAME), "rb") as file:
            content = file.read()
    except OSError as error:
        raise FormatError(
            f"there is no backup at {path!r} ({error.strerror}): name one directory of a root"
        ) from error
    try:
        version = msgspec.json.decode(content, type=_Versioned).version
        if version > VERSION:
            raise FormatError(
                f"the backup {path!r} has format {version}, this warpmem reads up to {VERSION}; "
                "upgrade the package"
            )
        known = msgspec.json.decode(content, type=BackupFile)
    except msgspec.MsgspecError as error:
        raise StoreCorrupt(f"{BACKUP_NAME} in {path!r} is damaged: {error}") from error
    return msgspec.structs.replace(known, backup=msgspec.structs.replace(known.backup, path=path))


class _Versioned(msgspec.Struct):
    version: int


def copies_at(path: str) -> list[BackupNote]:
    """Notes for a store that is made of the one at `path`: of that, which stays, and where it is a backup, of
    the others of its store below the same root. What cannot be read there may be one. Raises StoreError when
    the root cannot be listed."""
    path = os.path.abspath(path)
    if not is_backup(path):
        return [_unknown(path)]
    root, name = os.path.split(path)
    store = _of(path)[1]
    found = [_of(os.path.join(root, other)) for other in {name, *_names(root)}]
    return [note for note, whose in found if None in (store, whose) or whose == store]


def _of(path: str) -> tuple[BackupNote, str | None]:
    """A note of the backup at a path, and the digest of its store; None when it cannot be read."""
    try:
        known = read_backup(path)
    except (StoreCorrupt, FormatError):
        return _unknown(path), None
    return BackupNote(to_micros(known.backup.at, "at"), path, known.backup.sequence), known.store


def _unknown(path: str) -> BackupNote:
    return BackupNote(time.time_ns() // 1000, path, 0)


def _names(root: str) -> list[str]:
    """Of the directories below a root that have a file `warpmem.backup`."""
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"cannot list {root!r}: {error.strerror}") from error
    return [name for name in names if not name.startswith(".") and is_backup(os.path.join(root, name))]
