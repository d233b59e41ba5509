"""The readers of RocksDB's files: exactly what the engine reads, and nothing invented from hostile bytes."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import pytest

from durability.damage import make_live_store, make_store
from warpmem.records import LogEntry
from warpmem.storage import codec
from warpmem.storage.crc import crc32c
from warpmem.storage.files import FileReader
from warpmem.storage.reports import Faults
from warpmem.storage.rocks import RocksEngine
from warpmem.storage.salvage_logs import LogReader, _masked, read_batches
from warpmem.storage.salvage_tables import Entry, TableReader, decompress
from warpmem.storage.values import encode


@pytest.fixture(scope="module", params=["closed", "live"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("salvage") / request.param
    if request.param == "live":
        make_live_store(path, 7, items=150)
    else:
        # Enough for compactions, and so for tables of several blocks with deletions.
        make_store(path, 7, items=400, memtable_bytes=16 << 10)
    return path


def read_files(path: Path) -> dict[tuple[str, bytes], bytes | None]:
    newest: dict[tuple[str, bytes], Entry] = {}
    for entry in FileReader(str(path), Faults(0), lambda name, count: None):
        known = newest.get(entry[:2])
        if known is None or known.order < entry.order:
            newest[entry[:2]] = entry
    return {name: entry.value for name, entry in newest.items()}


def test_files_hold_what_the_engine_reads(store: Path) -> None:
    engine = RocksEngine(store, read_only=True)
    expected = {
        (family, key): value
        for family in codec.FAMILIES
        for key, value in engine.scan(family, b"", b"\xff" * 64)
    }
    engine.close()
    found = read_files(store)
    assert {name: value for name, value in found.items() if value is not None} == expected
    assert any(value is None for value in found.values()), "there are no deletions to be read"


def test_damage_never_makes_an_entry(store: Path) -> None:
    """Whatever happens to a file, every value read from it was in it before, under that key."""
    rng = random.Random(3)
    files = [file for file in store.iterdir() if file.suffix in (".sst", ".log") and file.stat().st_size]
    for _ in range(60):
        file = rng.choice(files)
        data = bytearray(file.read_bytes())
        whole = {(entry.family, entry.key, entry.value) for entry in read(file.suffix, bytes(data))}
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(data))
            how = rng.randrange(4)
            if how == 0:
                data[at] ^= 1 << rng.randrange(8)
            elif how == 1:
                data[at : at + 300] = bytes(len(data[at : at + 300]))
            elif how == 2:
                del data[at : at + rng.randrange(200)]
            else:
                data[at:at] = rng.randbytes(rng.randrange(100))
            if not data:
                break
        for entry in read(file.suffix, bytes(data)):
            if entry.value is not None:
                assert (entry.family, entry.key, entry.value) in whole


def read(suffix: str, data: bytes) -> list[Entry]:
    if suffix == ".sst":
        return list(TableReader(data))
    return list(read_batches(iter(LogReader(data)), {}))


def test_random_bytes_give_nothing_and_take_no_time() -> None:
    began = time.monotonic()
    for seed in range(60):
        rng = random.Random(seed)
        data = rng.randbytes(rng.randrange(5000))
        if seed % 2:  # the beginnings of blocks and records everywhere
            data = bytes(rng.choice((0, 0, 1, 9, 16, 255, rng.randrange(256))) for _ in range(2000))
        for suffix in (".sst", ".log"):
            assert [entry for entry in read(suffix, data) if entry.value is not None] == []
        assert len(decompress(data, 0, 100)[0]) <= 100
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("block", "size", "content"),
    [
        (b"\x50hello", 5, b"hello"),
        (b"\x1fa\x01\x00\x02\x50bcdef", 27, b"a" * 22 + b"bcdef"),  # a match that overlaps itself
        (b"\x44abcd\x02\x00\x50vwxyz", 17, b"abcd" + b"cdcdcdcd" + b"vwxyz"),
        (b"\xf0\x05" + b"x" * 20, 20, b"x" * 20),
    ],
)
def test_lz4(block: bytes, size: int, content: bytes) -> None:
    assert decompress(b"?" + block + b"rest", 1, size) == (content, 1 + len(block))
    for cut in range(len(block)):
        part, end = decompress(block[:cut], 0, size)
        assert end == 0 and content.startswith(part)


def test_a_match_from_before_the_beginning_is_damage() -> None:
    assert decompress(b"\x10a\x05\x00", 0, 9) == (b"a", 0)
    assert decompress(b"\x10a\x00\x00", 0, 9) == (b"a", 0)


def test_a_torn_end_and_damage_are_told_apart(tmp_path: Path, store: Path) -> None:
    data = log_of(batch_of(1, 4), batch_of(5, 4), batch_of(9, 4))
    middle = len(data) // 2
    for change, damaged, torn in (
        (data, False, False),
        (data[:-3], False, True),
        (data[:middle] + b"\xa5" * 10 + data[middle + 10 :], True, False),
        (data + bytes(500), False, False),
    ):
        reader = LogReader(change)
        count = sum(record.whole for record in reader)
        assert (reader.damaged > 0, reader.torn) == (damaged, torn), (len(change), count)
    shutil.copytree(store, tmp_path / "copy")
    faults = Faults(10)
    (tmp_path / "copy" / "000999.log").write_bytes(data[:-3])
    list(FileReader(str(tmp_path / "copy"), faults, lambda name, count: None))
    assert faults.listed == []


def block(*entries: tuple[bytes, int, bytes]) -> bytes:
    """A block as it stands in a table, not compressed: (user key, RocksDB's order, value), nothing shared."""
    data = b""
    for key, order, value in entries:
        name = key + order.to_bytes(8, "little")
        data += bytes([0, len(name), len(value)]) + name + value
    return data + bytes(4) + (1).to_bytes(4, "little") + b"\0????"


def test_a_deletion_is_believed_only_where_all_around_it_is_whole() -> None:
    first, second = codec.log_key(1), codec.log_key(2)
    value = codec.seal("log", second, b"payload")
    gone = (first, 7 << 8, b"")
    sound = list(TableReader(block(gone, (second, 8 << 8 | 1, value))))
    assert [(entry.key, entry.value) for entry in sound] == [(first, None), (second, value)]
    third = codec.seal("log", codec.log_key(3), b"payload")[:-1] + b"?"
    damaged = list(
        TableReader(block(gone, (second, 8 << 8 | 1, value), (codec.log_key(3), 9 << 8 | 1, third)))
    )
    assert [entry.value for entry in damaged] == [value]


def test_a_table_of_deletions_alone_says_whose_they_are(tmp_path: Path) -> None:
    engine = RocksEngine(tmp_path, min_free_bytes=0)
    engine.write([("meta", b"one", codec.seal("meta", b"one", b"")), ("items", b"two", b"")])
    for family in ("meta", "items"):
        engine._families[family].flush()
    before = set(tmp_path.glob("*.sst"))
    engine.write([("meta", b"one", None), ("items", b"two", None)])
    engine.close()
    found = {
        (entry.family, entry.key, entry.value)
        for table in set(tmp_path.glob("*.sst")) - before
        for entry in TableReader(table.read_bytes())
    }
    assert found == {("meta", b"one", None), ("items", b"two", None)}
    for table in set(tmp_path.glob("*.sst")) - before:
        data = table.read_bytes().replace(b"name", b"game")
        assert list(TableReader(data)) == [], "of no known family: not believed"


def log_of(*batches: bytes) -> bytes:
    """A write-ahead log with these batches, its records parted at the ends of blocks."""
    data = b""
    for batch in batches:
        at = 0
        while True:
            room = (32 << 10) - len(data) % (32 << 10)
            if room < 7:
                data += bytes(room)
                continue
            part = batch[at : at + room - 7]
            first, last = at == 0, at + len(part) == len(batch)
            kind = bytes([1 if first and last else 2 if first else 4 if last else 3])
            data += _masked(crc32c(kind + part)).to_bytes(4, "little") + len(part).to_bytes(2, "little")
            data += kind + part
            at += len(part)
            if last:
                break
    return data


def batch_of(sequence: int, count: int) -> bytes:
    """A batch of `count` values of 3,000 bytes in family items."""
    batch = sequence.to_bytes(8, "little") + count.to_bytes(4, "little")
    for number in range(sequence, sequence + count):
        key = codec.item_key(number.to_bytes(20, "big"))
        value = codec.seal("items", key, random.Random(number).randbytes(3000))
        batch += bytes([1, len(key)]) + key
        batch += bytes([len(value) & 127 | 128, len(value) >> 7]) + value
    return batch


def change_of(sequence: int, *, unsynced: bool) -> bytes:
    """A batch with the log entry of a change."""
    key = codec.log_key(sequence)
    entry = LogEntry(sequence, 7, "add", bytes(20), 1, ("ann", None, None, None), 1, unsynced)
    value = codec.seal("log", key, encode(entry))
    batch = sequence.to_bytes(8, "little") + (1).to_bytes(4, "little")
    return batch + bytes([1, len(key)]) + key + bytes([len(value)]) + value


def test_a_batch_that_never_reached_the_disk_is_left_out_whole() -> None:
    first, second = batch_of(1, 2), batch_of(3, 30)
    log = log_of(first, second)
    middle = (len(log) - 40_000) // 512 * 512
    zeroed = log[:middle] + bytes(512) + log[middle + 512 :]
    from_its_begin = log[:6077] + bytes(6144 - 6077) + log[6144:]  # what shares its sector was on the disk
    block = log[: 32 << 10] + bytes(32 << 10) + log[64 << 10 :]
    to_a_border = log[: 60 << 10] + bytes(4 << 10) + log[64 << 10 :]
    flipped = log[:middle] + bytes([log[middle] ^ 1]) + log[middle + 1 :]
    chance = log[: middle + 100] + bytes(300) + log[middle + 400 :]

    def values(data: bytes, witnessed: bool) -> int:
        return len(list(read_batches(iter(LogReader(data)), {}, witnessed=witnessed)))

    def followed(data: bytes, batch: bytes) -> bytes:
        return data + log_of(first, second, batch)[len(log) :]

    assert values(log, False) == 32
    for unwritten in (zeroed, from_its_begin, block, to_a_border):
        assert values(unwritten, False) == 2
        assert 2 < values(unwritten, True) < 32 or unwritten is from_its_begin
        assert values(followed(unwritten, batch_of(33, 1)), False) == 3, "written, but no witness"
        assert values(followed(unwritten, change_of(33, unsynced=True)), False) == 3
        witnessed = followed(unwritten, change_of(33, unsynced=False))
        assert values(witnessed, False) == values(unwritten, True) + 1
    cut = log[:middle]
    assert values(cut, False) == 2 < values(cut, True) < 32
    near = len(log) - 20_000
    last = log[:near] + bytes([log[near] ^ 1]) + log[near + 1 :]
    for damaged in (flipped, chance, last):
        assert 2 < values(damaged, False) < 32, "damage, wherever it stands"
    alone = log_of(batch_of(1, 5))
    reader = LogReader(alone[:9000] + bytes([alone[9000] ^ 1]) + alone[9001:])
    assert 0 < len(list(read_batches(iter(reader), {}, witnessed=False))) < 5
    assert reader.damaged and not reader.torn
    assert values(log_of(first, second, batch_of(33, 1))[:-2], False) == 32


def test_a_batch_without_its_middle_is_not_whole() -> None:
    log = log_of(batch_of(1, 30))
    first, _, *rest = LogReader(log).parts()
    assert first.kind == 2 and [part.kind for part in rest] == [4]
    missing = log[: 32 << 10] + bytes(32 << 10) + log[64 << 10 :]
    reader = LogReader(missing)
    assert not any(record.whole for record in reader)
    assert reader.damaged == (32 << 10) + len(log) - (64 << 10)
