"""What a store notes of its copies: erasure cannot reach into them, and its receipts must name them.

Copies are backups, the copy that a migration makes first, and for a store that was made of another one, by a
restore or a repair, what it was made of and the backups beside that. A note is durable before the first byte
of its copy is taken, so that none is ever without one. One whose copy came to nothing is taken back; where
that fails, a receipt names a copy too many, never one too few."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final

from ..errors import StoreError, StoreLocked
from ..protocols import Engine
from . import codec
from .copies import WHOLE, Attempt, part_of, remove_part, stands
from .rocks import RocksEngine
from .rocks_errors import call
from .rocks_open import list_families, open_database
from .transaction import StoreTransaction
from .values import BackupNote, decode, encode

_KEY: Final = b"backup"
_MEMTABLE_BYTES: Final = 1 << 20


def note_key() -> bytes:
    """A key for a new note."""
    return _KEY + os.urandom(16)


def noted_backups(engine: Engine) -> list[BackupNote]:
    """Every copy that was begun of a store, oldest first, those included that are gone or were moved."""
    return [note for _, note in _notes(engine)]


def remaining_copies(
    engine: Engine, run: Callable[[Callable[[StoreTransaction], None]], object]
) -> list[tuple[int, str]]:
    """(time, path) of every copy of a store that may be somewhere, oldest first. What a process that died has
    left of one is removed, and so is its note; where it cannot be removed, it is what is named. Of several
    paths that are the same now, through links, one is named: that without links, where it is noted. A path
    that the store itself has by now is not named: whoever removes what a receipt names is not to find it.

    run: executes a function of a transaction as one durable change
    """
    own = os.path.realpath(engine.path) if isinstance(engine, RocksEngine) else ""
    places = [
        (key, note.at, _place(note.path))
        for key, note in _notes(engine)
        if os.path.realpath(note.path) != own
    ]
    gone = [key for key, _, place in places if place is None]

    def take_back(transaction: StoreTransaction) -> None:
        for key in gone:
            transaction.keep(key, None)

    if gone:
        with contextlib.suppress(StoreError):  # they are gone even so, and named by none
            run(take_back)
    named: dict[str, tuple[int, str]] = {}
    for _, at, place in places:
        if place is not None:
            real = os.path.realpath(place)  # of now, not of when it was noted: links may lead elsewhere since
            if real not in named or place == real:
                named[real] = at, place
    return list(named.values())


def _place(path: str) -> str | None:
    """Where a copy is, or was; None when it was never finished and what there was of it is removed now."""
    part = part_of(path)
    # Whoever makes one locks it before there is anything in it: without a lock that process has died.
    if stands(path) or not os.path.lexists(os.path.join(part, WHOLE)):
        return path
    try:
        remove_part(part)
    except StoreLocked:
        return path
    except StoreError:
        return path if stands(path) else part  # it was finished meanwhile
    return None


def _notes(engine: Engine) -> list[tuple[bytes, BackupNote]]:
    notes = [
        (key, decode(codec.unseal("meta", key, stored), BackupNote))
        for key, stored in engine.scan("meta", *codec.prefix_range(_KEY))
    ]
    return sorted(notes, key=lambda found: found[1].at)


# ----------------------------------------------------------------------------- in stores that are closed


@contextlib.contextmanager
def noted(store: str, note: BackupNote) -> Iterator[Attempt]:
    """Note a copy in a store, then make it in the body, by the attempt that it is given; the note is taken
    back if that comes to nothing."""
    keys = note_copies(store, [note])
    attempt = Attempt(note.path)
    try:
        yield attempt
    except BaseException:
        if attempt.came_to_nothing():
            with contextlib.suppress(StoreError):
                _write(store, [(key, None) for key in keys])
        raise


def note_copies(store: str, notes: Sequence[BackupNote]) -> list[bytes]:
    """Note copies in a store, but for those with a path that is noted; the keys of the notes, which are
    durable then. Nobody may have the store open; its format may be an older one, and remains."""
    engine = RocksEngine(store, read_only=True)
    try:
        known = {note.path for note in noted_backups(engine)}
    finally:
        engine.close()
    made = [(note_key(), note) for note in notes if note.path not in known]
    if made:
        _write(store, [(key, codec.seal("meta", key, encode(note))) for key, note in made])
    return [key for key, _ in made]


def _write(store: str, operations: Collection[tuple[bytes, bytes | None]]) -> None:
    absent = set(codec.FAMILIES) - set(call(list_families, store))
    database = call(open_database, store, _MEMTABLE_BYTES, "write", "", absent)
    try:
        _put(database.get_column_family("meta"), operations)
        call(database.flush_wal, True)
    except BaseException as error:
        # What failed there holds the family, and so RocksDB's lock, for as long as the error is looked at.
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        database.close()


def _put(meta: Any, operations: Collection[tuple[bytes, bytes | None]]) -> None:
    for key, value in operations:
        if value is None:
            call(meta.delete, key)
        else:
            call(meta.put, key, value)
    call(meta.flush)
