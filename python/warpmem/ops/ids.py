"""Item ids: an owner number and a UUIDv7 (RFC 9562) in 20 bytes, shown as 32 characters.

The text form is base32hex in lower case: it keeps byte order and has no punctuation. 20 bytes are exactly
32 characters, so there is no padding. An id alone finds its item: the first four bytes are its partition.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence

from ..errors import NotFound

KEY_BYTES = 20
ID_CHARACTERS = 32
OWNER_BYTES = 4
_RANDOM_BYTES = 8
_KEYS_AT_ONCE = 128
MAX_OWNER = (1 << 32) - 1
_DIGITS = "0123456789abcdefghijklmnopqrstuv"
_is_text_form = re.compile(f"[{_DIGITS}]{{{ID_CHARACTERS}}}").fullmatch
_PAIRS = tuple(high + low for high in _DIGITS for low in _DIGITS)


def format_id(key: bytes) -> str:
    """The text form of a 20-byte item key."""
    text: list[str] = []
    for at in range(0, KEY_BYTES, 5):
        # Five bytes are four pairs of characters; base64.b32hexencode is pure Python and takes twice as long.
        bits = int.from_bytes(key[at : at + 5], "big")
        text += _PAIRS[bits >> 30], _PAIRS[bits >> 20 & 1023], _PAIRS[bits >> 10 & 1023], _PAIRS[bits & 1023]
    return "".join(text)


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
        self._random = b""

    def make(self, owner: int, micros: int) -> bytes:
        """A new key for `owner` at time `micros`."""
        with self._lock:
            tick = max((micros // 1000) << 12, self._last + 1)
            self._last = tick
            # Asked for many keys at a time: the call lets other threads run, and coming back can take long.
            if not self._random:
                self._random = os.urandom(_RANDOM_BYTES * _KEYS_AT_ONCE)
            random, self._random = self._random[:_RANDOM_BYTES], self._random[_RANDOM_BYTES:]
        milliseconds, counter = tick >> 12, tick & 0xFFF
        low = int.from_bytes(random, "big") & ((1 << 62) - 1)
        value = (milliseconds & ((1 << 48) - 1)) << 80 | 0x7 << 76 | counter << 64 | 0b10 << 62 | low
        return owner_prefix(owner) + value.to_bytes(16, "big")
