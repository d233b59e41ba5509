"""What a log tells of items and of their vectors, as they stand in the engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..ops.ids import KEY_BYTES, owner_of, owner_prefix
from ..protocols import Engine
from ..records import Past, Record, Row, RowBlock, Space, StoreIdentity, VersionName
from ..types import Order
from . import codec
from .lookups import read_slots
from .rows import Versions, read_blocks
from .spaces import owner_spaces, read_spaces
from .values import HistoryValue, ItemValue, decode, decode_row, make_record, row_space


class LogReads:
    """The part of StoreLog that reads, beside whatever is being written."""

    def __init__(self, engine: Engine, identity: StoreIdentity) -> None:
        self._engine = engine
        self._identity = identity

    def get_many(self, keys: Sequence[bytes]) -> list[Record | None]:
        return [
            None if value is None else make_record(key, decode(codec.unseal("items", key, value), ItemValue))
            for key, value in zip(keys, self._engine.get_many("items", keys), strict=True)
        ]

    def texts(self, names: Sequence[VersionName]) -> list[str | None]:
        # Of a record nothing else is made: an owner's first search by words reads all of his.
        keys = [key for key, _ in names]
        texts: list[str | None] = []
        for (key, version), stored in zip(names, self._engine.get_many("items", keys), strict=True):
            value = None if stored is None else decode(codec.unseal("items", key, stored), ItemValue)
            if value is not None and value.version == version:
                texts.append(value.text)
            else:
                older = self.get_version(key, version)
                texts.append(None if older is None else older.item.text)
        return texts

    def key_chain(self, owner: int, digest: bytes) -> list[tuple[int, bytes]]:
        return [codec.read_slot_suffix(key) for key in read_slots(self._engine, owner, digest)]

    def get_version(self, key: bytes, version: int) -> Record | None:
        (current,) = self.get_many([key])
        if current is not None and current.item.version == version:
            return current
        history_key = codec.history_key(key, version)
        stored = self._engine.get("history", history_key)
        if stored is None:
            return None
        value = decode(codec.unseal("history", history_key, stored), HistoryValue)
        return None if value.item is None else make_record(key, value.item)

    def history(self, key: bytes) -> list[Past]:
        found: list[Past] = []
        stored_now = self._engine.get("items", key)
        while True:
            past = list(self._engine.scan("history", *codec.prefix_range(key)))
            before, stored_now = stored_now, self._engine.get("items", key)
            if stored_now == before:  # else it changed between the reads: a version may be in neither
                break
        for history_key, stored in past:
            value = decode(codec.unseal("history", history_key, stored), HistoryValue)
            record = None if value.item is None else make_record(key, value.item)
            reason = value.reason if value.item is None else value.item.reason
            found.append(Past(value.operation, value.at, record, reason))
        if stored_now is not None:
            current = decode(codec.unseal("items", key, stored_now), ItemValue)
            if not any(past.record and past.record.item.version == current.version for past in found):
                now = make_record(key, current)
                found.append(Past(current.operation, current.recorded_at, now, current.reason))
        return found

    def vector(self, key: bytes, version: int, identity: StoreIdentity) -> NDArray[np.float32] | None:
        vector_key = codec.vector_key(key, version)
        stored = self._engine.get(identity.vectors, vector_key)
        if stored is None:
            return None
        payload = codec.unseal(identity.vectors, vector_key, stored)
        vector: NDArray[np.float32] = decode_row(key, version, payload, identity.dimension).vector
        return vector

    def rows(
        self, owner: int, identity: StoreIdentity, metadata: bool = False, space: Space | None = None
    ) -> Iterator[RowBlock]:
        if space is not None and space.number not in owner_spaces(self._engine, owner):
            return iter(())  # the owner's texts need not be gone through
        start, stop = codec.prefix_range(owner_prefix(owner))
        return read_blocks(
            self._engine, identity.vectors, start, stop, identity.dimension, metadata=metadata, space=space
        )

    def spaces(self) -> dict[str, Space]:
        return read_spaces(self._engine)

    def space_of(self, key: bytes, version: int) -> int:
        vector_key, family = codec.vector_key(key, version), self._identity.vectors
        stored = self._engine.get(family, vector_key)
        return 0 if stored is None else row_space(codec.unseal(family, vector_key, stored))

    def item_rows(self, key: bytes, metadata: bool = False) -> Iterator[Row]:
        start, stop = codec.prefix_range(key)
        family, dimension = self._identity.vectors, self._identity.dimension
        # In this order: a version that leaves `items` is in `history` from the same write on.
        vectors = self._engine.scan(family, start, stop)
        versions = Versions(self._engine, start, stop) if metadata else None
        for key, stored in vectors:
            payload = codec.unseal(family, key, stored)
            item_key, version = codec.read_version_key(family, key)
            row = decode_row(item_key, version, payload, dimension)
            yield (
                row
                if versions is None
                else msgspec.structs.replace(row, metadata=versions.metadata(item_key, version))
            )

    def records(
        self, owner: int, *, order: Order, reverse: bool, after: bytes | None
    ) -> Iterator[tuple[bytes, Record]]:
        family = "items" if order == "recorded" else "listing"
        start, stop = codec.prefix_range(owner_prefix(owner))
        if after is not None:
            if owner_of(after) != owner:
                raise ValueError("cursor of another owner")
            start, stop = (start, after) if reverse else (after + b"\0", stop)
        for key, stored in self._engine.scan(family, start, stop, reverse=reverse):
            payload = codec.unseal(family, key, stored)
            if family == "items":
                yield key, make_record(key, decode(payload, ItemValue))
            else:
                (record,) = self.get_many([codec.read_listing_key(key)[1]])
                if record is not None:
                    yield key, record

    def deleted(self, owner: int) -> Iterator[Record]:
        last: Record | None = None
        for key, stored in self._engine.scan("history", *codec.prefix_range(owner_prefix(owner))):
            value = decode(codec.unseal("history", key, stored), HistoryValue)
            if value.item is not None:
                last = make_record(key[:KEY_BYTES], value.item)
            elif last is not None and last.key == key[:KEY_BYTES]:
                yield last

    def kept(self, key: bytes) -> bytes | None:
        stored = self._engine.get("meta", key)
        return None if stored is None else bytes(codec.unseal("meta", key, stored))

    def kept_between(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key, stored in self._engine.scan("meta", start, stop):
            yield key, bytes(codec.unseal("meta", key, stored))
