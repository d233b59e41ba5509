"""Spaces beside that of the texts: what the store remembers of each, and which of an owner's rows are whose.

A space holds the vectors of one model, of the items of one modality. The text space is that of the identity.
Rows of all spaces stand in one family under the same keys; a row of another space than the text's says so in
its header (values.py).
"""

from __future__ import annotations

from typing import Final

from ..errors import StoreCorrupt
from ..ops.ids import owner_prefix
from ..protocols import Engine
from ..records import SPACES, Space
from . import codec
from .values import decode

_SPACE: Final = b"space"
_TAG: Final = b"s"


def space_key(number: int) -> bytes:
    """Family meta: what is known of a space; 6 bytes."""
    return _SPACE + bytes([number])


def is_space_key(key: bytes) -> bool:
    """Whether a key of family meta names a space."""
    return len(key) == len(_SPACE) + 1 and key.startswith(_SPACE) and 0 < key[-1] < len(SPACES)


def owner_spaces_key(owner: int) -> bytes:
    """Family lookup: numbers of the other spaces in which an owner may have rows, a byte each."""
    return owner_prefix(owner) + _TAG


def read_space(number: int, payload: bytes | memoryview) -> Space:
    """Raises StoreCorrupt."""
    space = decode(payload, Space)
    if space.number != number or not 0 < number < len(SPACES):
        raise StoreCorrupt(f"space {space.number} stands as space {number}")
    return space


def read_spaces(engine: Engine) -> dict[str, Space]:
    """By modality, the other spaces that a store has. Raises StoreCorrupt."""
    found = {}
    for key, stored in engine.scan("meta", *codec.prefix_range(_SPACE)):
        space = read_space(key[-1], codec.unseal("meta", key, stored))
        found[space.name] = space
    return found


def owner_spaces(engine: Engine, owner: int) -> bytes:
    """The numbers of the other spaces in which an owner may have rows."""
    key = owner_spaces_key(owner)
    stored = engine.get("lookup", key)
    return b"" if stored is None else bytes(codec.unseal("lookup", key, stored))
