"""What storage takes from the native module: CRC32C (Castagnoli, RFC 3720 appendix B.4), or a table when it
is absent, and reading many rows at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL: Final = 0x82F63B78


class Crc32c(Protocol):
    """CRC32C of `data`, continuing from `value`, the checksum of what came before it."""

    def __call__(self, data: bytes | bytearray | memoryview, value: int = 0) -> int: ...


class OpenRows(Protocol):
    """Checks and takes apart many sealed rows: (how many are whole, from the first on; their headers joined;
    vectors (n, dimension) float32, of which as many are set). seed: CRC32C of the family's name and a zero
    byte."""

    def __call__(
        self, keys: Sequence[bytes], values: Sequence[bytes], seed: int, version: int, dimension: int
    ) -> tuple[int, bytes, NDArray[np.float32]]: ...


def _make_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_TABLE: Final = _make_table()


def crc32c_table(data: bytes | bytearray | memoryview, value: int = 0) -> int:
    """CRC32C of `data`, continuing from `value`, one table step a byte. About 10 MB/s."""
    table = _TABLE
    crc = value ^ 0xFFFFFFFF
    for byte in memoryview(data).cast("B"):
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _load() -> tuple[Crc32c, OpenRows | None]:
    try:
        from .._cpu import crc32c, open_rows
    except ImportError:
        return crc32c_table, None
    native: tuple[Crc32c, OpenRows] = (crc32c, open_rows)
    return native


crc32c, open_rows = _load()
