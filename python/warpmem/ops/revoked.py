"""Sources that are believed no more, as they are stored: FORMATS.md, family meta, key `revoked`."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Final

import msgspec

from ..errors import StoreCorrupt

KEY: Final = b"revoked"


class RevokedSource(msgspec.Struct, frozen=True, array_like=True):
    """A source that was revoked. at: microseconds."""

    name: str
    at: int


def decode(payload: bytes | memoryview | None) -> list[RevokedSource]:
    """Oldest first. Raises StoreCorrupt."""
    if payload is None:
        return []
    try:
        return msgspec.msgpack.decode(payload, type=list[RevokedSource])
    except msgspec.MsgspecError as error:
        raise StoreCorrupt("the list of revoked sources does not decode") from error


def encode(sources: Sequence[RevokedSource]) -> bytes | None:
    """What is stored; None where nothing is."""
    return msgspec.msgpack.encode(sources) if sources else None


def without(sources: Sequence[RevokedSource], names: Container[str]) -> list[RevokedSource]:
    """Those that have none of these names."""
    return [one for one in sources if one.name not in names]
