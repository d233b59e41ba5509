"""Reading the tables of RocksDB without trusting them: every entry that is whole, whatever lies around it.

RocksDB gives up a table whose footer or index is damaged, and all of a block in which one bit is. Here the
data blocks are read one after the other from the start of the file, without index, footer or checksums: what
tells a whole value from anything else is the checksum in its own frame, which covers family and key too.

The format of a data block, after LevelDB's table_format.md and RocksDB's wiki "BlockBasedTable Format":

    entry := shared (varint) unshared (varint) value_length (varint) key_suffix value
    block := entry* restart (u32)* count (u32), all little-endian; every 16th entry shares nothing
    key   := user key, u64 little-endian: sequence << 8 | type (1 value, 0 and 7 deletion, 15 of a range)

Stored as it is, or as its length (varint) and LZ4, and then 5 bytes of type and checksum. Deletions of ranges
stand in a block of their own, as it is, and share nothing. A store deletes no range but a whole family.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from .codec import FAMILIES, FRAME_BYTES, KEYS_END
from .crc import crc32c

VALUE, DELETION, SINGLE_DELETION, RANGE_DELETION = 1, 0, 7, 15
_TRAILER: Final = 5
_ORDER: Final = 8
_MAX_BLOCK: Final = 64 << 20
_RESTART_EVERY: Final = 16
_FIRST_ENTRY: Final = re.compile(rb"\x00[\x09-\x7f]")
# In a table's properties: rocksdb.column.family.name, of which a part may be shared with the name before it.
_FAMILY_NAME: Final = re.compile(
    b"|".join(bytes([len(name)]) + b"[a-z.]{0,22}name(" + name.encode("ascii") + b")" for name in FAMILIES)
)
_CLEARED: Final = re.compile(
    b"".join((b"\x00\x08", bytes([len(KEYS_END)]), bytes([RANGE_DELETION]), b"(.{7})", KEYS_END)), re.DOTALL
)
_STARTS: Final = {family: crc32c(family.encode("ascii") + b"\0") for family in FAMILIES}


class Entry(NamedTuple):
    """One version of one key. order: RocksDB's sequence << 8 | type, larger is newer. value: sealed, its
    checksum holds; None for a deletion. KEYS_END deleted means all the family had."""

    family: str
    key: bytes
    order: int
    value: bytes | None


def family_of(key: bytes, value: bytes, likely: str) -> str | None:
    """The family in which `value` is whole under `key`, by its checksum; `likely` is tried first."""
    if len(value) < FRAME_BYTES:
        return None
    stored, body = int.from_bytes(value[-4:], "little"), memoryview(value)[:-4]
    for family in (likely, *FAMILIES):
        if crc32c(body, crc32c(key, _STARTS[family])) == stored:
            return family
    return None


class TableReader:
    """Reads one table. `unreadable` counts the bytes between blocks of which nothing could be made."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        named = _FAMILY_NAME.search(data)
        self._family = FAMILIES[0] if named is None else named[named.lastindex or 0].decode("ascii")
        self._certain = named is not None
        self.entries = 0
        self.unreadable = 0

    def __iter__(self) -> Iterator[Entry]:
        if self._certain:
            for cleared in _CLEARED.finditer(self._data):
                order = int.from_bytes(cleared[1], "little") << 8 | RANGE_DELETION
                yield Entry(self._family, KEYS_END, order, None)
        at, end = 0, len(self._data)
        while at < end:
            found, at_next = self._block(at)
            if found:
                yield from found
            elif at_next > at:  # a block of nothing whole
                self.unreadable += at_next - at
            else:
                at_next = self._next_start(at + 1)
                self.unreadable += min(at_next, end) - at
            at = at_next

    def _next_start(self, at: int) -> int:
        """Where the next block, or a run of entries inside a stored one, might begin."""
        match = _FIRST_ENTRY.search(self._data, at)
        if match is None:
            return len(self._data)
        # The first entry of a compressed block follows its length, of up to five bytes, and an LZ4 token.
        return max(at, match.start() - 8)

    def _block(self, at: int) -> tuple[list[Entry], int]:
        """The whole entries of the block at `at`, and where the next may be; the same place for no block."""
        size, begin = _varint(self._data, at, at + _TRAILER)
        if 0 < size <= _MAX_BLOCK and begin < len(self._data):
            content, end = decompress(self._data, begin, size)
            if content[:1] == b"\0" and len(content) > _ORDER:
                found = self._parse(content, complete=end > 0)
                if found:
                    return found, (end + _TRAILER if end else begin + 1)
        if self._data[at] == 0:
            return self._stored(at)
        return [], at

    def _parse(self, content: bytes, complete: bool) -> list[Entry]:
        """The whole entries of a block's content, from every place where a key stands in full."""
        starts, stop = [0], len(content)
        if complete:
            count = int.from_bytes(content[-4:], "little")
            restarts = len(content) - 4 * (count + 1)
            if count > 0 and restarts > 0:
                listed = [
                    int.from_bytes(content[place : place + 4], "little")
                    for place in range(restarts, len(content) - 4, 4)
                ]
                if listed == sorted(set(listed)) and listed[0] == 0 and listed[-1] < restarts:
                    starts, stop = listed, restarts
        found: list[Entry] = []
        sound = complete and stop < len(content)
        for begin, until in zip(starts, [*starts[1:], stop], strict=True):
            at, key = begin, b""
            while at < until:
                step = _entry(content, at, until, key)
                if step is None:
                    sound = False
                    break
                key, value, at = step
                sound &= self._take(key, value, found)
        if not sound or not self._certain:
            # A deletion has no checksum: it is believed only where everything around it is whole.
            found = [entry for entry in found if entry.value is not None]
        self.entries += len(found)
        return found

    def _stored(self, at: int) -> tuple[list[Entry], int]:
        """A block that is not compressed: its entries end where a key would be too short to be one."""
        found: list[Entry] = []
        begin, key, number, sound = at, b"", 0, True
        while (step := _entry(self._data, at, len(self._data), key)) is not None:
            key, value, following = step
            whole = self._take(key, value, found)
            if not whole and number == 0:
                return [], begin
            sound &= whole
            at, number = following, number + 1
        count = (number + _RESTART_EVERY - 1) // _RESTART_EVERY
        end = at + 4 * count + 4
        if number and int.from_bytes(self._data[end - 4 : end], "little") == count:
            at = end + _TRAILER
        else:
            sound = False
        if not sound or not self._certain:
            found = [entry for entry in found if entry.value is not None]
        self.entries += len(found)
        return found, at if found else begin

    def _take(self, key: bytes, value: bytes, found: list[Entry]) -> bool:
        user, order = key[:-_ORDER], int.from_bytes(key[-_ORDER:], "little")
        kind = order & 0xFF
        if kind in (DELETION, SINGLE_DELETION) and not value:
            found.append(Entry(self._family, user, order, None))
            return True
        family = family_of(user, value, self._family) if kind == VALUE else None
        if family is None:
            return False
        if family != self._family:
            # One table holds one family: deletions before its first value are of that one too.
            found[:] = [entry._replace(family=family) if entry.value is None else entry for entry in found]
            self._family = family
        self._certain = True
        found.append(Entry(family, user, order, value))
        return True


def _entry(data: bytes, at: int, stop: int, before: bytes) -> tuple[bytes, bytes, int] | None:
    """(key, value, where the next entry begins), or None where no entry can be."""
    shared, at = _varint(data, at, stop)
    unshared, at = _varint(data, at, stop)
    length, at = _varint(data, at, stop)
    if shared < 0 or unshared < 0 or length < 0 or not shared <= len(before):
        return None
    if shared + unshared <= _ORDER or at + unshared + length > stop:
        return None
    middle = at + unshared
    return before[:shared] + data[at:middle], data[middle : middle + length], middle + length


def _varint(data: bytes, at: int, stop: int) -> tuple[int, int]:
    """(number, where it ends); -1 for none."""
    value = shift = 0
    stop = min(stop, len(data))
    while at < stop and shift < 35:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return -1, at


def decompress(data: bytes, at: int, size: int) -> tuple[bytes, int]:
    """(content, where it ends) of LZ4 (block format) that decompresses to `size` bytes.

    Where it is damaged: what came before the damage, and 0. Source: LZ4's lz4_Block_format.md.
    """
    out = bytearray()
    try:
        while True:
            token = data[at]
            at += 1
            length = token >> 4
            if length == 15:
                length, at = _length(data, at, length)
            if at + length > len(data):
                break
            out += data[at : at + length]
            at += length
            if len(out) >= size:
                return (bytes(out), at) if len(out) == size else (bytes(out[:size]), 0)
            offset = data[at] | data[at + 1] << 8
            at += 2
            length = token & 15
            if length == 15:
                length, at = _length(data, at, length)
            length += 4
            start = len(out) - offset
            if offset == 0 or start < 0 or len(out) + length > size:
                break
            if offset >= length:
                out += out[start : start + length]
            else:
                out += (out[start:] * (length // offset + 1))[:length]
    except IndexError:
        pass
    return bytes(out), 0


def _length(data: bytes, at: int, length: int) -> tuple[int, int]:
    while (more := data[at]) == 255:
        length += 255
        at += 1
    return length + more, at + 1
