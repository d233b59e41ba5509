"""Item ids: an owner number and a UUIDv7 (RFC 9562) in 20 bytes, shown as 32 characters.

The text form is base32hex in lower case: it keeps byte order and has no punctuation. 20 bytes are exactly
32 characters, so there is no padding. An id alone finds its item: the first four bytes are its partition.
"""

from __future__ import annotations

import os
import re
import struct
import threading
from collections.abc import Sequence

from ..errors import NotFound

KEY_BYTES = 20
ID_CHARACTERS = 32
OWNER_BYTES = 4
_RANDOM_BYTES = 8
_KEYS_AT_ONCE = 128
_MOST_MILLISECONDS = (1 << 48) - 1
_LOW = (1 << 62) - 1
MAX_OWNER = (1 << 32) - 1
_DIGITS = "0123456789abcdefghijklmnopqrstuv"
_is_text_form = re.compile(f"[{_DIGITS}]{{{ID_CHARACTERS}}}").fullmatch
_PAIRS = tuple(high + low for high in _DIGITS for low in _DIGITS)
_fives = struct.Struct(">BIBIBIBI").unpack
_key = struct.Struct(">IQQ").pack
_randoms = struct.Struct(f">{_KEYS_AT_ONCE}Q").unpack


def format_id(key: bytes) -> str:
    """The text form of a 20-byte item key."""
    # Five bytes are four pairs of characters; base64.b32hexencode is pure Python and takes twice as long.
    pairs = _PAIRS
    a, b, c, d, e, f, g, h = _fives(key)
    a, c, e, g = a << 32 | b, c << 32 | d, e << 32 | f, g << 32 | h
    return (
        f"{pairs[a >> 30]}{pairs[a >> 20 & 1023]}{pairs[a >> 10 & 1023]}{pairs[a & 1023]}"
        f"{pairs[c >> 30]}{pairs[c >> 20 & 1023]}{pairs[c >> 10 & 1023]}{pairs[c & 1023]}"
        f"{pairs[e >> 30]}{pairs[e >> 20 & 1023]}{pairs[e >> 10 & 1023]}{pairs[e & 1023]}"
        f"{pairs[g >> 30]}{pairs[g >> 20 & 1023]}{pairs[g >> 10 & 1023]}{pairs[g & 1023]}"
    )


def parse_id(item_id: str) -> bytes:
    """The 20-byte key of an id's text form. Raises NotFound: what is no id names no item."""
    if isinstance(item_id, str) and _is_text_form(item_id):
        return int(item_id, 32).to_bytes(KEY_BYTES, "big")
    raise NotFound("no such item: an id has 32 characters from 0-9 and a-v")


def is_id(source: str) -> bool:
    """Whether a source of an item is an item's id."""
    try:
        parse_id(source)
    except NotFound:
        return False
    return True


def origins(sources: Sequence[str]) -> frozenset[str]:
    """Those sources of an item that are no items: names of where it came from."""
    return frozenset(source for source in sources if not is_id(source))


def owner_of(key: bytes) -> int:
    """The owner number inside an item key."""
    return int.from_bytes(key[:OWNER_BYTES], "big")


def owner_prefix(owner: int) -> bytes:
    """The first bytes of every key of an owner."""
    return owner.to_bytes(OWNER_BYTES, "big")


def key_time(key: bytes) -> int:
    """The microseconds inside an item key, to the millisecond."""
    return int.from_bytes(key[OWNER_BYTES : OWNER_BYTES + 6], "big") * 1000


class KeyMaker:
    """Makes item keys that ascend within one process even when the clock does not. Thread-safe.

    UUIDv7 layout: 48 bits of milliseconds, version, 12 bits of counter (rand_a), variant, 62 random bits.
    """

    def __init__(self, after: int = 0) -> None:
        """`after`: microseconds of the last key that another maker may have made."""
        self._lock = threading.Lock()
        self._last = ((after // 1000) << 12) | 0xFFF
        self._random: list[int] = []

    def make(self, owner: int, micros: int) -> bytes:
        """A new key for `owner` at time `micros`."""
        with self._lock:
            tick = max((micros // 1000) << 12, self._last + 1)
            self._last = tick
            # Asked for many keys at a time: the call lets other threads run, and coming back can take long.
            if not self._random:
                self._random = list(_randoms(os.urandom(_RANDOM_BYTES * _KEYS_AT_ONCE)))
            random = self._random.pop()
        milliseconds, counter = tick >> 12 & _MOST_MILLISECONDS, tick & 0xFFF
        return _key(owner, milliseconds << 16 | 0x7000 | counter, 1 << 63 | random & _LOW)
