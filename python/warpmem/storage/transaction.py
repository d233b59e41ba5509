"""One change in the making: reads through an overlay of its own writes, and the operations it adds up to."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, StoreCorrupt
from ..ops.blank import is_blank
from ..ops.clock import to_datetime, to_micros
from ..ops.digest import digest16
from ..ops.ids import OWNER_BYTES, KeyMaker, format_id, owner_of
from ..protocols import Engine
from ..records import SPACES, LogEntry, Record, Row, RowChange, Space, StoreIdentity, Work
from ..types import MemoryItem, Operation, Owner
from . import codec
from .lookups import LookupTransaction
from .owner_book import OwnerBook, Told
from .spaces import owner_spaces_key, read_space, space_key
from .values import (
    HistoryValue,
    ItemValue,
    OwnerValue,
    decode,
    decode_row,
    encode,
    encode_row,
    item_value,
    make_record,
    make_row,
    scope_tuple,
)


class LogState(msgspec.Struct):
    """The counters that the log's tail determines. unsynced: as in the entries of the change to come."""

    sequence: int = 0
    at: int = 0
    items: int = 0
    owners: int = 0
    unsynced: bool = False


class StoreTransaction(LookupTransaction):
    """Implements protocols.Transaction over an Engine. Lives on the committer thread."""

    def __init__(
        self, engine: Engine, identity: StoreIdentity, state: LogState, keys: KeyMaker, clock_now: int,
        book: OwnerBook,
    ) -> None:  # fmt: skip
        super().__init__(engine)
        self._identity = identity
        self._book = book
        self._keys = keys
        self._owner_numbers: dict[Owner, int] = {}
        self._owner_values: dict[int, OwnerValue] = {}
        self.told: Told | None = (self._owner_numbers, self._owner_values)
        self._records: dict[bytes, Record | None] = {}
        self._changes: dict[
            bytes, tuple[list[bytes], list[tuple[bytes, int]], dict[tuple[bytes, int], Row]]
        ] = {}
        self._now = max(clock_now, state.at)
        self.state = LogState(state.sequence, self._now, state.items, state.owners, state.unsynced)

    # -------------------------------------------------------------------------------------- reads

    @property
    def now(self) -> int:
        return self._now

    def owner(self, owner: Owner) -> int:
        number = self._owner_numbers.get(owner)
        if number is None:
            number = self._book.numbers.get(owner)
            if number is not None:
                self._owner_numbers[owner] = number
                return number
            name_key = codec.owner_name_key(owner_digest(self._identity, owner))
            stored = self._read("owners", name_key)
            if stored is not None:
                number = int.from_bytes(stored, "big")
            else:
                number = self.state.owners + 1
                self.state.owners = number
                self._write("owners", name_key, number.to_bytes(4, "big"))
                self._put_owner(number, OwnerValue(owner.type, owner.id, 0, 0))
            self._owner_numbers[owner] = number
        return number

    def get(self, key: bytes) -> Record | None:
        if key in self._records:
            return self._records[key]
        stored = self._read("items", key)
        record = None if stored is None else make_record(key, decode(stored, ItemValue))
        self._records[key] = record
        return record

    def made_by(self, key: bytes) -> Operation:
        return self._made_by(key)[0]

    # ------------------------------------------------------------------------------------ changes

    def space(self, name: str, model_id: str, dimension: int) -> Space:
        number = SPACES.index(name)
        key = space_key(number)
        stored = self._read("meta", key)
        if stored is None:
            space = Space(number, model_id, dimension, self._now)
            self._write("meta", key, encode(space))
            return space
        space = read_space(number, stored)
        space.check(model_id, dimension)
        return space

    def add(
        self,
        owner: int,
        item: MemoryItem,
        vector: NDArray[np.float32] | None,
        *,
        duplicate: bytes | None,
        slot: bytes | None,
        space: int = 0,
        reason: str | None = None,
    ) -> Record:
        key = self._keys.make(owner, self._now)
        counters = self._owner_value(owner)
        when = to_datetime(self._now)
        item = msgspec.structs.replace(
            item,
            id=format_id(key),
            version=1,
            created_at=when,
            touched_at=when,
            recorded_at=when,
            retired_at=None,
        )
        record = Record(key, counters.next_ordinal, item)
        self._put_owner(
            owner,
            OwnerValue(counters.type, counters.id, counters.next_ordinal + 1, counters.items + 1),
        )
        self.state.items += 1
        value = self._put_item(record, "add", reason)
        self._put_row(make_row(key, value, self._or_later(record, vector), space))
        if space:
            self._note_space(owner, space)
        self._write("listing", codec.listing_key(owner, value.valid_from, key[OWNER_BYTES:]), b"")
        if duplicate is not None:
            self._remember_duplicate(owner, duplicate, key)
        if slot is not None:
            self._set_slot(owner, slot, record, live=True)
        self._log("add", record)
        return record

    def revise(
        self,
        old: Record,
        item: MemoryItem,
        vector: NDArray[np.float32] | None,
        *,
        operation: Operation,
        reason: str | None = None,
        duplicate: tuple[bytes | None, bytes | None] = (None, None),
        later: bool = False,
        slot: tuple[bytes | None, bytes | None] = (None, None),
    ) -> Record:
        owner = owner_of(old.key)
        old_row = self._row(old.key, old.item.version)
        when = to_datetime(self._now)
        item = msgspec.structs.replace(
            item, version=old.item.version + 1, recorded_at=when, touched_at=when, retired_at=None
        )
        record = Record(old.key, old.ordinal, item)
        self._retire(old, old_row)
        if self._listing_key(old) != self._listing_key(record):
            self._write("listing", self._listing_key(old), None)
            self._write("listing", self._listing_key(record), b"")
        value = self._put_item(record, operation, reason)
        if vector is None and not later and not is_blank(old_row.vector):
            vector = old_row.vector
        self._put_row(make_row(record.key, value, self._or_later(record, vector), old_row.space))
        forget, remember = duplicate
        if forget is not None and forget != remember:
            self._forget_duplicate(owner, forget, old.key)
        if remember is not None:
            self._remember_duplicate(owner, remember, old.key)
        leave, enter = slot
        if leave != enter:
            if leave is not None:
                self._set_slot(owner, leave, old, live=False)
            if enter is not None:
                self._set_slot(owner, enter, record, live=True)
        self._log(operation, record)
        return record

    def touch(self, record: Record) -> Record:
        item = msgspec.structs.replace(record.item, touched_at=to_datetime(self._now))
        touched = Record(record.key, record.ordinal, item)
        self._put_item(touched, *self._made_by(record.key))
        self._log("touch", touched)
        return touched

    def delete(
        self, record: Record, *, duplicate: bytes | None, slot: bytes | None, reason: str | None = None
    ) -> None:
        owner = owner_of(record.key)
        last = record.item.version
        self._retire(record, None)
        for version in range(1, last + 1):
            self._write(self._identity.vectors, codec.vector_key(record.key, version), None)
            self._dequeue(record.key, version)
            self._remove_row(record.key, version)
        self._write("items", record.key, None)
        self._records[record.key] = None
        self._write("listing", self._listing_key(record), None)
        mark = encode(HistoryValue("delete", self._now, None, reason))
        self._write("history", codec.history_key(record.key, last + 1), mark)
        if duplicate is not None:
            self._forget_duplicate(owner, duplicate, record.key)
        if slot is not None:
            self._set_slot(owner, slot, record, live=False)
        counters = self._owner_value(owner)
        self._put_owner(
            owner, OwnerValue(counters.type, counters.id, counters.next_ordinal, counters.items - 1)
        )
        self.state.items -= 1
        self._log("delete", record)

    def keep(self, key: bytes, payload: bytes | None) -> None:
        self._write("meta", key, payload)

    # ------------------------------------------------------------------------------------ outcome

    def __bool__(self) -> bool:
        """Whether there is anything to write."""
        return bool(self._overlay or self._owner_values)

    @property
    def operations(self) -> list[tuple[str, bytes, bytes | None]]:
        """Sealed writes for the engine: the last value of each key once, the log entries among them."""
        for number, value in self._owner_values.items():
            self._write("owners", codec.owner_state_key(number), encode(value))
        return [
            (family, key, None if value is None else codec.seal(family, key, value))
            for (family, key), value in self._overlay.items()
        ]

    @property
    def effects(self) -> list[RowChange]:
        """What the index must take in, one entry per owner."""
        return [
            RowChange(owner_of(prefix), tuple(dict.fromkeys(keys)), tuple(removed), tuple(rows.values()))
            for prefix, (keys, removed, rows) in self._changes.items()
        ]

    # ----------------------------------------------------------------------------------- helpers

    def _owner_value(self, number: int) -> OwnerValue:
        value = self._owner_values.get(number) or self._book.values.get(number)
        if value is None:
            stored = self._read("owners", codec.owner_state_key(number))
            if stored is None:
                raise StoreCorrupt(f"owner {number} has no counters; run a restore from backup")
            value = decode(stored, OwnerValue)
        return value

    def _put_owner(self, number: int, value: OwnerValue) -> None:
        self._owner_values[number] = value

    def _touched(self, key: bytes) -> tuple[list[tuple[bytes, int]], dict[tuple[bytes, int], Row]]:
        prefix = key[:OWNER_BYTES]
        changes = self._changes.get(prefix)
        if changes is None:
            changes = self._changes[prefix] = ([], [], {})
        keys, removed, rows = changes
        keys.append(key)
        return removed, rows

    def _remove_row(self, key: bytes, version: int) -> None:
        removed, rows = self._touched(key)
        rows.pop((key, version), None)
        removed.append((key, version))

    def _put_row(self, row: Row) -> None:
        self._write(self._identity.vectors, codec.vector_key(row.key, row.version), encode_row(row))
        _, rows = self._touched(row.key)
        rows[row.key, row.version] = row

    def _note_space(self, owner: int, space: int) -> None:
        key = owner_spaces_key(owner)
        known = bytes(self._read("lookup", key) or b"")
        if space not in known:
            self._write("lookup", key, bytes(sorted({*known, space})))

    def _row(self, key: bytes, version: int) -> Row:
        stored = self._read(self._identity.vectors, codec.vector_key(key, version))
        if stored is None:
            raise StoreCorrupt(
                f"version {version} of key {key.hex()} has no vector; run a restore from backup"
            )
        return decode_row(key, version, stored, self._identity.dimension)

    def _or_later(self, record: Record, vector: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """`vector`, or what stands in its place while the record waits for it."""
        if vector is not None:
            return vector
        self._enqueue("embed", Work(record.key, record.item.version, self._now))
        return np.zeros(self._identity.dimension, np.float32)

    def _made_by(self, key: bytes) -> tuple[Operation, str | None]:
        """What made the current version, and why."""
        stored = self._read("items", key)
        assert stored is not None
        value = decode(stored, ItemValue)
        return value.operation, value.reason

    def _put_item(self, record: Record, operation: Operation, reason: str | None) -> ItemValue:
        value = item_value(record, operation, reason)
        payload = encode(value)
        try:
            decode(payload, ItemValue)  # what cannot be read back would make the whole owner unreadable
        except StoreCorrupt as error:
            raise InputError("an item has a field of the wrong type") from error
        self._write("items", record.key, payload)
        self._records[record.key] = record
        self._touched(record.key)
        return value

    def _retire(self, old: Record, row: Row | None) -> None:
        """Move the current version to history; its row, if given, stays indexed with an end of knowledge."""
        operation, reason = self._made_by(old.key)
        retired = msgspec.structs.replace(old.item, retired_at=to_datetime(self._now))
        value = item_value(Record(old.key, old.ordinal, retired), operation, reason)
        at = to_micros(old.item.recorded_at, "recorded_at")
        key = codec.history_key(old.key, old.item.version)
        self._write("history", key, encode(HistoryValue(operation, at, value)))
        if row is not None:
            self._remove_row(old.key, old.item.version)
            self._put_row(make_row(old.key, value, row.vector, row.space))

    def _listing_key(self, record: Record) -> bytes:
        valid_from = to_micros(record.item.valid_from, "valid_from")
        return codec.listing_key(owner_of(record.key), valid_from, record.key[OWNER_BYTES:])

    def _log(self, operation: Operation, record: Record) -> None:
        self.state.sequence += 1
        entry = LogEntry(
            self.state.sequence,
            self._now,
            operation,
            record.key,
            record.item.version,
            scope_tuple(record.item.scope),
            self.state.items,
            self.state.unsynced,
        )
        self._write("log", codec.log_key(entry.sequence), encode(entry))


def owner_digest(identity: StoreIdentity, owner: Owner) -> bytes:
    """The digest under which an owner's number is found."""
    return digest16(identity.salt, b"owner", owner.type.encode(), owner.id.encode("utf-8", "surrogatepass"))
