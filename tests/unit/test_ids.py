"""Item ids: text form, order, and keys that ascend."""

from __future__ import annotations

import base64
import random

import pytest

from warpmem.errors import NotFound
from warpmem.ops.ids import KeyMaker, format_id, key_time, owner_of, parse_id


def test_the_text_form_is_lower_case_base32hex() -> None:
    rng = random.Random(1)
    for key in [b"\0" * 20, b"\xff" * 20, *(rng.randbytes(20) for _ in range(500))]:
        text = format_id(key)
        assert text == base64.b32hexencode(key).decode().lower()
        assert parse_id(text) == key


@pytest.mark.parametrize("text", ["", "0" * 31, "0" * 33, "w" * 32, "A" * 32, "\u0660" * 32])
def test_what_is_no_id_names_no_item(text: str) -> None:
    with pytest.raises(NotFound):
        parse_id(text)


def test_keys_ascend_whatever_the_clock_does() -> None:
    maker = KeyMaker()
    times = [5_000_000, 5_000_000, 4_000_000, 5_000_001, 9_000_000] * 300
    keys = [maker.make(7, now) for now in times]
    assert keys == sorted(keys) and len(set(keys)) == len(keys)
    assert {owner_of(key) for key in keys} == {7}
    later = KeyMaker(key_time(keys[-1])).make(7, 0)
    assert later > keys[-1]


def test_random_parts_do_not_repeat() -> None:
    """They are drawn for many keys at a time; each goes into one key only."""
    maker = KeyMaker()
    low = [int.from_bytes(maker.make(1, 0)[-8:], "big") & ((1 << 62) - 1) for _ in range(1000)]
    assert len(set(low)) == 1000
    assert max(low).bit_length() > 60
