"""Reading RocksDB's log files (write-ahead logs and MANIFEST) around damage, record by record.

The format, after LevelDB's log_format.md and RocksDB's wiki "Write Ahead Log File Format":

    file   := blocks of 32 KiB, the last one shorter
    record := checksum (u32, masked CRC32C of type and content) length (u16) type (u8) content
    type   := 1 whole, 2 first, 3 middle, 4 last part of a record; 0 with length 0 is unused space
    batch  := sequence (u64) count (u32) entry*, the content of a write-ahead log's records
    entry  := kind (u8) [family number (varint)] key [value], each a varint length and bytes

A batch whose checksum holds is taken whole. From one that is damaged the values are taken that their own
checksums vouch for, and no deletions. But where sectors of it are all zeros, or the file ends in it, a loss
of power may have kept it from the disk, and then nobody was told that it is stored. A later change that is a
witness (records.LogEntry) tells that it was synced, and is damaged. Without one it is left out whole, like
the torn end that RocksDB leaves out itself: half a list is nothing that anybody added.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from ..errors import FormatError, StoreCorrupt
from ..records import LogEntry
from .codec import FAMILIES, KEYS_END, unseal
from .crc import crc32c
from .salvage_tables import DELETION, RANGE_DELETION, VALUE, Entry, _varint, family_of
from .values import decode

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
_SECTOR: Final = 512
_FEW: Final = 4  # zeros that may be there by chance


class LogPart(NamedTuple):
    """A part of a record, or of kind 0 what stands where none is whole. unwritten: whether a sector of that,
    or the rest of one, is all zeros, or the file ends in it."""

    kind: int
    content: bytes
    unwritten: bool = False


class LogRecord(NamedTuple):
    """One record, its parts joined. whole: every checksum held; else `content` is what there is of it, and
    `unwritten` as of its parts."""

    content: bytes
    whole: bool
    unwritten: bool = False


class LogReader:
    """The records of one log file. `damaged` counts the bytes that belong to no whole part of a record."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._end = len(data.rstrip(b"\0"))
        self.damaged = 0
        self.torn = False
        """Whether the file ends within a record, as after a crash. Damage to the last one looks like it."""

    def __iter__(self) -> Iterator[LogRecord]:
        parts: list[bytes] = []
        for kind, content, unwritten in self.parts():
            if parts and kind in (0, _WHOLE, _FIRST):
                yield LogRecord(b"".join(parts), False)
                parts = []
            if kind == 0:
                yield LogRecord(content, False, unwritten)
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

    def parts(self) -> Iterator[LogPart]:
        """Every part, one after the other, and what stands between them."""
        data, size = self._data, len(self._data)
        for block in range(0, size, BLOCK):
            at, stop = block, min(block + BLOCK, size)
            while at + HEADER <= stop:
                part = self._part(at, stop)
                if part is not None:
                    yield part
                    at += HEADER + len(part.content)
                    continue
                if not any(data[at:stop]):
                    # Space that was never written; in the middle of a file that is damage of its own.
                    if stop < self._end:
                        self.damaged += stop - at
                        yield LogPart(0, b"", True)
                    break
                following = self._following(at + 1, stop)
                unwritten = self._is_unwritten(at, following)
                if following == size and unwritten:
                    self.torn = True
                else:
                    self.damaged += following - at
                yield LogPart(0, data[at + HEADER : following], unwritten)
                at = following

    def _is_unwritten(self, begin: int, end: int) -> bool:
        """Whether a sector of what stands at `begin` is all zeros, or the file ends before it does."""
        at = begin
        while at < end:
            border = min(at - at % _SECTOR + _SECTOR, end)
            whole = border % _SECTOR == 0 or border == len(self._data)
            if whole and border - at >= _FEW and not any(self._data[at:border]):
                return True
            at = border
        length = int.from_bytes(self._data[begin + 4 : begin + 6], "little")
        return begin + HEADER + length > len(self._data)

    def _part(self, at: int, stop: int) -> LogPart | None:
        """The part at `at`, or None where there is none that is whole."""
        data = self._data
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        end = at + HEADER + length
        if end > stop or not (_WHOLE <= kind <= _LAST or kind in _EXTRA):
            return None
        masked = int.from_bytes(data[at : at + 4], "little")
        if _masked(crc32c(memoryview(data)[at + 6 : end])) != masked:
            return None
        return LogPart(kind, data[at + HEADER : end])

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
    records: Iterator[LogRecord], names: dict[int, str], *, witnessed: bool = True
) -> Iterator[Entry]:
    """The entries of a write-ahead log's records. `names`: numbers of families, as far as they are known;
    those of values found here are added. witnessed: whether a change in a later log is a witness."""
    damaged: list[LogRecord] = []  # since the last whole one
    doubtful: list[LogRecord] = []  # that only a witness lets in
    for record in records:
        if not record.whole:
            damaged.append(record)
            continue
        if any(one.unwritten for one in damaged):
            doubtful += damaged
        else:
            yield from _read_all(damaged, names)
        damaged = []
        entries = list(_read_batch(record, names))
        if doubtful and any(map(_is_witness, entries)):
            yield from _read_all(doubtful, names)
            doubtful = []
        yield from entries
    if witnessed or not any(one.unwritten for one in damaged):
        yield from _read_all(damaged, names)
    if witnessed:
        yield from _read_all(doubtful, names)


def has_witness(data: bytes, names: dict[int, str]) -> bool:
    """Whether a whole change in a log tells that all before it was synced."""
    return any(
        record.whole and any(map(_is_witness, _read_batch(record, names))) for record in LogReader(data)
    )


def _is_witness(entry: Entry) -> bool:
    if entry.family != "log" or entry.value is None:
        return False
    try:
        return not decode(unseal("log", entry.key, entry.value), LogEntry).unsynced
    except (StoreCorrupt, FormatError):
        return False


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
