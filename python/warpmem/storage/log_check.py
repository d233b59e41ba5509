"""A look at RocksDB's log files before RocksDB reads them, for the damage that it would not tell of.

A record's header is its checksum, its length and its kind (salvage_logs.py). Two of them RocksDB believes
before it compares the checksum. Kinds 5 to 8, 11 and 131 are of files that had been used for something else
before, which no file of a store is: where the first record has one, RocksDB takes the file for the remains of
that and leaves all of it out; at a later one it reads the same bytes for ever. And where the length reaches
beyond the end of the file, the process that wrote it seems to have died, and RocksDB leaves out this record
and all that follow. A length and kind of zero it takes for space that was never used, and leaves out the rest
of the block. After a power loss that is right: what was not synced may be missing from within one sector to
its end, and later sectors may be there. Zeros that end sooner, or begin with a sector, are damage.
"""

from __future__ import annotations

import os
import re
from typing import IO, Final

from ..errors import StoreCorrupt
from .salvage_logs import BLOCK, HEADER, LogReader

_LOG: Final = re.compile(r"\d+\.log|MANIFEST-\d+")
_REUSED: Final = frozenset((5, 6, 7, 8, 11, 131))
_PIECE: Final = 64 * BLOCK
_SECTOR: Final = 512
_UNUSED: Final = "was never written, and others follow"


def check_logs(path: str) -> None:
    """Walk from header to header through every write-ahead log and MANIFEST of a directory. Raises
    StoreCorrupt."""
    for name in sorted(os.listdir(path)):
        if not _LOG.fullmatch(name):
            continue
        try:
            with open(os.path.join(path, name), "rb") as file:
                wrong = _wrong_in(file)
        except FileNotFoundError:  # the process that writes has done with it
            continue
        if wrong is not None:
            at, what = wrong
            raise StoreCorrupt(
                f"{name} is damaged: the record at byte {at} {what}; restore the directory from a backup, or "
                "salvage it with `warpmem repair`"
            )


def _wrong_in(file: IO[bytes]) -> tuple[int, str] | None:
    """(where a record begins, what is wrong with it), of the first in a file."""
    begin, unused = 0, -1
    while piece := file.read(_PIECE):
        for start in range(0, len(piece), BLOCK):
            block = piece[start : start + BLOCK]
            if unused >= 0:
                if block.strip(b"\0"):
                    return unused, _UNUSED
                continue
            found = _wrong(block)
            if found is None:
                continue
            at, what = found
            if what != _UNUSED:
                return begin + start + at, what
            if block[at : at - at % _SECTOR + _SECTOR].strip(b"\0"):
                return begin + start + at, what
            if at % _SECTOR == 0:
                unused = begin + start + at
                if block[at:].strip(b"\0"):
                    return unused, what
        if len(piece) < _PIECE:
            break  # what a writer appends meanwhile would not begin where a block does
        begin += len(piece)
    return None


def _wrong(block: bytes) -> tuple[int, str] | None:
    """The same of one block. What comes behind damage of another sort is not looked at: RocksDB stops there,
    and says so."""
    at = 0
    while at + HEADER <= len(block):
        kind, length = block[at + 6], block[at + 4] | block[at + 5] << 8
        if kind in _REUSED:
            return at, "is of a kind that is never written"
        if kind == 0 and length == 0:
            return at, _UNUSED
        if at + HEADER + length > len(block):
            follows = any(part.kind for part in LogReader(block[at + 1 :]).parts())
            return (at, "ends beyond the next one") if follows else None
        at += HEADER + length
    return None
