"""Daily totals of what was spent on models, and how they are stored: FORMATS.md, family meta, key `cost`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from ..errors import StoreCorrupt

PREFIX: Final = b"cost"
DAY: Final = 24 * 3600 * 1_000_000
"""Microseconds."""
NOBODY: Final = 0
"""In the place of an owner's number: of those whom the store does not know."""

_SIZE: Final = len(PREFIX) + 8


class Amounts(msgspec.Struct, array_like=True, gc=False):
    """What was spent. bytes: of texts; hits: texts that cost nothing, since their vectors were at hand."""

    seconds: float = 0.0
    tokens: int = 0
    bytes: int = 0
    calls: int = 0
    hits: int = 0
    money: float = 0.0

    def add(self, other: Amounts) -> None:
        """Take in what was spent besides."""
        self.seconds += other.seconds
        self.tokens += other.tokens
        self.bytes += other.bytes
        self.calls += other.calls
        self.hits += other.hits
        self.money += other.money


class CostLine(msgspec.Struct, array_like=True):
    """What one owner spent in a day on one purpose."""

    lane: str
    job: str
    model: str
    amounts: Amounts


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[CostLine]).decode


def day_of(now: int) -> int:
    """Days since 1970-01-01, 0 before; now: microseconds."""
    return max(0, now // DAY)


def cost_key(day: int, owner: int) -> bytes:
    """The key of an owner's day; days since 1970-01-01."""
    return PREFIX + day.to_bytes(4, "big") + owner.to_bytes(4, "big")


def read_cost_key(key: bytes) -> tuple[int, int]:
    """(day, owner). Raises StoreCorrupt."""
    if len(key) != _SIZE or not key.startswith(PREFIX):
        raise StoreCorrupt(f"a key of costs has {len(key)} bytes, expected {_SIZE}")
    return int.from_bytes(key[4:8], "big"), int.from_bytes(key[8:], "big")


def spender(key: bytes) -> int | None:
    """The owner whose costs stand under a key of family meta; None where no costs do."""
    return int.from_bytes(key[8:], "big") if len(key) == _SIZE and key.startswith(PREFIX) else None


def write_lines(lines: Iterable[CostLine]) -> bytes:
    """The value of an owner's day."""
    return _encode(list(lines))


def read_lines(payload: bytes | memoryview) -> list[CostLine]:
    """What write_lines wrote. Raises StoreCorrupt."""
    try:
        return _decode(payload)
    except msgspec.MsgspecError as error:
        raise StoreCorrupt(f"a day of costs cannot be read: {error}") from error


def merged(lines: Iterable[CostLine]) -> list[CostLine]:
    """One line for each purpose."""
    found: dict[tuple[str, str, str], CostLine] = {}
    for line in lines:
        purpose = line.lane, line.job, line.model
        if purpose in found:
            found[purpose].amounts.add(line.amounts)
        else:
            found[purpose] = CostLine(*purpose, msgspec.structs.replace(line.amounts))
    return list(found.values())


def shares(weights: Sequence[int], tokens: int) -> list[int]:
    """Tokens divided by weights, none lost."""
    total, given, out = sum(weights), 0, []
    seen = 0
    for weight in weights:
        seen += weight
        upto = tokens * seen // total
        out.append(upto - given)
        given = upto
    return out
