"""Damage on disk is refused or caught, never read as if it were data; an ordinary torn end is neither."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from durability.changes import MEMTABLE_BYTES, last_sequence, operations, read_all
from warpmem.errors import StoreCorrupt, StoreReadOnly
from warpmem.storage.rocks import RocksEngine

CHANGES = 120
FLIPS = 30


def add_changes(engine: RocksEngine, count: int, rng: random.Random) -> None:
    last = last_sequence(engine)
    for sequence in range(last + 1, last + count + 1):
        engine.write(operations(sequence, rng.randbytes(8), rng.randrange(200)))


def open_and_read(path: Path, memtable_bytes: int = MEMTABLE_BYTES) -> dict[int, bytes]:
    engine = RocksEngine(path, memtable_bytes=memtable_bytes, min_free_bytes=0)
    try:
        return read_all(engine)
    finally:
        engine.close()


@pytest.fixture(scope="module")
def in_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store as a crash leaves it: everything in the write-ahead log."""
    path = tmp_path_factory.mktemp("in-log")
    engine = RocksEngine(path / "live", min_free_bytes=0)
    add_changes(engine, CHANGES, random.Random(1))
    engine.sync()
    shutil.copytree(path / "live", path / "copy")
    engine.close()
    return path / "copy"


@pytest.fixture(scope="module")
def in_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store closed cleanly: everything in tables."""
    path = tmp_path_factory.mktemp("in-tables") / "store"
    for seed in range(3):
        engine = RocksEngine(path, min_free_bytes=0)
        add_changes(engine, CHANGES // 3, random.Random(seed))
        engine.close()
    return path


def flip(file: Path, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


def outcome_of_flip(template: Path, target: Path, pattern: str, rng: random.Random) -> str:
    """Flip one bit in one file; "caught" when StoreCorrupt says so, "harmless" when all reads as before."""
    expected = open_and_read(shutil.copytree(template, target / "whole"))
    assert len(expected) == CHANGES
    shutil.rmtree(target / "whole")
    damaged = shutil.copytree(template, target / "damaged")
    files = sorted(file for file in damaged.glob(pattern) if file.stat().st_size)
    file = rng.choice(files)
    bit = rng.randrange(8 * file.stat().st_size)
    flip(file, bit)
    try:
        found = open_and_read(damaged)
    except StoreCorrupt:
        return "caught"
    except StoreReadOnly as error:
        # A compaction met the damage first, and close() says why it could not move the log into tables.
        if not isinstance(error.__cause__, StoreCorrupt):
            raise
        return "caught"
    finally:
        shutil.rmtree(damaged)
    assert found == expected, (
        f"{file.name} bit {bit}: {len(found)} of {len(expected)} changes read, in silence"
    )
    return "harmless"


@pytest.mark.parametrize(
    ("store", "pattern", "least_caught"),
    [
        ("in_log", "*.log", FLIPS),  # every byte of a log matters
        ("in_tables", "*.sst", FLIPS // 3),  # some bytes of a table are properties that nobody reads
        ("in_tables", "MANIFEST-*", FLIPS // 3),
    ],
)
def test_one_flipped_bit(
    request: pytest.FixtureRequest, tmp_path: Path, store: str, pattern: str, least_caught: int
) -> None:
    template: Path = request.getfixturevalue(store)
    outcomes = [
        outcome_of_flip(template, tmp_path, pattern, random.Random(f"{pattern} {n}")) for n in range(FLIPS)
    ]
    assert outcomes.count("caught") >= least_caught, outcomes


def test_a_value_moved_to_another_key_is_caught(tmp_path: Path) -> None:
    # RocksDB's checksums hold here; the frame's does not.
    engine = RocksEngine(tmp_path, min_free_bytes=0)
    add_changes(engine, 3, random.Random(3))
    (first, one), (second, two), *_ = engine.scan("items", b"", b"\xff" * 64)
    engine.write([("items", first, two), ("items", second, one)])
    with pytest.raises(StoreCorrupt, match="checksum"):
        read_all(engine)
    engine.close()


def test_a_torn_end_of_the_log_keeps_everything_before_it(tmp_path: Path) -> None:
    rng = random.Random(7)
    engine = RocksEngine(tmp_path / "live", min_free_bytes=0)
    add_changes(engine, 40, rng)
    engine.sync()
    durable = read_all(engine)
    (log,) = (tmp_path / "live").glob("*.log")
    safe = log.stat().st_size
    add_changes(engine, 40, rng)
    written = read_all(engine)
    shutil.copytree(tmp_path / "live", tmp_path / "copy")
    engine.close()
    size = (tmp_path / "copy" / log.name).stat().st_size
    kept = set()
    for cut in sorted(rng.randrange(safe, size) for _ in range(30)):
        torn = shutil.copytree(tmp_path / "copy", tmp_path / "torn")
        with (torn / log.name).open("r+b") as file:
            file.truncate(cut)
        found = open_and_read(torn)
        assert len(found) >= len(durable), f"cut at {cut}"
        assert found == {n: written[n] for n in range(1, len(found) + 1)}, f"cut at {cut}"
        assert open_and_read(torn) == found
        kept.add(len(found))
        shutil.rmtree(torn)
    assert len(kept) > 10


def test_a_log_that_is_gone_is_refused(tmp_path: Path) -> None:
    rng = random.Random(9)
    engine = RocksEngine(tmp_path / "live", memtable_bytes=1 << 20, min_free_bytes=0)
    add_changes(engine, 40, rng)
    engine._families["items"].flush()  # begins a new log; the old one still holds the other families
    add_changes(engine, 40, rng)
    engine.sync()
    shutil.copytree(tmp_path / "live", tmp_path / "copy")
    engine.close()
    logs = sorted((tmp_path / "copy").glob("*.log"))
    assert len(logs) == 2
    assert len(open_and_read(shutil.copytree(tmp_path / "copy", tmp_path / "whole"))) == 80
    logs[0].unlink()
    with pytest.raises(StoreCorrupt, match="restore the directory from a backup"):
        open_and_read(tmp_path / "copy")


@pytest.mark.parametrize("pattern", ["*.sst", "MANIFEST-*"])
def test_a_missing_file_is_refused(in_tables: Path, tmp_path: Path, pattern: str) -> None:
    store = shutil.copytree(in_tables, tmp_path / "store")
    next(store.glob(pattern)).unlink()
    with pytest.raises(StoreCorrupt, match="restore the directory from a backup"):
        open_and_read(store)


def test_damage_found_by_a_read_only_open_is_typed_too(in_log: Path, tmp_path: Path) -> None:
    store = shutil.copytree(in_log, tmp_path / "store")
    (log,) = store.glob("*.log")
    flip(log, 8 * (log.stat().st_size // 2))
    with pytest.raises(StoreCorrupt):
        RocksEngine(store, read_only=True)
