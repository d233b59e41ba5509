"""What stands inside a sealed value: msgpack arrays, one struct per family.

Fields are found by position. New fields go to the end with a default; none is ever renumbered or reused.
FORMATS.md describes each one.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..errors import StoreCorrupt
from ..ops.clock import from_open_end, open_end, to_datetime, to_micros
from ..ops.ids import format_id
from ..records import (
    NEVER,
    QUARANTINED,
    SPACES,
    LogEntry,
    Record,
    ReembedJob,
    Row,
    RowHeader,
    Space,
    SpaceRowHeader,
    StoreIdentity,
)
from ..types import MemoryItem, Modality, Operation, Scope
from ..types.items import TRUSTED
from .erasure_values import ErasureMark

V = TypeVar("V", bound=msgspec.Struct)


class ItemValue(msgspec.Struct, frozen=True, array_like=True):
    """Families items and history: one version of an item. Times in microseconds."""

    scope: tuple[str | None, str | None, str | None, str | None]
    kind: str
    text: str
    modality: Modality
    blob: str | None
    metadata: dict[str, Any]
    priority: float
    key: str | None
    entities: tuple[str, ...]
    sources: tuple[str, ...]
    trust: float
    version: int
    model_id: str
    created_at: int
    touched_at: int
    expires_at: int
    valid_from: int
    valid_to: int
    recorded_at: int
    retired_at: int
    ordinal: int
    operation: Operation
    reason: str | None = None


class HistoryValue(msgspec.Struct, frozen=True, array_like=True):
    """Family history: a version that is no longer current, or (item None) the mark of a deletion and the rule
    of the store that asked for it."""

    operation: Operation
    at: int
    item: ItemValue | None
    reason: str | None = None


class OwnerValue(msgspec.Struct, frozen=True, array_like=True):
    """Family owners: a partition's name and counters."""

    type: Literal["user", "agent", "run", "corpus"]
    id: str
    next_ordinal: int
    items: int


class RememberedValue(msgspec.Struct, frozen=True, array_like=True):
    """Family lookup, tag i: the outcome of an idempotent call."""

    at: int
    payload: bytes
    result: Any


class BackupNote(msgspec.Struct, frozen=True, array_like=True):
    """Family meta, key `backup` and 16 random bytes: a backup that was begun of this store. at: microseconds;
    sequence: the store's last change when it was begun."""

    at: int
    path: str
    sequence: int


class WorkValue(msgspec.Struct, frozen=True, array_like=True):
    """Family jobs, tag WORK: what records.Work says beside its name."""

    since: int
    refused: str = ""


encode = msgspec.msgpack.Encoder().encode
_decoders: dict[type, msgspec.msgpack.Decoder[Any]] = {
    kind: msgspec.msgpack.Decoder(kind)
    for kind in (
        ItemValue, HistoryValue, RowHeader, OwnerValue, RememberedValue, LogEntry, ReembedJob, StoreIdentity,
        ErasureMark, BackupNote, Space, SpaceRowHeader, WorkValue,
    )
}  # fmt: skip


def decode(data: bytes | memoryview, kind: type[V]) -> V:
    """A struct from msgpack. Raises StoreCorrupt: the checksum held, so the writer was broken."""
    try:
        value: V = _decoders[kind].decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise StoreCorrupt(f"a {kind.__name__} value does not decode: {error}") from error
    return value


def scope_tuple(scope: Scope) -> tuple[str | None, str | None, str | None, str | None]:
    """A scope in its stored order."""
    return (scope.user_id, scope.agent_id, scope.run_id, scope.corpus_id)


@lru_cache(maxsize=65_536)
def make_scope(ids: tuple[str | None, str | None, str | None, str | None]) -> Scope:
    """A scope from its stored order. Items of one scope share one object."""
    return Scope(user_id=ids[0], agent_id=ids[1], run_id=ids[2], corpus_id=ids[3])


def item_value(record: Record, operation: Operation, reason: str | None) -> ItemValue:
    """The stored form of a record, with what made this version and why."""
    item = record.item
    return ItemValue(
        scope_tuple(item.scope), item.kind, item.text, item.modality, item.blob, item.metadata, item.priority,
        item.key, item.entities, item.sources, item.trust, item.version, item.model_id,
        to_micros(item.created_at, "created_at"), to_micros(item.touched_at, "touched_at"),
        open_end(item.expires_at, "expires_at"), to_micros(item.valid_from, "valid_from"),
        open_end(item.valid_to, "valid_to"), to_micros(item.recorded_at, "recorded_at"),
        open_end(item.retired_at, "retired_at"), record.ordinal, operation,
        reason,
    )  # fmt: skip


def make_record(key: bytes, value: ItemValue) -> Record:
    """A record from its stored form. Raises StoreCorrupt when a time is none: the checksum held, so the
    writer was broken."""
    try:
        return _make_record(key, value)
    except (OverflowError, ValueError) as error:
        raise StoreCorrupt(f"the item of key {key.hex()} has a time that is none: {error}") from error


def _make_record(key: bytes, value: ItemValue) -> Record:
    return Record(
        key,
        value.ordinal,
        MemoryItem(
            id=format_id(key),
            scope=make_scope(value.scope),
            kind=value.kind,
            text=value.text,
            modality=value.modality,
            blob=value.blob,
            metadata=value.metadata,
            priority=value.priority,
            key=value.key,
            entities=value.entities,
            sources=value.sources,
            trust=value.trust,
            version=value.version,
            model_id=value.model_id,
            created_at=to_datetime(value.created_at),
            touched_at=to_datetime(value.touched_at),
            expires_at=from_open_end(value.expires_at),
            valid_from=to_datetime(value.valid_from),
            valid_to=from_open_end(value.valid_to),
            recorded_at=to_datetime(value.recorded_at),
            retired_at=from_open_end(value.retired_at),
        ),
    )


def make_row(key: bytes, value: ItemValue, vector: NDArray[np.float32], space: int = 0) -> Row:
    """The index row of an item's version. space: the number of the one that the vector lies in."""
    _, agent_id, run_id, _ = value.scope
    return Row(
        key, value.version, value.ordinal, value.kind, agent_id, run_id, value.priority, value.valid_from,
        value.valid_to, value.recorded_at, _row_end(value), value.expires_at, vector, value.metadata,
        value.text, space, value.entities,
    )  # fmt: skip


def _row_end(value: ItemValue) -> int:
    """Where the knowledge of a version ends for the index. One in quarantine was never known."""
    if value.trust < TRUSTED:
        return QUARANTINED if value.retired_at == NEVER else value.recorded_at
    return value.retired_at


_NUMBERS = np.dtype("<f4")
_HEADER_LENGTH = struct.Struct("<H")
_OF_ANOTHER_SPACE = 0x9B
"""First byte of a header of eleven fields, in msgpack; that of ten is 0x9A."""


def encode_row(row: Row) -> bytes:
    """Payload of family vectors: u16 header length, header, float32 values, all little-endian."""
    fields = (
        row.ordinal, row.kind, row.agent_id, row.run_id, row.priority,
        row.valid_from, row.valid_to, row.recorded_at, row.retired_at, row.expires_at,
    )  # fmt: skip
    header = encode(SpaceRowHeader(*fields, row.space) if row.space else RowHeader(*fields))
    vector: NDArray[np.float32] = row.vector
    if vector.dtype != _NUMBERS:
        vector = vector.astype(_NUMBERS)
    return _HEADER_LENGTH.pack(len(header)) + header + vector.tobytes()


def split_row(payload: bytes | memoryview) -> tuple[bytes | memoryview, bytes | memoryview]:
    """(header with its length, values) of a payload of family vectors. Raises StoreCorrupt."""
    end = 2 + _HEADER_LENGTH.unpack_from(payload)[0] if len(payload) >= 2 else 2
    if len(payload) < end:
        raise StoreCorrupt(f"a vector value is {len(payload)} bytes, expected more than {end}")
    return payload[:end], payload[end:]


def is_text_row(payload: bytes | memoryview) -> bool:
    """Whether a payload of family vectors is of the text space, or is none: only there the header is an array
    of ten."""
    return len(payload) <= 2 or payload[2] != _OF_ANOTHER_SPACE


def row_space(payload: bytes | memoryview) -> int:
    """The number of the space that a payload of family vectors lies in. Raises StoreCorrupt."""
    if is_text_row(payload):
        return 0
    space = decode(split_row(payload)[0][2:], SpaceRowHeader).space
    if not 0 < space < len(SPACES):
        raise StoreCorrupt(f"a vector value is of space {space}, which there is not")
    return space


def decode_row(key: bytes, version: int, payload: bytes | memoryview, dimension: int) -> Row:
    """The row of a payload of family vectors. dimension: of the text space; in others the payload's length
    tells it. Raises StoreCorrupt when its length does not add up."""
    space = row_space(payload)
    if space:
        dimension = len(split_row(payload)[1]) // 4
    if len(payload) < 2:
        raise StoreCorrupt(
            f"vector value of key {key.hex()} is {len(payload)} bytes; run a restore from backup"
        )
    (length,) = _HEADER_LENGTH.unpack_from(payload)
    if len(payload) != 2 + length + 4 * dimension:
        raise StoreCorrupt(
            f"vector value of key {key.hex()} is {len(payload)} bytes, expected {2 + length + 4 * dimension}"
        )
    header: RowHeader = decode(payload[2 : 2 + length], RowHeader)
    vector = np.frombuffer(payload, dtype="<f4", count=dimension, offset=2 + length)
    return Row(
        key, version, header.ordinal, header.kind, header.agent_id, header.run_id, header.priority,
        header.valid_from, header.valid_to, header.recorded_at, header.retired_at, header.expires_at, vector,
        space=space,
    )  # fmt: skip
