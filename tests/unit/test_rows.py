"""Many stored rows at once: what one by one would give, and damage in any of them is found."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from warpmem.errors import FormatError, StoreCorrupt
from warpmem.records import Row
from warpmem.storage import codec, rows
from warpmem.storage.crc import open_rows
from warpmem.storage.memory import MemoryEngine
from warpmem.storage.rocks import RocksEngine
from warpmem.storage.values import encode_row

DIMENSION = 7


def sealed(n: int, seed: int = 1) -> tuple[list[bytes], list[bytes], list[Row]]:
    rng = np.random.default_rng(seed)
    keys, values, made = [], [], []
    for i in range(n):
        vector = rng.standard_normal(DIMENSION).astype(np.float32)
        row = Row(
            b"\0\0\0\1" + rng.bytes(16), i + 1, i, f"k {i % 3}", None if i % 2 else "agent", "é" * (i % 40),
            0.5, i, 9, -i, 8, 7, vector,
        )  # fmt: skip
        key = codec.vector_key(row.key, row.version)
        keys.append(key)
        values.append(codec.seal("vectors", key, encode_row(row)))
        made.append(row)
    return keys, values, made


@pytest.fixture(params=["native", "plain"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        monkeypatch.setattr(rows, "open_rows", None)
    elif open_rows is None:
        pytest.skip("the native module is not built")


@pytest.mark.usefixtures("path")
def test_rows_come_back() -> None:
    for n in (0, 1, 2, 65):
        keys, values, made = sealed(n)
        headers, vectors = rows.take_apart("vectors", keys, values, DIMENSION)
        assert len(headers) == len(vectors) == n
        for row, header, vector in zip(made, headers, vectors, strict=True):
            assert all(getattr(header, name) == getattr(row, name) for name in header.__struct_fields__)
            assert vector.tobytes() == row.vector.tobytes()


@pytest.mark.usefixtures("path")
def test_damage_in_any_row_is_found() -> None:
    rng = random.Random(4)
    keys, values, _ = sealed(9)
    for _ in range(200):
        at = rng.randrange(9)
        damaged = list(values)
        what = rng.choice(("flip", "cut", "grow", "empty", "swap"))
        value = bytearray(values[at])
        if what == "flip":
            bit = rng.randrange(8 * len(value))
            value[bit // 8] ^= 1 << bit % 8
        elif what == "cut":
            del value[rng.randrange(len(value)) :]
        elif what == "grow":
            value += b"\0"
        elif what == "empty":
            value.clear()
        else:
            value = bytearray(values[at - 1])
        damaged[at] = bytes(value)
        with pytest.raises(StoreCorrupt):
            rows.take_apart("vectors", keys, damaged, DIMENSION)
    with pytest.raises(StoreCorrupt, match="23 bytes"):
        rows.take_apart("vectors", [keys[0][:-1]], [values[0]], DIMENSION)
    with pytest.raises(StoreCorrupt, match="expected"):
        rows.take_apart("vectors", keys, values, DIMENSION + 1)  # another dimension than was stored


@pytest.mark.usefixtures("path")
def test_frames_that_are_whole_and_wrong_inside() -> None:
    keys, values, _ = sealed(3)

    def framed(payload: bytes, version: int = 1) -> bytes:
        body = bytes([version]) + payload
        crc = codec.crc32c(body, codec.crc32c(keys[1], codec.family_checksum("vectors")))
        return body + crc.to_bytes(4, "little")

    whole = bytes(codec.unseal("vectors", keys[1], values[1]))
    for bad, error in (
        (framed(whole, version=2), FormatError),
        (framed(whole, version=0), StoreCorrupt),
        (framed(b"\0"), StoreCorrupt),
        (framed(b"\xff\xff" + whole[2:]), StoreCorrupt),
        (framed(b"\0\0" + bytes(4 * DIMENSION)), StoreCorrupt),  # a header of no bytes
        (framed(b"\1\0\x93" + bytes(4 * DIMENSION)), StoreCorrupt),  # an array that is cut short
    ):
        with pytest.raises(error):
            rows.take_apart("vectors", keys, [values[0], bad, values[2]], DIMENSION)


def test_blocks_over_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_ROWS", 10)
    keys, values, _ = sealed(25)
    order = sorted(range(25), key=lambda i: keys[i])
    for engine in (MemoryEngine(), RocksEngine(tmp_path)):
        engine.write([("vectors", key, value) for key, value in zip(keys, values, strict=True)])
        found = list(rows.read_blocks(engine, "vectors", b"\0\0\0\1", b"\0\0\0\2", DIMENSION, metadata=False))
        assert [len(block.headers) for block in found] == [10, 10, 5]
        assert b"".join(block.names for block in found) == b"".join(keys[i] for i in order)
        engine.close()


def test_arguments_of_the_native_function_are_checked() -> None:
    if open_rows is None:
        pytest.skip("the native module is not built")
    for keys, values in (([b"a"], []), ([1], [b""]), ([b"a"], ["b"]), (b"ab", [b"a", b"b"])):
        with pytest.raises((TypeError, ValueError)):
            open_rows(keys, values, 0, 1, 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dimension"):
        open_rows([], [], 0, 1, 0)
