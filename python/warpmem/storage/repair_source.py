"""Everything whole that a damaged store holds, sorted so that it can be read item by item and entry by entry.

Entries come out of tables and logs in no useful order, the same key many times. They are sorted by an engine
in a directory for scratch; of one key the newest comes first.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

import numpy as np

from ..errors import StoreCorrupt
from ..ops.ids import KEY_BYTES
from ..records import SPACES, LogEntry, RowHeader
from . import codec
from .repair_items import Evidence
from .rocks import RocksEngine
from .salvage_tables import Entry
from .spaces import is_space_key
from .values import HistoryValue, ItemValue, WorkValue, decode, encode, is_text_row, row_space

_BATCH: Final = 1000
_FAMILY: Final = "items"  # of the scratch engine: one is enough
_ORDER: Final = 8
_TOP: Final = (1 << 64) - 1
_ITEM, _OTHER, _LOG, _NOTE = b"I", b"O", b"L", b"N"
_WAITING: Final = b"q"
_TAGS: Final = {
    "items": b"i",
    "history": b"h",
    **dict(zip(codec.VECTOR_FAMILIES, (b"v", b"w"), strict=True)),
}


class Source:
    """The sorted entries. `notes` are sorted keys for whatever else a repair must group."""

    def __init__(self, scratch: str) -> None:
        self._engine = RocksEngine(scratch, min_free_bytes=0)
        self._waiting: list[tuple[str, bytes, bytes | None]] = []
        self._cleared: dict[str, int] = {}  # by family, how new the values are that were not cleared away

    def close(self) -> None:
        self._engine.close()

    def load(self, entries: Iterable[Entry]) -> None:
        """Take in the entries of a store, then sort its log by item."""
        cleared: list[tuple[str, int]] = []
        newest = 0
        for family, key, order, value in entries:
            if key == codec.KEYS_END:
                cleared.append((family, order))
                continue
            if value is not None:
                newest = max(newest, order)
            if family in _TAGS and len(key) >= KEY_BYTES:
                place = _ITEM + key[:KEY_BYTES] + _TAGS[family] + key[KEY_BYTES:]
            elif family == "jobs" and key[:1] == codec.WORK and len(key) == codec.WORK_KEY_BYTES:
                place = _ITEM + key[2 : 2 + KEY_BYTES] + _WAITING + key[1:2] + key[2 + KEY_BYTES :]
            elif family == "log":
                place = _LOG + key
            else:
                place = _OTHER + bytes([codec.FAMILIES.index(family)]) + key
            # What damage made of a number that cannot be is no witness of what came last.
            age = _TOP - order if order <= _TOP else _TOP
            self._put(place + age.to_bytes(_ORDER, "big"), value or b"")
        for family, order in cleared:
            if order < newest:  # else damage made that number: what clears a family is followed by a value
                self._cleared[family] = max(order, self._cleared.get(family, 0))
        for entry in self.log():
            if entry.operation != "erase":
                self._put(_ITEM + entry.key + b"l" + codec.log_key(entry.sequence), encode(entry))
        self._flush()

    def note(self, kind: bytes, key: bytes, value: bytes = b"") -> None:
        """Keep a key of a kind (one byte), to be read in order later on."""
        self._put(_NOTE + kind + key, value)

    def notes(self, kind: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The noted keys of a kind, ascending, each once."""
        self._flush()
        start, stop = codec.prefix_range(_NOTE + kind)
        for key, value in self._engine.scan(_FAMILY, start, stop):
            yield key[2:], value

    def log(self) -> Iterator[LogEntry]:
        """The newest whole entry of each sequence number, ascending."""
        for key, stored in self._newest(_LOG):
            if not stored:
                continue
            try:
                entry = decode(codec.unseal("log", key, stored), LogEntry)
            except StoreCorrupt:
                continue
            if codec.log_key(entry.sequence) == key:
                yield entry

    def others(self, family: str) -> Iterator[tuple[bytes, bytes]]:
        """The newest whole value of each key of a family that is not sorted by item; deleted ones are not
        among them."""
        prefix = _OTHER + bytes([codec.FAMILIES.index(family)])
        for key, stored in self._newest(prefix):
            if stored:
                yield key, stored

    def spaces(self) -> list[int]:
        """Numbers of the spaces that the store knows beside that of the texts."""
        return [key[-1] for key, _ in self.others("meta") if is_space_key(key)]

    def newest_item(self) -> ItemValue | None:
        """The item of the text space that was recorded last; None when there is none."""
        newest: ItemValue | None = None
        others = {SPACES[number] for number in self.spaces()}
        for found in self.items("vectors", 0, lambda what: None):
            for item in found.items:
                if found.space or item.modality in others:
                    continue
                if newest is None or item.recorded_at > newest.recorded_at:
                    newest = item
        return newest

    def dimensions(self, family: str) -> Counter[int]:
        """How many vectors of texts of each length a family has, older ones included."""
        self._flush()
        found: Counter[int] = Counter()
        tag = _TAGS[family]
        start, stop = codec.prefix_range(_ITEM)
        for key, stored in self._engine.scan(_FAMILY, start, stop):
            if stored and key[1 + KEY_BYTES : 2 + KEY_BYTES] == tag and not self._is_cleared(family, key):
                name = key[1 : 1 + KEY_BYTES] + key[2 + KEY_BYTES : -_ORDER]
                with contextlib.suppress(StoreCorrupt):
                    payload = codec.unseal(family, name, stored)
                    if is_text_row(payload):
                        found[row_dimension(payload)] += 1
        return found

    def _newest(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        self._flush()
        last = None
        start, stop = codec.prefix_range(prefix)
        for key, stored in self._engine.scan(_FAMILY, start, stop):
            user = key[len(prefix) : -_ORDER]
            if user != last:
                last = user
                yield user, stored

    def items(self, vectors: str, dimension: int, skipped: Callable[[str], None]) -> Iterator[Evidence]:
        """What was found of each item, by item key ascending. vectors: the family that is in use. skipped:
        called with what does not decode."""
        self._flush()
        found: Evidence | None = None
        start, stop = codec.prefix_range(_ITEM)
        for key, stored in self._engine.scan(_FAMILY, start, stop):
            item = key[1 : 1 + KEY_BYTES]
            if found is None or found.key != item:
                if found is not None:
                    yield found
                found = Evidence(item, dimension=dimension)
            tag, rest = key[1 + KEY_BYTES : 2 + KEY_BYTES], key[2 + KEY_BYTES :]
            try:
                if tag in (b"i", b"h", b"l"):
                    _add(found, tag, rest, stored)
                elif tag == _TAGS[vectors] and not self._is_cleared(vectors, key):
                    _add_vector(found, vectors, rest, stored, dimension)
                elif tag == _WAITING and rest[:1] == codec.WORK_KINDS["embed"]:
                    _add_waiting(found, rest[1:], stored)
                elif tag == _WAITING and rest[:1] == codec.WORK_KINDS["extract"]:
                    _add_unread(found, rest[1:], stored)
            except StoreCorrupt as error:
                skipped(str(error))
        if found is not None:
            yield found

    def _is_cleared(self, family: str, key: bytes) -> bool:
        """Whether a sorted value was in its family before that was emptied: it is of another model."""
        return _TOP - int.from_bytes(key[-_ORDER:], "big") < self._cleared.get(family, 0)

    def _put(self, key: bytes, value: bytes) -> None:
        self._waiting.append((_FAMILY, key, value))
        if len(self._waiting) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._engine.write(self._waiting)
            self._waiting = []


def _add(found: Evidence, tag: bytes, rest: bytes, stored: bytes) -> None:
    """Take one entry of an item into what was found of it. Raises StoreCorrupt when it does not decode."""
    if tag == b"l":
        found.log.append(decode(stored, LogEntry))
    elif tag == b"i":
        # What was written before a deletion is gone for good: it may have been erased.
        if stored and not found.removed:
            found.items.append(decode(codec.unseal("items", found.key, stored), ItemValue))
        found.removed |= not stored and not found.items
    elif _is_newest(found, tag, rest, stored, found.versions):
        version = int.from_bytes(rest[:4], "big")
        payload = codec.unseal("history", codec.history_key(found.key, version), stored)
        found.versions[version] = decode(payload, HistoryValue)


def _add_vector(found: Evidence, family: str, rest: bytes, stored: bytes, dimension: int) -> None:
    if _is_newest(found, b"v", rest, stored, found.vectors):
        version = int.from_bytes(rest[:4], "big")
        payload = codec.unseal(family, codec.vector_key(found.key, version), stored)
        space, size = row_space(payload), row_dimension(payload)
        if space or size == dimension:
            found.space = space
            found.vectors[version] = np.frombuffer(payload, "<f4", size, len(payload) - 4 * size)


def _add_waiting(found: Evidence, rest: bytes, stored: bytes) -> None:
    if _is_newest(found, _WAITING, rest, stored, found.waiting):
        version = int.from_bytes(rest[:4], "big")
        payload = codec.unseal("jobs", codec.work_key("embed", found.key, version), stored)
        found.waiting[version] = decode(payload, WorkValue).since


def _add_unread(found: Evidence, rest: bytes, stored: bytes) -> None:
    version = int.from_bytes(rest[:4], "big")
    if _is_newest(found, _WAITING + b"x", rest, stored, (1,) if found.unread else ()):
        found.unread = bytes(codec.unseal("jobs", codec.work_key("extract", found.key, version), stored))


def _is_newest(found: Evidence, tag: bytes, rest: bytes, stored: bytes, known: Collection[int]) -> bool:
    """Whether a value of a version is neither replaced nor deleted by what came before it in order."""
    version = int.from_bytes(rest[:4], "big")
    if not stored:
        found.gone.add((tag, version))
    return bool(stored) and version not in known and (tag, version) not in found.gone


def row_dimension(payload: memoryview) -> int:
    """How many numbers the vector in a payload of family vectors has. Raises StoreCorrupt."""
    if len(payload) < 2:
        raise StoreCorrupt(f"a vector value is {len(payload)} bytes")
    begin = 2 + int.from_bytes(payload[:2], "little")
    decode(payload[2:begin], RowHeader)
    return (len(payload) - begin) // 4
