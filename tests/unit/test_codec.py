"""Frames and keys: what is sealed comes back, what was tampered with does not; byte order is value order."""

from __future__ import annotations

import random
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warpmem.errors import FormatError, StoreCorrupt
from warpmem.ops.ids import format_id
from warpmem.records import LogEntry, StoreIdentity
from warpmem.storage import codec
from warpmem.storage.crc import crc32c, crc32c_table
from warpmem.storage.values import HistoryValue, ItemValue, OwnerValue, RememberedValue, decode, decode_row

KEY = bytes(range(20))
FAMILY = st.sampled_from(codec.FAMILIES)
UUID = st.binary(min_size=16, max_size=16)
MICROS = st.integers(-(1 << 63), (1 << 63) - 1)
U32 = st.integers(0, (1 << 32) - 1)


def reference_crc32c(data: bytes) -> int:
    """Bit by bit, from the polynomial's definition (Castagnoli, reflected)."""
    crc = 0xFFFFFFFF
    for byte in data:
        for bit in range(8):
            mixed = (crc ^ byte >> bit) & 1
            crc = crc >> 1 ^ (0x82F63B78 if mixed else 0)
    return crc ^ 0xFFFFFFFF


def test_crc32c_known_vectors() -> None:
    # RFC 3720 appendix B.4 and the usual check value.
    for data, expected in (
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ):
        assert crc32c(data) == expected
        assert crc32c_table(data) == expected


@given(st.binary(max_size=300), st.integers(0, 300))
def test_crc32c_agrees_and_continues(data: bytes, cut: int) -> None:
    expected = reference_crc32c(data)
    for function in (crc32c, crc32c_table):
        assert function(data) == expected
        assert function(data[cut:], function(data[:cut])) == expected
        assert function(memoryview(data)) == expected


@given(FAMILY, st.binary(min_size=1, max_size=45), st.binary(max_size=400))
def test_seal_round_trip(family: str, key: bytes, payload: bytes) -> None:
    value = codec.seal(family, key, payload)
    assert bytes(codec.unseal(family, key, value)) == payload
    assert len(value) == len(payload) + codec.FRAME_BYTES


def test_seal_layout() -> None:
    value = codec.seal("items", KEY, b"abc")
    checksum = reference_crc32c(b"items\0" + KEY + b"\x01abc")
    assert value == b"\x01abc" + struct.pack("<I", checksum)


def test_every_single_bit_flip_is_caught() -> None:
    value = codec.seal("vectors", KEY, bytes(range(60)))
    for position in range(8 * len(value)):
        damaged = bytearray(value)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(StoreCorrupt):
            codec.unseal("vectors", KEY, bytes(damaged))


@given(FAMILY, FAMILY, st.binary(min_size=20, max_size=24), st.binary(min_size=20, max_size=24))
def test_a_value_in_the_wrong_place_is_caught(family: str, other: str, key: bytes, other_key: bytes) -> None:
    value = codec.seal(family, key, b"payload")
    if (family, key) != (other, other_key):
        with pytest.raises(StoreCorrupt):
            codec.unseal(other, other_key, value)


def test_the_border_between_family_and_key_is_covered() -> None:
    # "log" + key "x" against a family and key that concatenate to the same bytes.
    assert codec.seal("log", b"\0a", b"p") != codec.seal("log", b"a", b"p")


@pytest.mark.parametrize("value", [b"", b"\x01", b"\x01abc"])
def test_short_values_are_corrupt(value: bytes) -> None:
    with pytest.raises(StoreCorrupt, match=f"has {len(value)} bytes, expected at least 5"):
        codec.unseal("items", KEY, value)


def _sealed_as(version: int) -> bytes:
    body = bytes([version]) + b"payload"
    return body + struct.pack("<I", reference_crc32c(b"items\0" + KEY + body))


def test_a_newer_version_is_a_format_error() -> None:
    with pytest.raises(FormatError, match=r"version 2.*up to 1.*newer warpmem"):
        codec.unseal("items", KEY, _sealed_as(2))
    with pytest.raises(StoreCorrupt, match="version 0"):
        codec.unseal("items", KEY, _sealed_as(0))


def test_errors_show_the_key_and_not_the_content() -> None:
    value = bytearray(codec.seal("items", KEY, b"secret text"))
    value[3] ^= 1
    with pytest.raises(StoreCorrupt) as caught:
        codec.unseal("items", KEY, bytes(value))
    message = str(caught.value)
    assert "items" in message and KEY.hex() in message
    assert "secret" not in message and b"secret".hex() not in message


@given(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1))
def test_log_keys_keep_order(a: int, b: int) -> None:
    assert (codec.log_key(a) < codec.log_key(b)) == (a < b)
    assert codec.read_log_key(codec.log_key(a)) == a


@given(st.tuples(U32, MICROS, UUID), st.tuples(U32, MICROS, UUID))
def test_listing_keys_keep_order(a: tuple[int, int, bytes], b: tuple[int, int, bytes]) -> None:
    assert (codec.listing_key(*a) < codec.listing_key(*b)) == (a < b)
    owner, micros, unique = a
    assert codec.read_listing_key(codec.listing_key(*a)) == (micros, owner.to_bytes(4, "big") + unique)


@given(st.tuples(MICROS, UUID), st.tuples(MICROS, UUID))
def test_slot_keys_keep_order(a: tuple[int, bytes], b: tuple[int, bytes]) -> None:
    keys = [codec.lookup_key(7, codec.SLOT, bytes(16), codec.slot_suffix(*part)) for part in (a, b)]
    assert (keys[0] < keys[1]) == (a < b)
    assert codec.read_slot_suffix(keys[0]) == (a[0], (7).to_bytes(4, "big") + a[1])


@given(st.tuples(UUID, U32), st.tuples(UUID, U32))
def test_version_keys_keep_order(a: tuple[bytes, int], b: tuple[bytes, int]) -> None:
    for make, family in ((codec.vector_key, "vectors"), (codec.history_key, "history")):
        first, second = (make(b"\0\0\0\1" + unique, version) for unique, version in (a, b))
        assert (first < second) == (a < b)
        assert codec.read_version_key(family, first) == (b"\0\0\0\1" + a[0], a[1])


def test_key_shapes() -> None:
    digest = bytes(range(16))
    assert codec.item_key(KEY) == KEY
    assert codec.owner_name_key(digest) == b"n" + digest
    assert codec.owner_state_key(258) == b"s\0\0\1\2"
    assert codec.lookup_key(258, codec.DUPLICATE, digest) == b"\0\0\1\2d" + digest
    assert codec.lookup_key(258, codec.IDEMPOTENCY, digest) == b"\0\0\1\2i" + digest
    assert codec.listing_key(1, 0, KEY[4:]) == b"\0\0\0\1\x80" + bytes(7) + KEY[4:]


@pytest.mark.parametrize(
    "read",
    [
        codec.read_log_key,
        codec.read_listing_key,
        codec.read_slot_suffix,
        lambda key: codec.read_version_key("vectors", key),
    ],
)
def test_keys_of_a_wrong_length_are_corrupt(read) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(StoreCorrupt, match="has 3 bytes"):
        read(b"abc")


@settings(max_examples=300)
@given(st.binary(max_size=6) | st.integers(0, 6).map(lambda n: b"\xff" * n), st.binary(max_size=45))
def test_prefix_range_is_exactly_the_prefix(prefix: bytes, key: bytes) -> None:
    start, stop = codec.prefix_range(prefix)
    for candidate in (key, prefix + key, prefix, prefix + b"\xff" * 30):
        if len(candidate) <= 45:
            assert (start <= candidate < stop) == candidate.startswith(prefix)


def test_digest_parts_do_not_run_together() -> None:
    salt = bytes(16)
    digests = {
        codec.digest16(salt, b"ab", b"c"),
        codec.digest16(salt, b"a", b"bc"),
        codec.digest16(salt, b"abc"),
        codec.digest16(salt, b"abc", b""),
        codec.digest16(b"\1" * 16, b"abc"),
    }
    assert len(digests) == 5
    assert all(len(digest) == 16 for digest in digests)


def test_random_damage_is_caught() -> None:
    random_ = random.Random(4)
    value = codec.seal("log", codec.log_key(9), random_.randbytes(200))
    for _ in range(200):
        damaged = bytearray(value)
        start = random_.randrange(len(value))
        length = random_.randrange(1, 20)
        damaged[start : start + length] = random_.randbytes(len(damaged[start : start + length]))
        if bytes(damaged) != value:
            with pytest.raises(StoreCorrupt):
                codec.unseal("log", codec.log_key(9), bytes(damaged))
        with pytest.raises(StoreCorrupt):
            codec.unseal("log", codec.log_key(9), value[: random_.randrange(len(value))])


def test_the_example_of_formats_md_is_a_store() -> None:
    text = (Path(__file__).parents[2] / "FORMATS.md").read_text()
    block = text.split("## An example")[1].split("```")[1]
    entries: list[tuple[str, bytes, bytes]] = []
    for family, key, value in re.findall(
        r"^([a-z]+) +([0-9a-f ]+)\n((?: +[0-9a-f ]+\n)+)", block, re.MULTILINE
    ):
        entries.append((family, bytes.fromhex(key), bytes.fromhex(value)))
    assert len(entries) == block.count("         01 ") == 14
    assert {family for family, _, _ in entries} == set(codec.FAMILIES) - {"vectors_b", "jobs"}
    payloads = {(family, key): bytes(codec.unseal(family, key, value)) for family, key, value in entries}

    item_key = next(key for family, key in payloads if family == "items")
    item = decode(payloads["items", item_key], ItemValue)
    assert (item.text, item.version, item.operation) == ("Ada lives in Porto.", 2, "update")
    assert f"`{item_key.hex()}` is\n`{format_id(item_key)}`" in text
    first = decode(payloads["history", codec.history_key(item_key, 1)], HistoryValue)
    assert first.item is not None and first.item.text == "Ada lives in Lisbon."
    for version in (1, 2):
        key = codec.vector_key(item_key, version)
        row = decode_row(item_key, version, payloads["vectors", key], 4)
        assert row.vector.tolist() == [0.5] * 4
    assert [decode(payloads["log", codec.log_key(n)], LogEntry).operation for n in (1, 2)] == [
        "add",
        "update",
    ]
    assert decode(payloads["owners", codec.owner_state_key(1)], OwnerValue).id == "ada"
    assert payloads["listing", codec.listing_key(1, item.valid_from, item_key[4:])] == b""
    lookups = {key[4:5]: key for family, key in payloads if family == "lookup"}
    assert payloads["lookup", lookups[codec.DUPLICATE]] == item_key[4:]
    remembered = decode(payloads["lookup", lookups[codec.IDEMPOTENCY]], RememberedValue)
    digest = lookups[codec.IDEMPOTENCY][5:]
    assert codec.read_remembered_key(lookups[codec.REMEMBERED]) == (remembered.at, digest)
    assert codec.read_slot_suffix(lookups[codec.SLOT]) == (item.valid_from, item_key)
    assert remembered.result == [["added"]]
    identity = decode(payloads["meta", b"identity"], StoreIdentity)
    assert (identity.format, identity.dimension, identity.vectors) == (2, 4, "vectors")
    owner_digest = codec.digest16(identity.salt, b"owner", b"user", b"ada")
    assert payloads["owners", codec.owner_name_key(owner_digest)] == b"\0\0\0\1"
