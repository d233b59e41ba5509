"""The engine contract, for every engine, and what only the engine on disk does."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engines import everything
from warpmem.errors import (
    DiskFull,
    StoreClosed,
    StoreError,
    StoreReadOnly,
)
from warpmem.protocols import Engine
from warpmem.storage.codec import FAMILIES
from warpmem.storage.memory import MemoryEngine
from warpmem.storage.rocks import RocksEngine

Opener = Callable[[], Engine]


@pytest.fixture(params=["rocks", "memory"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    made: Engine = (
        RocksEngine(tmp_path / "store", min_free_bytes=0) if request.param == "rocks" else MemoryEngine()
    )
    yield made
    made.close()


# ---------------------------------------------------------------------------------------- contract


def test_get_and_get_many(engine: Engine) -> None:
    engine.write([("items", b"a", b"1"), ("log", b"a", b"2"), ("items", b"b", b"")])
    assert engine.get("items", b"a") == b"1"
    assert engine.get("log", b"a") == b"2"
    assert engine.get("items", b"b") == b""
    assert engine.get("meta", b"a") is None
    assert engine.get_many("items", [b"b", b"missing", b"a", b"b"]) == [b"", None, b"1", b""]
    assert engine.get_many("items", []) == []


def test_operations_apply_in_order(engine: Engine) -> None:
    engine.write([("items", b"a", b"1"), ("items", b"a", None), ("items", b"a", b"2"), ("items", b"b", b"x")])
    engine.write([("items", b"b", b"y"), ("items", b"b", None), ("items", b"absent", None)])
    assert everything(engine, "items") == [(b"a", b"2")]
    engine.write([])


def test_a_write_is_all_or_nothing(engine: Engine) -> None:
    engine.write([("items", b"a", b"1")])
    for bad in (("nowhere", b"k", b"v"), ("items", "text", b"v"), ("items", b"k", 7)):
        with pytest.raises((KeyError, TypeError, ValueError)):
            engine.write([("items", b"a", b"2"), ("items", b"c", b"3"), bad])  # type: ignore[list-item]
    assert everything(engine, "items") == [(b"a", b"1")]
    engine.write([("items", b"c", b"3")])
    assert engine.get("items", b"c") == b"3"


def test_scan_bounds(engine: Engine) -> None:
    keys = [b"", b"\0", b"a", b"aa", b"ab", b"b", b"b\xff", b"c", b"\xff\xff"]
    engine.write([("items", key, key + b"!") for key in keys])
    for start in (b"", b"a", b"ab", b"b", b"zz"):
        for stop in (b"", b"a", b"b", b"b\xff", b"c", b"\xff" * 9):
            expected = [(key, key + b"!") for key in keys if start <= key < stop]
            assert list(engine.scan("items", start, stop)) == expected
            assert list(engine.scan("items", start, stop, reverse=True)) == expected[::-1]
            for size in (1, 2, 3, 100):
                chunks = list(engine.chunks("items", start, stop, size))
                assert all(1 <= len(keys) == len(values) <= size for keys, values in chunks)
                entries = [entry for keys, values in chunks for entry in zip(keys, values, strict=True)]
                assert entries == expected


def test_scan_is_from_one_moment(engine: Engine) -> None:
    engine.write([("items", b"%03d" % i, b"old") for i in range(100)])
    forward, backward = engine.scan("items", b"", b"\xff"), engine.scan("items", b"", b"\xff", reverse=True)
    engine.write([("items", b"%03d" % i, None if i % 2 else b"new") for i in range(100)])
    engine.write([("items", b"050x", b"new")])
    old = [(b"%03d" % i, b"old") for i in range(100)]
    assert list(forward) == old
    assert list(backward) == old[::-1]
    assert [value for _, value in everything(engine, "items")] == [b"new"] * 51


@pytest.mark.parametrize("seed", [1, 2])
def test_random_operations_agree_with_a_dict(engine: Engine, seed: int) -> None:
    rng = random.Random(seed)
    model: dict[str, dict[bytes, bytes]] = {family: {} for family in FAMILIES}
    for _ in range(300):
        operations: list[tuple[str, bytes, bytes | None]] = []
        for _ in range(rng.randrange(1, 8)):
            family, key = rng.choice(FAMILIES), rng.randbytes(rng.randrange(1, 3))
            value = None if rng.random() < 0.4 else rng.randbytes(rng.randrange(40))
            operations.append((family, key, value))
            if value is None:
                model[family].pop(key, None)
            else:
                model[family][key] = value
        engine.write(operations)
        start, stop = sorted((rng.randbytes(1), rng.randbytes(2)))
        family = rng.choice(FAMILIES)
        expected = [(key, model[family][key]) for key in sorted(model[family]) if start <= key < stop]
        assert list(engine.scan(family, start, stop)) == expected, f"seed {seed}"
    for family in FAMILIES:
        assert everything(engine, family) == sorted(model[family].items()), f"seed {seed}"


def test_use_after_close(engine: Engine) -> None:
    engine.write([("items", b"%d" % i, b"x") for i in range(10)])
    scan = engine.scan("items", b"", b"\xff")
    next(scan)
    engine.close()
    engine.close()
    uses: list[Callable[[], Any]] = [
        lambda: engine.get("items", b"1"),
        lambda: engine.get_many("items", [b"1"]),
        lambda: list(engine.scan("items", b"", b"\xff")),
        lambda: next(scan),
        lambda: engine.write([("items", b"1", b"y")]),
        engine.sync,
        engine.sizes,
    ]
    for use in uses:
        with pytest.raises(StoreClosed, match="open it again"):
            use()


def test_unknown_families_are_programming_errors(engine: Engine) -> None:
    for use in (lambda: engine.get("events", b"a"), lambda: list(engine.scan("events2", b"", b"\xff"))):
        with pytest.raises(KeyError, match="expected one of"):
            use()


def test_clear_empties_one_family_and_a_later_write_stays(engine: Engine) -> None:
    engine.write([(family, b"%d" % i, b"x") for i in range(10) for family in ("vectors_b", "vectors")])
    engine.clear("vectors_b")
    assert everything(engine, "vectors_b") == [] and engine.get("vectors_b", b"3") is None
    assert len(everything(engine, "vectors")) == 10
    engine.write([("vectors_b", b"3", b"y")])
    engine.sync()
    assert everything(engine, "vectors_b") == [(b"3", b"y")]


def test_sizes_are_bytes(engine: Engine) -> None:
    engine.write([("items", b"%d" % i, b"x" * 1000) for i in range(100)])
    sizes = engine.sizes()
    assert sum(sizes.values()) >= 100_000
    assert all(isinstance(size, int) and size >= 0 for size in sizes.values())


def test_concurrent_readers_see_whole_writes(engine: Engine) -> None:
    engine.write([("items", b"a", b"0"), ("log", b"a", b"0")])
    stop = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not stop.is_set():
            pairs = list(engine.scan("items", b"", b"\xff"))
            if len({value for _, value in pairs}) != 1 or len(pairs) not in (1, 3):
                wrong.append(pairs)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(500):
        value = b"%d" % i
        engine.write([("items", key, value) for key in (b"a", b"b", b"c")])
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


# ------------------------------------------------------------------------------------------ faults


def test_memory_engine_faults() -> None:
    engine = MemoryEngine()
    engine.fail_after(2, DiskFull("no room"))
    engine.write([("items", b"a", b"1")])
    engine.write([("items", b"b", b"1")])
    for _ in range(2):
        with pytest.raises(DiskFull, match="no room"):
            engine.write([("items", b"c", b"1"), ("items", b"a", b"2")])
    assert everything(engine, "items") == [(b"a", b"1"), (b"b", b"1")]
    engine.clear_faults()
    engine.write([("items", b"c", b"1")])
    engine.fail_sync(StoreError("I/O error"))
    with pytest.raises(StoreError, match="I/O error"):
        engine.sync()
    for _ in range(2):
        with pytest.raises(StoreReadOnly, match=r"I/O error.*open it again"):
            engine.write([("items", b"d", b"1")])
        with pytest.raises(StoreReadOnly):
            engine.sync()
    assert engine.get("items", b"c") == b"1"


def write_and_sync(engine: RocksEngine) -> None:
    engine.write([("items", b"b", b"1")])
    engine.sync()


class FailingDatabase:
    """A RocksDB handle whose chosen method fails as rocksdict would."""

    def __init__(self, database: Any, method: str, text: str) -> None:
        self._database = database
        self._method = method
        self._text = text

    def __getattr__(self, name: str) -> Any:
        if name == self._method:

            def fail(*_: object) -> None:
                raise Exception(self._text)

            return fail
        return getattr(self._database, name)


@pytest.mark.parametrize(
    ("method", "text", "first"),
    [
        ("write", "IO error: While appending to file: 000004.log: Input/output error", StoreReadOnly),
        ("write", "IO error: No space left on device: While appending to file: 000004.log", DiskFull),
        ("write", "Corruption: block checksum mismatch", StoreReadOnly),
        ("flush_wal", "IO error: While fdatasync: 000004.log: Input/output error", StoreReadOnly),
        ("flush_wal", "IO error: No space left on device: While fdatasync: 000004.log", DiskFull),
    ],
)
def test_a_failed_write_or_sync_stops_writes_for_good(
    tmp_path: Path, method: str, text: str, first: type[StoreError]
) -> None:
    engine = RocksEngine(tmp_path, min_free_bytes=0)
    engine.write([("items", b"a", b"1")])
    engine.sync()
    database = engine._db
    engine._db = FailingDatabase(database, method, text)
    with pytest.raises(first, match="open it again"):
        write_and_sync(engine)
    engine._db = database  # the disk is well again, and yet nothing may be trusted
    with pytest.raises(StoreReadOnly, match=r"writes stopped after a failed (write|sync).*open it again"):
        engine.write([("items", b"c", b"1")])
    with pytest.raises(StoreReadOnly):
        engine.sync()
    assert engine.get("items", b"a") == b"1"
    assert (b"a", b"1") in everything(engine, "items")
    del database
    engine.close()
    with_again = RocksEngine(tmp_path, min_free_bytes=0)
    assert with_again.get("items", b"a") == b"1"
    assert with_again.get("items", b"c") is None
    with_again.write([("items", b"c", b"1")])
    with_again.close()
