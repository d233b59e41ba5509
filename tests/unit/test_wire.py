"""What goes from a following process to the one that writes, and back."""

from __future__ import annotations

import contextlib
import enum
import random
import socket
import threading
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from warpmem import Extraction, Message, NewItem, NewRelation, Scope, errors
from warpmem.errors import InputError, InvalidText, WarpmemError
from warpmem.ops import wire
from warpmem.types import MemoryItem

NOON = datetime(2026, 3, 1, 12, 0, 0, 5, timezone(timedelta(hours=5, minutes=30)))


def there_and_back(value: Any) -> Any:
    return wire.decoded(wire.encoded(value))


texts = st.text(st.characters(exclude_categories=["Cs"]))
single = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.binary() | texts
moments = st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.replace(fold=0))
times = st.dates() | st.timedeltas() | moments


def several(inner: Any) -> Any:
    return st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(texts | st.integers(), inner)


plain = st.recursive(single | times, several, max_leaves=20)


@given(plain)
def test_values_come_back_as_they_were(value: Any) -> None:
    found = there_and_back(value)
    assert found == value and repr(found) == repr(value)


@pytest.mark.parametrize(
    "value",
    [
        NewItem(text="a", scope=Scope(user_id="u"), metadata={"n": 1 << 70}, valid_from=NOON),
        Message(role="user", content="hello", at=NOON),
        NewRelation(subject="Ada", predicate="lives in", object="Porto"),
        Extraction(instructions="Remember.", kinds={"fact": "what is so"}),
        [UNSET, NOON, date(2026, 3, 1), Path("a/b"), timedelta(days=-3, microseconds=7)],
    ],
)  # fmt: skip
def test_things_of_the_package_do(value: Any) -> None:
    found = there_and_back(value)
    assert found == value and repr(found) == repr(value)


def test_a_time_keeps_its_offset() -> None:
    assert there_and_back(NOON).utcoffset() == timedelta(hours=5, minutes=30)


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.int8, np.float64])
@pytest.mark.parametrize("shape", [(3,), (2, 3), (0, 4)])
def test_arrays_do(kind: Any, shape: tuple[int, ...]) -> None:
    value = np.arange(np.prod(shape)).reshape(shape).astype(kind)
    found = there_and_back(value[::-1])
    assert found.dtype == kind and found.shape == shape
    np.testing.assert_array_equal(found, value[::-1])


def test_what_is_like_a_plain_value_becomes_one() -> None:
    class Colour(enum.StrEnum):
        RED = "red"

    given = [Colour.RED, np.float32(0.5), np.int64(3), np.bool_(True), bytearray(b"x"), memoryview(b"y")]
    assert there_and_back(given) == ["red", 0.5, 3, True, b"x", b"y"]
    assert [type(value) for value in there_and_back(given)] == [str, float, int, bool, bytes, bytes]


def _made(kind: type[WarpmemError]) -> WarpmemError:
    values = {"path": "a.b", "reason": "r", "kind": "k", "expected": 1, "actual": 2, "why": "w",
              "retry_after": 1.5, "message": "m"}  # fmt: skip
    code = kind.__init__.__code__ if hasattr(kind.__init__, "__code__") else None
    names = code.co_varnames[1 : code.co_argcount] if code else ()
    return kind(*(values[name] for name in names if name in values)) if names else kind("m")


@pytest.mark.parametrize(
    "kind", [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, WarpmemError)]
)
def test_every_error_does(kind: type[WarpmemError]) -> None:
    error = _made(kind)
    found = there_and_back(error)
    assert type(found) is kind and str(found) == str(error) and vars(found) == vars(error)


def test_an_error_of_others_is_told_by_its_kind_alone() -> None:
    told = there_and_back(wire.error_of(KeyError("what was said")))
    assert type(told) is RuntimeError and "KeyError" in str(told) and "said" not in str(told)


class Other(msgspec.Struct):
    text: str


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (object(), InputError),
        (Other("x"), InputError),
        ({1, 2}, InputError),
        (print, InputError),
        (np.array([object()]), InputError),
        ("\ud800", InvalidText),
    ],
)
def test_what_goes_nowhere_is_refused(value: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        wire.encoded([value])


def test_what_is_nested_without_end_is_refused() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(InputError, match="nested"):
        wire.encoded(value)


def test_bytes_that_are_no_value_are_malformed() -> None:
    rng = random.Random(5)
    whole = wire.encoded([NewItem(text="a"), NOON, np.ones(4), (1, 2), InputError("x")])
    for _ in range(5_000):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        with contextlib.suppress(wire.Malformed):
            wire.decoded(bytes(damaged[: rng.randrange(1, len(damaged) + 1)]))


@pytest.mark.parametrize("name", ["Popen", "MemoryError2", "Memory", "Path"])
def test_nothing_else_is_made(name: str) -> None:
    for code in (7, 9):
        content = msgspec.msgpack.encode([name, ["x"], {}] if code == 9 else [name, {}])
        with pytest.raises(wire.Malformed):
            wire.decoded(msgspec.msgpack.encode(msgspec.msgpack.Ext(code, content)))


def test_frames_come_whole() -> None:
    here, there = socket.socketpair()
    with here, there:
        data = bytes(range(256)) * 20_000
        sending = threading.Thread(target=lambda: [wire.send(here, data), wire.send(here, b"")])
        sending.start()
        assert wire.receive(there) == data and wire.receive(there) == b""
        sending.join()
        here.sendall(b"\0\0\0\5ab")
        here.close()
        with pytest.raises(ConnectionResetError):
            wire.receive(there)


def test_a_frame_that_is_too_long_is_not_waited_for() -> None:
    here, there = socket.socketpair()
    with here, there:
        here.sendall(b"\xff\xff\xff\xff")
        with pytest.raises(wire.Malformed):
            wire.receive(there)


def test_structs_are_those_of_the_package() -> None:
    assert wire.STRUCTS["MemoryItem"] is MemoryItem and "ErasureReceipt" in wire.STRUCTS
