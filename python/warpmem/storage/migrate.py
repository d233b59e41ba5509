"""Opening a store for writing, its format brought up to date first.

The steps, each durable before the next: a note of where the copy will be, as erasure cannot reach into it;
the copy of the whole store; the families that the newer format adds, empty; the identity with the new format.
A process that dies leaves a store of the old format, which may have new, empty families already; the next
open goes on from there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from ..errors import FormatError, StoreError
from ..records import StoreIdentity
from . import codec, directory
from .backup_notes import note_copies, noted
from .codec import FIRST_FAMILIES, KEYS_END
from .copies import copy_store
from .identity import FORMAT, identity_entry, read_identity
from .rocks import RocksEngine
from .values import BackupNote


def open_for_writing(
    path: str | os.PathLike[str], *, migrate: bool = True, backup: str | None = None, **options: Any
) -> RocksEngine:
    """A RocksEngine on a store of today's format, or on a new directory.

    migrate  False: a store of an older format is refused
    backup   where its copy goes first; None: beside it, `<path>.format-<number>`
    options  of RocksEngine

    Raises as RocksEngine does; FormatError when a store of an older format is not to be changed, or when the
    place of its copy is taken by something else.
    """
    store = os.path.abspath(path)
    engine = RocksEngine(store, upgrade=_keeping_a_copy(store, migrate, backup), **options)
    try:
        identity = read_identity(engine)
        if identity is None or identity.format == FORMAT:
            return engine
        if not migrate:
            raise _refused(store, identity)
        engine.write([identity_entry(msgspec.structs.replace(identity, format=FORMAT))])
    except BaseException:
        engine.close()
        raise
    # Opened anew, RocksDB's MANIFEST begins with all families and the table that holds the new identity:
    # whatever is cut off its end later, what is left cannot pass for a store of the old format.
    engine.close()
    return RocksEngine(store, **options)


def _keeping_a_copy(store: str, migrate: bool, backup: str | None) -> Callable[[Collection[str]], None]:
    def keep(found: Collection[str]) -> None:
        """Called while the store is locked and closed, before it gets its new families."""
        identity, last = _look(store)
        if not migrate:
            raise _refused(store, identity)
        if len(found) > len(FIRST_FAMILIES) + 1:
            return  # an earlier migration got as far as this, so it made its copy
        target = directory.absolute(backup or f"{store}.format-{identity.format}")
        directory.refuse_inside(store, target)
        note = BackupNote(time.time_ns() // 1000, target, codec.read_log_key(last[0]) if last else 0)
        if os.path.isdir(target) and os.listdir(target):
            try:
                same = _look(target) == (identity, last)
            except StoreError:
                same = False
            if same:
                note_copies(store, [note])
                return
            raise FormatError(
                f"the store in {store!r} has format {identity.format} and is copied to {target!r} before it "
                "is brought up to date, but something else is there: move it away, or name another place "
                "with migration_backup="
            )
        with noted(store, note) as attempt:
            copy_store(store, target, attempt=attempt)

    return keep


def _look(path: str) -> tuple[StoreIdentity, tuple[bytes, bytes] | None]:
    """What the store at `path` is, and the last entry of its log."""
    engine = RocksEngine(path, read_only=True)
    try:
        identity = read_identity(engine)
        if identity is None:  # read_identity raises for a store that lacks families
            raise FormatError(f"there is no store in {path!r}")
        return identity, next(iter(engine.scan("log", b"", KEYS_END, reverse=True)), None)
    finally:
        engine.close()


def _refused(store: str, identity: StoreIdentity) -> FormatError:
    return FormatError(
        f"the store in {store!r} has format {identity.format}, this warpmem writes format {FORMAT}: open it "
        "with migrate=True to bring it up to date after a copy, or with read_only=True to read it as it is"
    )
