"""Families, keys and the frame around every stored value. FORMATS.md describes each byte.

Keys are big-endian, so that byte order is numeric order; signed times are offset by 2^63 for the same
reason. Keys hold numbers and digests, never user text. A value is framed as

    version (1 byte, 0x01) | payload | CRC32C (4 bytes, little-endian)

and the checksum covers the family's name and the key as well, so that a value that is whole but in
the wrong place is caught too.
"""

from __future__ import annotations

from typing import Final

from ..errors import FormatError, StoreCorrupt
from ..ops.digest import digest16
from ..ops.ids import KEY_BYTES, OWNER_BYTES, owner_prefix
from ..records import WorkKind
from .crc import crc32c

__all__ = [
    "DUPLICATE",
    "FAMILIES",
    "FIRST_FAMILIES",
    "FORMAT_VERSION",
    "FRAME_BYTES",
    "IDEMPOTENCY",
    "KEYS_END",
    "REMEMBERED",
    "SLOT",
    "VECTOR_FAMILIES",
    "VERSION_KEY_BYTES",
    "WORK",
    "WORK_KEY_BYTES",
    "WORK_KINDS",
    "digest16",
    "family_checksum",
    "history_key",
    "item_key",
    "listing_key",
    "log_key",
    "lookup_key",
    "owner_name_key",
    "owner_state_key",
    "prefix_range",
    "read_listing_key",
    "read_log_key",
    "read_owner_state_key",
    "read_remembered_key",
    "read_slot_suffix",
    "read_version_key",
    "read_work_key",
    "remembered_key",
    "seal",
    "slot_suffix",
    "unseal",
    "vector_key",
    "work_key",
    "work_prefix",
]  # fmt: skip

FIRST_FAMILIES: Final = ("log", "items", "vectors", "history", "owners", "listing", "lookup", "meta")
"""Column families of format 1. Later formats only add some."""

FAMILIES: Final = (*FIRST_FAMILIES, "vectors_b", "jobs")
"""Column families of a store. "events" is reserved for a later format. Never rename one."""

VECTOR_FAMILIES: Final = ("vectors", "vectors_b")
"""The two places for vectors. The identity names the one in use; re-embedding fills the other."""

KEYS_END: Final = b"\xff" * 64
"""Above every key of the format: the longest has 45 bytes."""

FORMAT_VERSION: Final = 1
"""Version byte of the frame. A reader refuses a larger one."""

FRAME_BYTES: Final = 5
"""What the frame adds to a payload."""

VERSION_KEY_BYTES: Final = KEY_BYTES + 4
"""Length of a key of vectors or history."""

DUPLICATE: Final = b"d"
SLOT: Final = b"k"
IDEMPOTENCY: Final = b"i"
REMEMBERED: Final = b"t"

WORK: Final = b"w"
WORK_KINDS: Final[dict[WorkKind, bytes]] = {"embed": b"e", "extract": b"x"}
WORK_KEY_BYTES: Final = 2 + KEY_BYTES + 4
"""Length of a key of family jobs that names what waits."""

_TIME_OFFSET: Final = 1 << 63
_VERSION: Final = bytes([FORMAT_VERSION])
_FAMILY_CRC: Final = {family: crc32c(family.encode("ascii") + b"\0") for family in FAMILIES}
_REMEDY: Final = "restore the directory from a backup, or salvage it with `warpmem repair`"


# ------------------------------------------------------------------------------------------ values


def seal(family: str, key: bytes, payload: bytes) -> bytes:
    """The stored form of `payload` under `key` in `family`. KeyError when the family is unknown."""
    body = _VERSION + payload
    return body + crc32c(body, crc32c(key, _FAMILY_CRC[family])).to_bytes(4, "little")


def family_checksum(family: str) -> int:
    """What the checksum of every value of a family continues: that of its name and a zero byte."""
    return _FAMILY_CRC[family]


def unseal(family: str, key: bytes, value: bytes) -> memoryview:
    """The payload of a stored value, as a view into it.

    Raises StoreCorrupt when length or checksum is wrong, FormatError when a newer warpmem wrote it.
    """
    size = len(value)
    if size < FRAME_BYTES:
        raise StoreCorrupt(
            f"value in family {family} under key {key.hex()} has {size} bytes, "
            f"expected at least {FRAME_BYTES}; {_REMEDY}"
        )
    view = memoryview(value)
    stored = int.from_bytes(view[-4:], "little")
    computed = crc32c(view[:-4], crc32c(key, _FAMILY_CRC[family]))
    if stored != computed:
        raise StoreCorrupt(
            f"value in family {family} under key {key.hex()} has checksum {stored:08x}, "
            f"expected {computed:08x}; {_REMEDY}"
        )
    # The checksum is looked at first: a flipped version byte is damage, not a newer format.
    if value[0] > FORMAT_VERSION:
        raise FormatError(
            f"value in family {family} has format version {value[0]}, this warpmem reads up to "
            f"{FORMAT_VERSION}: it was written by a newer warpmem; upgrade the package"
        )
    if value[0] != FORMAT_VERSION:
        raise StoreCorrupt(
            f"value in family {family} under key {key.hex()} has format version {value[0]}, "
            f"expected {FORMAT_VERSION}; {_REMEDY}"
        )
    return view[1:-4]


# -------------------------------------------------------------------------------------------- keys


def _time(micros: int) -> bytes:
    return (micros + _TIME_OFFSET).to_bytes(8, "big")


def log_key(sequence: int) -> bytes:
    """Family log: 8 bytes."""
    return sequence.to_bytes(8, "big")


def read_log_key(key: bytes) -> int:
    """The sequence number inside a log key. Raises StoreCorrupt on a wrong length."""
    return int.from_bytes(_sized("log", key, 8), "big")


def item_key(key: bytes) -> bytes:
    """Family items: the item's own 20 bytes."""
    return key


def vector_key(key: bytes, version: int) -> bytes:
    """Family vectors: item key, version; 24 bytes."""
    return key + version.to_bytes(4, "big")


def history_key(key: bytes, version: int) -> bytes:
    """Family history: item key, version; 24 bytes."""
    return key + version.to_bytes(4, "big")


def read_version_key(family: str, key: bytes) -> tuple[bytes, int]:
    """(item key, version) of a key of vectors or history. Raises StoreCorrupt on a wrong length."""
    _sized(family, key, VERSION_KEY_BYTES)
    return key[:KEY_BYTES], int.from_bytes(key[KEY_BYTES:], "big")


def owner_name_key(digest: bytes) -> bytes:
    """Family owners: digest of type and id -> number; 17 bytes."""
    return b"n" + digest


def owner_state_key(owner: int) -> bytes:
    """Family owners: number -> name and counters; 5 bytes."""
    return b"s" + owner_prefix(owner)


def read_owner_state_key(key: bytes) -> int:
    """The owner number of an owner_state_key. Raises StoreCorrupt on a wrong length."""
    return int.from_bytes(_sized("owners", key, 1 + OWNER_BYTES)[1:], "big")


def listing_key(owner: int, valid_from: int, unique: bytes) -> bytes:
    """Family listing: owner, time, the last 16 bytes of the item key; 28 bytes. `valid_from` is signed."""
    return owner_prefix(owner) + _time(valid_from) + unique


def read_listing_key(key: bytes) -> tuple[int, bytes]:
    """(valid_from, item key) of a listing key. Raises StoreCorrupt on a wrong length."""
    _sized("listing", key, OWNER_BYTES + 8 + 16)
    return int.from_bytes(key[4:12], "big") - _TIME_OFFSET, key[:OWNER_BYTES] + key[12:]


def lookup_key(owner: int, tag: bytes, digest: bytes, suffix: bytes = b"") -> bytes:
    """Family lookup: owner, tag (DUPLICATE, SLOT or IDEMPOTENCY), digest, suffix; 21 bytes, 45 for a SLOT."""
    return owner_prefix(owner) + tag + digest + suffix


def slot_suffix(valid_from: int, unique: bytes) -> bytes:
    """The suffix of a SLOT key: time, the last 16 bytes of the item key; 24 bytes."""
    return _time(valid_from) + unique


def read_slot_suffix(key: bytes) -> tuple[int, bytes]:
    """(valid_from, item key) of a SLOT key of family lookup. Raises StoreCorrupt on a wrong length."""
    _sized("lookup", key, OWNER_BYTES + 1 + 16 + 24)
    return int.from_bytes(key[21:29], "big") - _TIME_OFFSET, key[:OWNER_BYTES] + key[29:]


def remembered_key(owner: int, at: int, digest: bytes) -> bytes:
    """Family lookup, tag REMEMBERED: owner, tag, time, digest of an IDEMPOTENCY entry; 29 bytes."""
    return owner_prefix(owner) + REMEMBERED + _time(at) + digest


def read_remembered_key(key: bytes) -> tuple[int, bytes]:
    """(time, digest) of a REMEMBERED key. Raises StoreCorrupt on a wrong length."""
    _sized("lookup", key, OWNER_BYTES + 1 + 8 + 16)
    return int.from_bytes(key[5:13], "big") - _TIME_OFFSET, key[13:]


def work_prefix(kind: WorkKind, head: bytes = b"") -> bytes:
    """What the keys of family jobs begin with that name work of a kind, for an owner or an item (`head`)."""
    return WORK + WORK_KINDS[kind] + head


def work_key(kind: WorkKind, key: bytes, version: int) -> bytes:
    """Family jobs: tag WORK, kind, item key, version; 26 bytes."""
    return work_prefix(kind, key) + version.to_bytes(4, "big")


def read_work_key(key: bytes) -> tuple[bytes, int]:
    """(item key, version) of a work_key. Raises StoreCorrupt on a wrong length."""
    _sized("jobs", key, WORK_KEY_BYTES)
    return key[2 : 2 + KEY_BYTES], int.from_bytes(key[2 + KEY_BYTES :], "big")


def prefix_range(prefix: bytes) -> tuple[bytes, bytes]:
    """(start, stop) of all keys that begin with `prefix`.

    A prefix of 0xff only has no successor of its own length; its stop is 64 bytes of 0xff, above every
    key of the format (the longest has 45 bytes).
    """
    head = prefix.rstrip(b"\xff")
    if not head:
        return prefix, KEYS_END
    return prefix, head[:-1] + bytes([head[-1] + 1])


def _sized(family: str, key: bytes, size: int) -> bytes:
    if len(key) != size:
        raise StoreCorrupt(
            f"key {key.hex()} in family {family} has {len(key)} bytes, expected {size}; {_REMEDY}"
        )
    return key
