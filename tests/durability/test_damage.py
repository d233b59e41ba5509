"""Damage on disk is refused or caught, never read as if it were data; an ordinary torn end is neither."""

from __future__ import annotations

import builtins
import io
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from durability.changes import MEMTABLE_BYTES, last_sequence, operations, read_all
from durability.damage import headers
from warpmem.errors import StoreCorrupt, StoreReadOnly
from warpmem.storage.crc import crc32c
from warpmem.storage.log_check import check_logs
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


@pytest.mark.parametrize(("store", "pattern"), [("in_log", "*.log"), ("in_tables", "MANIFEST-*")])
@pytest.mark.parametrize("which", [0, 1, -2])
@pytest.mark.parametrize("place", [4, 5, 6])
def test_every_bit_of_a_header(
    request: pytest.FixtureRequest, tmp_path: Path, store: str, pattern: str, which: int, place: int
) -> None:
    """One bit of the kind of a log's first record, and RocksDB left out the whole log in silence; of a later
    one, and nobody could open the store, or verify it, in finite time. Of a length near the end, and all
    records behind it were left out."""
    damaged = shutil.copytree(request.getfixturevalue(store), tmp_path / "damaged")
    (file,) = (file for file in damaged.glob(pattern) if file.stat().st_size)
    at = headers(file.read_bytes())[which] + place
    for bit in range(8):
        flip(file, 8 * at + bit)
        with pytest.raises(StoreCorrupt):
            RocksEngine(damaged, read_only=True, min_free_bytes=0)
        with pytest.raises(StoreCorrupt):
            RocksEngine(damaged, min_free_bytes=0)
        flip(file, 8 * at + bit)
    if store == "in_tables":
        assert len(open_and_read(damaged)) == CHANGES


@pytest.mark.parametrize(
    ("records", "wrong"),
    [
        ([(1, b"one"), (1, b"two")], None),
        ([(1, b"x" * 40_000), (1, b"two")], None),
        ([(1, b"one"), (0, b""), (1, b"behind unused space")], "byte 10 was never written"),
        ([(1, b"one"), (0, b"\0" * 90_000)], None),
        ([(1, b"one"), (0, b"\0" * 495), (1, b"a sector behind")], None),
        ([(1, b"one"), (0, b"\0" * 494), (1, b"within the sector")], "byte 10 was never written"),
        ([(1, b"x" * 505), (0, b"\0" * 2000), (1, b"of whole sectors")], "byte 512 was never written"),
        ([(1, b"x" * 505), (0, b"\0" * 40_000), (1, b"in another block")], "byte 512 was never written"),
        ([(1, b"one"), (5, b"two")], "byte 10 is of a kind"),
        ([(131, b"one")], "byte 0 is of a kind"),
        ([(1, b"one"), (1, b"two", 500)], None),
        ([(1, b"one"), (1, b"two", 500), (1, b"three")], "byte 10 ends beyond"),
        ([(1, b"one"), (1, b"two", 500), (1, b"three", 900)], None),
    ],
)
def test_what_a_log_is_refused_for(tmp_path: Path, records: list[Any], wrong: str | None) -> None:
    """(kind, content, length that is claimed). A torn end is none, whatever it looks like."""
    data = bytearray()
    for kind, content, *claimed in records:
        if kind == 0:
            data += bytes(7) + content
            continue
        room = (32 << 10) - 7 - len(data) % (32 << 10)
        parts = [content] if len(content) <= room else [content[:room], content[room:]]
        for number, part in enumerate(parts):
            body = bytes([kind if len(parts) == 1 else 2 + 2 * number]) + part
            checksum = crc32c(body)
            masked = ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF
            length = claimed[0] if claimed else len(part)
            data += masked.to_bytes(4, "little") + length.to_bytes(2, "little") + body
    (tmp_path / "000004.log").write_bytes(data)
    (tmp_path / "LOG").write_bytes(b"\x05" * 100)
    if wrong is None:
        check_logs(str(tmp_path))
    else:
        with pytest.raises(StoreCorrupt, match=wrong):
            check_logs(str(tmp_path))


def test_a_zeroed_header_is_no_end(in_log: Path, tmp_path: Path) -> None:
    """RocksDB took it for space that was never used, and left out what came behind it in silence."""
    damaged = shutil.copytree(in_log, tmp_path / "damaged")
    (file,) = (file for file in damaged.glob("*.log") if file.stat().st_size)
    data = bytearray(file.read_bytes())
    at = headers(data)[CHANGES // 2]
    data[at + 4 : at + 7] = bytes(3)
    file.write_bytes(data)
    with pytest.raises(StoreCorrupt, match="was never written, and others follow"):
        RocksEngine(damaged, min_free_bytes=0)


def test_a_log_that_grows_while_it_is_looked_at_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came after the first look was read as if a block began there, in the middle of a record."""

    class Growing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            found = super().read(size)
            at = self.tell()
            self.seek(0, io.SEEK_END)
            self.write(b"\x05" * 100)
            self.seek(at)
            return found

    (tmp_path / "000004.log").write_bytes(b"")
    monkeypatch.setattr(builtins, "open", lambda *arguments: Growing(b"\0" * 50))
    check_logs(str(tmp_path))


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
