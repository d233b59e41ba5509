"""The queue of what is still to be done, over each engine's keys."""

from __future__ import annotations

import pytest

from warpmem.errors import StoreCorrupt
from warpmem.ops.ids import owner_of
from warpmem.storage import codec
from warpmem.storage.memory import MemoryEngine
from warpmem.storage.values import WorkValue, encode
from warpmem.storage.work import StoreWork


def key(owner: int, number: int) -> bytes:
    return owner.to_bytes(4, "big") + number.to_bytes(16, "big")


def put(engine: MemoryEngine, owner: int, number: int, version: int = 1) -> None:
    name = codec.work_key("embed", key(owner, number), version)
    engine.write([("jobs", name, codec.seal("jobs", name, encode(WorkValue(number))))])


@pytest.fixture
def engine() -> MemoryEngine:
    made = MemoryEngine()
    made.write([("jobs", b"reembed", b"no record of work"), ("jobs", b"x" * 26, b"nor this")])
    return made


def test_a_key_names_an_item_and_a_version(engine: MemoryEngine) -> None:
    name = codec.work_key("embed", key(7, 8), 9)
    assert name == b"we" + key(7, 8) + b"\0\0\0\x09" and codec.read_work_key(name) == (key(7, 8), 9)
    with pytest.raises(StoreCorrupt):
        codec.read_work_key(name[:-1])


def test_each_owner_gets_its_turn(engine: MemoryEngine) -> None:
    """One who has much to do does not keep another waiting."""
    for number in range(100):
        put(engine, 1, number)
    for owner in (2, 5):
        for number in range(20):
            put(engine, owner, number)
    found = list(StoreWork(engine).walk("embed"))
    owners = [owner_of(work.key) for work in found]
    assert owners[:52] == [1] * 16 + [2] * 16 + [5] * 16 + [1] * 4
    assert len({(work.key, work.version) for work in found}) == len(found) == 140
    assert [work.key for work in found if owner_of(work.key) == 1] == [key(1, n) for n in range(100)]


def test_what_comes_and_goes_during_a_walk(engine: MemoryEngine) -> None:
    for number in range(40):
        put(engine, 1, number)
    seen = []
    for work in StoreWork(engine).walk("embed"):
        seen.append(work.since)
        engine.write([("jobs", codec.work_key("embed", work.key, work.version), None)])
        if len(seen) == 5:
            put(engine, 1, 1000)
            put(engine, 3, 7)
    assert sorted(seen) == sorted([*range(40), 1000, 7])


def test_everything_in_order_with_its_versions(engine: MemoryEngine) -> None:
    for version in (3, 1, 2):
        put(engine, 4, 1, version)
    put(engine, 2, 9)
    found = [(owner_of(work.key), work.version, work.refused) for work in StoreWork(engine).all("embed")]
    assert found == [(2, 1, ""), (4, 1, ""), (4, 2, ""), (4, 3, "")]


def test_nothing_waits_in_an_empty_queue(engine: MemoryEngine) -> None:
    assert list(StoreWork(engine).walk("embed")) == list(StoreWork(engine).all("embed")) == []
