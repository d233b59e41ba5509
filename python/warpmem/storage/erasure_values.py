"""What erasure leaves in the store: stubs and notices in the log, and the marks of erasures under way."""

from __future__ import annotations

from typing import Final

import msgspec

from ..ops.ids import KEY_BYTES, OWNER_BYTES, owner_prefix
from ..records import LogEntry

MARK_PREFIX: Final = b"erase"
ID_BYTES: Final = 16
_NOBODY: Final = (None, None, None, None)


class ErasureMark(msgspec.Struct, frozen=True, array_like=True):
    """Family meta: one part of an erasure that is not finished. `keys` are item keys one after the other,
    `versions` keys of family history. `removed`: every record of what was erased is gone, and with it what
    named it here. `late`: what is found to have no other source goes too. `emptied`: such versions, keys of
    family history, of which it is still to be seen whether they are their items' current ones."""

    at: int
    owners: tuple[int, ...]
    keys: bytes
    removed: bool
    versions: bytes = b""
    late: bool = False
    emptied: bytes = b""


def mark_key(erasure: bytes, part: int) -> bytes:
    """Family meta: `erase`, the erasure's 16 bytes, part; 25 bytes."""
    return MARK_PREFIX + erasure + part.to_bytes(4, "big")


def read_mark_key(key: bytes) -> bytes:
    """The erasure's 16 bytes of a mark's key."""
    return key[len(MARK_PREFIX) : len(MARK_PREFIX) + ID_BYTES]


def mark_part(key: bytes) -> int:
    """The part of a mark's key."""
    return int.from_bytes(key[len(MARK_PREFIX) + ID_BYTES :], "big")


def stub(entry: LogEntry) -> LogEntry:
    """What stands in the log in the place of an entry of something erased. It is no witness of when it was
    written."""
    return LogEntry(entry.sequence, entry.at, "erase", bytes(KEY_BYTES), 0, _NOBODY, entry.items, True)


def notice(sequence: int, at: int, owner: int, items: int, *, unsynced: bool = False) -> LogEntry:
    """The entry by which a change that erased something of an owner says so."""
    key = owner_prefix(owner) + bytes(KEY_BYTES - OWNER_BYTES)
    return LogEntry(sequence, at, "erase", key, 0, _NOBODY, items, unsynced)
