"""Reading RocksDB's log files (write-ahead logs and MANIFEST) around damage, record by record.

The format, after LevelDB's log_format.md and RocksDB's wiki "Write Ahead Log File Format":

    file   := blocks of 32 KiB, the last one shorter
    record := checksum (u32, masked CRC32C of type and content) length (u16) type (u8) content
    type   := 1 whole, 2 first, 3 middle, 4 last part of a record; 0 with length 0 is unused space
    batch  := sequence (u64) count (u32) entry*, the content of a write-ahead log's records
    entry  := kind (u8) [family number (varint)] key [value], each a varint length and bytes

A batch whose checksum holds is taken whole. From one that is damaged the values are taken that their own
checksums vouch for, and no deletions. But when it is the last of all logs, and zeros stand where its bytes
should be or the file ends in it, then it never reached the disk and nobody was told that it is stored: a loss
of power looks so. Such a batch is left out whole, like the torn end that RocksDB leaves out itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from .codec import FAMILIES, KEYS_END
from .crc import crc32c
from .salvage_tables import DELETION, RANGE_DELETION, VALUE, Entry, _varint, family_of

BLOCK: Final = 32 << 10
HEADER: Final = 7
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_EXTRA: Final = frozenset((9, 10, 11, 130, 131))  # records about the file itself, not about the data
_BATCH_HEADER: Final = 12
_MASK: Final = 0xA282EAD8
_PUTS: Final = {1: False, 5: True}  # kind: whether a family number follows
_DELETIONS: Final = {0: False, 7: False, 4: True, 8: True}
_RANGES: Final = {15: False, 14: True}
_NOTHING: Final = 13
_REMARK: Final = 3
_ZEROS: Final = bytes(64)


class LogRecord(NamedTuple):
    """One record, its parts joined. whole: every checksum held; else `content` is what there is of it, and
    `unwritten` whether zeros stand in it or the file ends in it."""

    content: bytes
    whole: bool
    unwritten: bool = False


class LogReader:
    """The records of one log file. `damaged` counts the bytes that belong to no whole part of a record."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.damaged = 0
        self.torn = False
        """Whether the file ends within a record, as after a crash. Damage to the last one looks like it."""

    def __iter__(self) -> Iterator[LogRecord]:
        parts: list[bytes] = []
        for kind, content, whole in self.parts():
            if not whole or kind in (_WHOLE, _FIRST):
                if parts:
                    yield LogRecord(b"".join(parts), False)
                parts = []
            if not whole:
                yield LogRecord(content, False, self.torn or _ZEROS in content)
            elif kind == _WHOLE:
                yield LogRecord(content, True)
            elif kind == _FIRST:
                parts = [content]
            elif parts:
                parts.append(content)
                if kind == _LAST:
                    yield LogRecord(b"".join(parts), True)
                    parts = []
            else:  # its beginning is lost, and with it the places of its entries
                self.damaged += HEADER + len(content)
        if parts:
            self.torn = True
            yield LogRecord(b"".join(parts), False, True)

    def parts(self) -> Iterator[tuple[int, bytes, bool]]:
        """(type, content, whether it is whole) of every part, one after the other."""
        data, size = self._data, len(self._data)
        for block in range(0, size, BLOCK):
            at, stop = block, min(block + BLOCK, size)
            while at + HEADER <= stop:
                part = self._part(at, stop)
                if part is not None:
                    yield (*part, True)
                    at += HEADER + len(part[1])
                    continue
                if not any(data[at:stop]):
                    # Space that was never written; in the middle of a file that is damage of its own.
                    if stop < size and any(data[stop:]):
                        self.damaged += stop - at
                    break
                following = self._following(at + 1, stop)
                if following == size:
                    self.torn = True
                else:
                    self.damaged += following - at
                yield 0, data[at + HEADER : following], False
                at = following

    def _part(self, at: int, stop: int) -> tuple[int, bytes] | None:
        """(type, content) of the part at `at`, or None where there is none that is whole."""
        data = self._data
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        end = at + HEADER + length
        if end > stop or not (_WHOLE <= kind <= _LAST or kind in _EXTRA):
            return None
        masked = int.from_bytes(data[at : at + 4], "little")
        if _masked(crc32c(memoryview(data)[at + 6 : end])) != masked:
            return None
        return kind, data[at + HEADER : end]

    def _following(self, at: int, stop: int) -> int:
        """Where the next whole part of this block begins, or the block's end."""
        while at + HEADER <= stop:
            if self._data[at + 6] <= _LAST and self._part(at, stop) is not None:
                return at
            at += 1
        return stop


def _masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def read_batches(
    records: Iterator[LogRecord], names: dict[int, str], *, last: bool = False
) -> Iterator[Entry]:
    """The entries of a write-ahead log's records. `names`: numbers of families, as far as they are known;
    those of values found here are added. last: no other log was begun after this one."""
    damaged: list[LogRecord] = []
    for record in records:
        if not record.whole:
            damaged.append(record)
            continue
        yield from _read_all(damaged, names)
        damaged = []
        yield from _read_batch(record, names)
    if not (last and any(record.unwritten for record in damaged)):
        yield from _read_all(damaged, names)


def ends_in_damage(data: bytes, names: dict[int, str], *, last: bool) -> bool:
    """Whether bytes that belong to no whole record stand behind the last whole one that tells of a change. Of
    a file that is damaged elsewhere a torn end may be damage as well as a crash's, unless another log was
    begun after it: it is not the `last`."""
    reader, before = LogReader(data), 0
    for record in reader:
        if record.whole and any(entry.family == "log" for entry in _read_batch(record, names)):
            before = reader.damaged
    return reader.damaged > before or (last and reader.torn)


def _read_all(records: list[LogRecord], names: dict[int, str]) -> Iterator[Entry]:
    for record in records:
        yield from _read_batch(record, names)


def _read_batch(record: LogRecord, names: dict[int, str]) -> Iterator[Entry]:
    data, size = record.content, len(record.content)
    sequence, at = int.from_bytes(data[:8], "little"), _BATCH_HEADER
    while at < size:
        kind = data[at]
        at += 1
        if kind == _NOTHING:
            continue
        number = 0
        if _PUTS.get(kind) or _DELETIONS.get(kind) or _RANGES.get(kind):
            number, at = _varint(data, at, size)
        key, at = _bytes(data, at)
        if kind == _REMARK and key is not None:
            continue
        if kind in _DELETIONS and key is not None:
            name = names.get(number)
            if record.whole and name is not None:
                yield Entry(name, key, sequence << 8 | DELETION, None)
        elif kind in _RANGES and key is not None:
            until, at = _bytes(data, at)
            name = names.get(number)
            if record.whole and name is not None and (key, until) == (b"", KEYS_END):
                yield Entry(name, KEYS_END, sequence << 8 | RANGE_DELETION, None)
        elif kind in _PUTS and key is not None:
            value, at = _bytes(data, at)
            if value is None:
                return
            family = family_of(key, value, names.get(number, FAMILIES[0]))
            if family is not None:
                names.setdefault(number, family)
                yield Entry(family, key, sequence << 8 | VALUE, value)
        else:
            return  # nothing after it can be placed
        sequence += 1


def _bytes(data: bytes, at: int) -> tuple[bytes | None, int]:
    length, at = _varint(data, at, len(data))
    if length < 0 or at + length > len(data):
        return None, at
    return data[at : at + length], at + length
