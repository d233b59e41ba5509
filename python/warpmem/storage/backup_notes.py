"""What a store notes of each backup: erasure cannot reach into them, and its receipts must name them.

A note is durable before the first byte of its backup is taken, so that no backup is ever without one. One
whose backup came to nothing is taken back; where that fails, a receipt names a backup too many, never one
too few."""

from __future__ import annotations

import os
from typing import Final

from ..protocols import Engine
from . import codec
from .values import BackupNote, decode, encode

_KEY: Final = b"backup"


def note_key() -> bytes:
    """A key for a new note."""
    return _KEY + os.urandom(16)


def note_entry(note: BackupNote) -> tuple[str, bytes, bytes]:
    """What Engine.write takes to store a note under a key of its own."""
    key = note_key()
    return "meta", key, codec.seal("meta", key, encode(note))


def noted_backups(engine: Engine) -> list[BackupNote]:
    """Every backup that was begun of a store, oldest first, those included that are gone or were moved."""
    notes = [
        decode(codec.unseal("meta", key, stored), BackupNote)
        for key, stored in engine.scan("meta", *codec.prefix_range(_KEY))
    ]
    return sorted(notes, key=lambda note: note.at)
