"""What a store is: its format, salt and model, and the family that holds its vectors."""

from __future__ import annotations

from typing import Final

from ..errors import FormatError, StoreCorrupt
from ..protocols import Engine
from ..records import StoreIdentity
from . import codec
from .values import decode, encode

FORMAT: Final = 2
"""The format that this warpmem writes. FORMATS.md says what each one added."""

IDENTITY_KEY: Final = b"identity"


def read_identity(engine: Engine) -> StoreIdentity | None:
    """What the store is, or None for a new one.

    Raises FormatError when a newer version wrote it, StoreCorrupt when families are missing that its format
    has: RocksDB lists families up to the first damaged record of its MANIFEST, without an error.
    """
    stored = engine.get("meta", IDENTITY_KEY)
    identity = None
    if stored is not None:
        identity = decode(codec.unseal("meta", IDENTITY_KEY, stored), StoreIdentity)
        if identity.format > FORMAT:
            raise FormatError(
                f"the store has format {identity.format}, this warpmem reads up to {FORMAT}; "
                "upgrade warpmem to open it"
            )
        if identity.vectors not in codec.VECTOR_FAMILIES:
            raise StoreCorrupt(
                f"the store's vectors stand in family {identity.vectors!r}, expected one of "
                f"{', '.join(codec.VECTOR_FAMILIES)}; restore the directory from a backup"
            )
    if engine.absent and (identity is None or identity.format > 1):
        raise StoreCorrupt(
            f"the store shows {len(codec.FAMILIES) - len(engine.absent)} of {len(codec.FAMILIES)} families: "
            "its MANIFEST is damaged; restore the directory from a backup"
        )
    return identity


def identity_entry(identity: StoreIdentity) -> tuple[str, bytes, bytes]:
    """What Engine.write takes to store it."""
    return "meta", IDENTITY_KEY, codec.seal("meta", IDENTITY_KEY, encode(identity))
