"""Rows of family vectors by the thousand, for loading an owner: a value at a time would take most of the time
that opening a store of a million items may take.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..errors import StoreCorrupt
from ..protocols import Engine
from ..records import RowBlock, RowHeader, Space
from . import codec
from .crc import open_rows
from .values import HistoryValue, ItemValue, decode, decode_row, row_space

_ROWS: Final = 4096
_BYTES: Final = 8 << 20
_headers = msgspec.msgpack.Decoder(list[RowHeader])
_ARRAY32: Final = b"\xdd"
_FIRST: Final = 3
"""Place of a header's first byte in a sealed value: behind the version and the header's length."""
_TEXT: Final = b"\x9a"
"""An array of ten, which only rows of the text space begin with."""


def read_blocks(
    engine: Engine,
    family: str,
    start: bytes,
    stop: bytes,
    dimension: int,
    *,
    metadata: bool,
    space: Space | None = None,
) -> Iterator[RowBlock]:
    """The rows with start <= key < stop, some thousand at a time, as of one moment: those of the text space,
    whose dimension it is, or of another one. Raises StoreCorrupt."""
    number = 0
    if space is not None:
        number, dimension = space.number, space.dimension
    size = max(1, min(_ROWS, _BYTES // (4 * dimension)))
    # In this order: a version that leaves `items` is in `history` from the same write on.
    chunks = engine.chunks(family, start, stop, size)
    versions = Versions(engine, start, stop) if metadata else None
    for keys, values in chunks:
        if number or any(value[_FIRST : _FIRST + 1] != _TEXT for value in values):
            keys, values = _of_space(family, keys, values, number)
            if not keys:
                continue
        headers, vectors = take_apart(family, keys, values, dimension)
        known = None
        if versions is not None:
            names = [codec.read_version_key(family, key) for key in keys]
            known = [versions.metadata(key, version) for key, version in names]
        yield RowBlock(b"".join(keys), headers, vectors, known)


def _of_space(
    family: str, keys: Sequence[bytes], values: Sequence[bytes], number: int
) -> tuple[list[bytes], list[bytes]]:
    """The rows of one space; the others are whole too, or a flipped bit would hide one."""
    chosen = [
        (key, value)
        for key, value in zip(keys, values, strict=True)
        if row_space(codec.unseal(family, key, value)) == number
    ]
    return [key for key, _ in chosen], [value for _, value in chosen]


def take_apart(
    family: str, keys: Sequence[bytes], values: Sequence[bytes], dimension: int
) -> tuple[list[RowHeader], NDArray[np.float32]]:
    """Headers and vectors (n, dimension) float32 of sealed rows. Raises StoreCorrupt and FormatError."""
    for key in keys:
        if len(key) != codec.VERSION_KEY_BYTES:
            codec.read_version_key(family, key)
    if open_rows is not None:
        whole, joined, vectors = open_rows(
            keys, values, codec.family_checksum(family), codec.FORMAT_VERSION, dimension
        )
        if whole == len(keys):
            try:
                found = _headers.decode(_ARRAY32 + whole.to_bytes(4, "big") + joined)
            except (msgspec.DecodeError, msgspec.ValidationError):
                pass  # one by one, to say which
            else:
                return found, vectors
    return _one_by_one(family, keys, values, dimension)


def _one_by_one(
    family: str, keys: Sequence[bytes], values: Sequence[bytes], dimension: int
) -> tuple[list[RowHeader], NDArray[np.float32]]:
    vectors = np.empty((len(keys), dimension), np.float32)
    headers = []
    for i, (key, value) in enumerate(zip(keys, values, strict=True)):
        row = decode_row(*codec.read_version_key(family, key), codec.unseal(family, key, value), dimension)
        if len(row.vector) != dimension:
            raise StoreCorrupt(f"vector of key {key.hex()} has {len(row.vector)} numbers, not {dimension}")
        vectors[i] = row.vector
        headers.append(
            RowHeader(
                row.ordinal, row.kind, row.agent_id, row.run_id, row.priority,
                row.valid_from, row.valid_to, row.recorded_at, row.retired_at, row.expires_at,
            )
        )  # fmt: skip
    return headers, vectors


class Versions:
    """Metadata of versions asked for in the order of their keys: families items and history side by side."""

    def __init__(self, engine: Engine, start: bytes, stop: bytes) -> None:
        self._items = engine.scan("items", start, stop)
        self._history = engine.scan("history", start, stop)
        self._item = next(self._items, None)
        self._past = next(self._history, None)

    def metadata(self, key: bytes, version: int) -> dict[str, Any] | None:
        """None for a version that was erased meanwhile."""
        while self._item is not None and self._item[0] < key:
            self._item = next(self._items, None)
        if self._item is not None and self._item[0] == key:
            current = decode(codec.unseal("items", *self._item), ItemValue)
            if current.version == version:
                return current.metadata
        wanted = codec.history_key(key, version)
        while self._past is not None and self._past[0] < wanted:
            self._past = next(self._history, None)
        if self._past is None or self._past[0] != wanted:
            return None
        past = decode(codec.unseal("history", *self._past), HistoryValue).item
        return None if past is None else past.metadata
