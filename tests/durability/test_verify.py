"""Verify finds every way in which the families of a store can disagree, and finds nothing in whole ones."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import warpmem
from durability.damage import make_live_store, make_store
from warpmem.errors import InputError
from warpmem.records import LogEntry
from warpmem.storage import codec
from warpmem.storage.erasure_values import stub
from warpmem.storage.rocks import RocksEngine
from warpmem.storage.values import (
    HistoryValue,
    ItemValue,
    OwnerValue,
    decode,
    decode_row,
    encode,
    encode_row,
)

DIMENSION = 256
DISK = "16m"


@dataclasses.dataclass
class Store:
    """The entries of a store, to be changed one by one with whole checksums."""

    engine: RocksEngine

    def keys(self, family: str, where: Callable[[bytes], bool] = lambda key: True) -> list[bytes]:
        return [key for key, _ in self.engine.scan(family, b"", b"\xff" * 64) if where(key)]

    def remove(self, family: str, key: bytes) -> None:
        self.engine.write([(family, key, None)])

    def put(self, family: str, key: bytes, payload: bytes) -> None:
        self.engine.write([(family, key, codec.seal(family, key, payload))])

    def payload(self, family: str, key: bytes) -> bytes:
        stored = self.engine.get(family, key)
        assert stored is not None
        return bytes(codec.unseal(family, key, stored))

    def change(self, family: str, key: bytes, kind: Any, **fields: Any) -> None:
        value = decode(self.payload(family, key), kind)
        self.put(family, key, encode(msgspec.structs.replace(value, **fields)))

    def live(self) -> bytes:
        """An item with a key, an earlier version and no deletion mark."""
        past = {key[:20] for key in self.keys("history")}
        for key in self.keys("items"):
            if key in past and decode(self.payload("items", key), ItemValue).key is not None:
                return key
        raise AssertionError("no such item")

    def deleted(self) -> bytes:
        live = set(self.keys("items"))
        return next(key[:20] for key in self.keys("history") if key[:20] not in live)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("verify") / "store"
    with warpmem.open(path, embedder="hashing", min_free_bytes=0) as memory:
        first = memory.add("lives in Porto", user_id="ann", key="city")
        memory.update(first.id, text="lives in Porto, near the river")
        memory.add("reads novels", user_id="ann", idempotency_key="call")
        memory.add("is a duplicate", user_id="bob")
        memory.add("is a duplicate", user_id="bob")
        wrong = memory.add("wrong", user_id="bob")
        memory.update(wrong.id, text="wronger")
        memory.delete(wrong.id)
    return path


def row(store: Store, key: bytes, change: Callable[[Any], Any]) -> None:
    item, version = codec.read_version_key("vectors", key)
    payload = store.payload("vectors", key)
    store.put("vectors", key, encode_row(change(decode_row(item, version, payload, DIMENSION))))


def tag(which: bytes) -> Callable[[bytes], bool]:
    return lambda key: key[4:5] == which


def last_log(store: Store) -> bytes:
    return store.keys("log")[-1]


FAULTS: dict[str, tuple[Callable[[Store], None], str, str]] = {
    "an item is gone": (lambda s: s.remove("items", s.live()), "history", "neither there nor deleted"),
    "an item of another version": (
        lambda s: s.change("items", s.live(), ItemValue, version=7),
        "log",
        "version 2 of entry 2 is not there",
    ),
    "an item of another owner": (
        lambda s: s.change("items", s.live(), ItemValue, scope=("bob", None, None, None)),
        "items",
        "not of the owner",
    ),
    "an item that ended": (
        lambda s: s.change("items", s.live(), ItemValue, retired_at=5),
        "items",
        "end of knowledge",
    ),
    "an item that does not decode": (lambda s: s.put("items", s.live(), b"\x01"), "items", "does not decode"),
    "a value elsewhere": (
        lambda s: s.engine.write([("items", s.keys("items")[0], s.engine.get("items", s.keys("items")[1]))]),
        "items",
        "has checksum",
    ),
    "a past version is gone": (
        lambda s: s.remove("history", codec.history_key(s.live(), 1)),
        "log",
        "version 1 of entry 1 is not there",
    ),
    "a past version too many": (
        lambda s: s.put(
            "history", codec.history_key(s.live(), 2), s.payload("history", codec.history_key(s.live(), 1))
        ),
        "history",
        "version 1 stands as version 2",
    ),
    "a mark of deletion on what is there": (
        lambda s: s.put("history", codec.history_key(s.live(), 3), encode(HistoryValue("delete", 1, None))),
        "history",
        "says that the item was deleted",
    ),
    "a mark of deletion is gone": (
        lambda s: s.remove("history", codec.history_key(s.deleted(), 3)),
        "log",
        "deletes what is not deleted",
    ),
    "a vector is gone": (
        lambda s: s.remove("vectors", codec.vector_key(s.live(), 1)),
        "vectors",
        "version 1 has no vector",
    ),
    "a vector too many": (
        lambda s: s.put(
            "vectors", codec.vector_key(s.deleted(), 1), s.payload("vectors", s.keys("vectors")[0])
        ),
        "vectors",
        "has a vector, but is not there",
    ),
    "a vector of zeros": (
        lambda s: row(
            s, s.keys("vectors")[0], lambda r: msgspec.structs.replace(r, vector=np.zeros(DIMENSION, "<f4"))
        ),
        "vectors",
        "nothing says that it is to get one",
    ),
    "a vector that is not of length 1": (
        lambda s: row(
            s, s.keys("vectors")[0], lambda r: msgspec.structs.replace(r, vector=np.ones(DIMENSION, "<f4"))
        ),
        "vectors",
        "not of length 1",
    ),
    "a vector with other times": (
        lambda s: row(s, s.keys("vectors")[0], lambda r: msgspec.structs.replace(r, valid_from=3)),
        "vectors",
        "other things than the item",
    ),
    "a vector of another length": (
        lambda s: s.put("vectors", s.keys("vectors")[0], s.payload("vectors", s.keys("vectors")[0])[:-4]),
        "vectors",
        "bytes, expected",
    ),
    "a listing is gone": (lambda s: s.remove("listing", s.keys("listing")[0]), "listing", "it is missing"),
    "a listing too many": (
        lambda s: s.put("listing", b"\0\0\0\1" + bytes(24), b""),
        "listing",
        "4 entries for 3",
    ),
    "a slot is gone": (
        lambda s: s.remove("lookup", s.keys("lookup", tag(b"k"))[0]),
        "lookup",
        "it is missing",
    ),
    "a slot too many": (
        lambda s: s.put("lookup", b"\0\0\0\1k" + bytes(40), b""),
        "lookup",
        "2 entries of key slots for 1",
    ),
    "a duplicate is gone": (
        lambda s: s.remove("lookup", s.keys("lookup", tag(b"d"))[0]),
        "lookup",
        "not found as a duplicate",
    ),
    "a duplicate too many": (
        lambda s: s.put("lookup", b"\0\0\0\1d" + bytes(16), bytes(16)),
        "lookup",
        "4 items are found as duplicates",
    ),
    "an outcome is gone": (
        lambda s: s.remove("lookup", s.keys("lookup", tag(b"i"))[0]),
        "lookup",
        "outcome that it names is missing",
    ),
    "an outcome without a time": (
        lambda s: s.remove("lookup", s.keys("lookup", tag(b"t"))[0]),
        "lookup",
        "1 outcomes of idempotent calls, 0",
    ),
    "an owner counts wrong": (
        lambda s: s.change("owners", codec.owner_state_key(1), OwnerValue, items=9),
        "owners",
        "counts 9 items and has 2",
    ),
    "an owner's ordinals begin anew": (
        lambda s: s.change("owners", codec.owner_state_key(1), OwnerValue, next_ordinal=0),
        "owners",
        "next_ordinal 0",
    ),
    "an owner of another name": (
        lambda s: s.change("owners", codec.owner_state_key(1), OwnerValue, id="eve"),
        "owners",
        "does not lead to it",
    ),
    "an owner is gone": (
        lambda s: s.remove("owners", codec.owner_state_key(1)),
        "owners",
        "1 names more than owners",
    ),
    "an owner's name is gone": (
        lambda s: s.remove("owners", s.keys("owners", lambda k: k[:1] == b"n")[0]),
        "owners",
        "does not lead to it",
    ),
    "a log entry is gone": (lambda s: s.remove("log", codec.log_key(3)), "log", "entries 3 to 3 are missing"),
    "the first log entry is gone": (
        lambda s: s.remove("log", codec.log_key(1)),
        "log",
        "entries 1 to 1 are missing",
    ),
    "the last log entry is gone": (
        lambda s: s.remove("log", last_log(s)),
        "log",
        "the last entry counts 4 items",
    ),
    "a log entry elsewhere": (
        lambda s: s.put("log", codec.log_key(2), s.payload("log", codec.log_key(3))),
        "log",
        "entry 3 stands at 2",
    ),
    "a log entry goes back in time": (
        lambda s: s.change("log", codec.log_key(4), LogEntry, at=5),
        "log",
        "entry 4 is earlier than the one before it",
    ),
    "a log entry counts wrong": (
        lambda s: s.change("log", codec.log_key(4), LogEntry, items=9),
        "log",
        "entry 4 counts 9 items, not 3",
    ),
    "a log entry of nothing": (
        lambda s: s.change("log", codec.log_key(2), LogEntry, version=9),
        "log",
        "version 9 of entry 2 is not there",
    ),
    "a version without a log entry": (
        lambda s: s.change("log", codec.log_key(2), LogEntry, operation="touch"),
        "log",
        "no entry tells of version 2",
    ),
    "a log entry that does not decode": (
        lambda s: s.put("log", codec.log_key(2), b"\x01"),
        "log",
        "does not decode",
    ),
    "the identity is gone": (lambda s: s.remove("meta", b"identity"), "meta", "identity is missing"),
    "the identity is damaged": (lambda s: s.put("meta", b"identity", b"\x01"), "meta", "does not decode"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(template: Path, tmp_path: Path, name: str) -> None:
    change, family, what = FAULTS[name]
    path = shutil.copytree(template, tmp_path / "store")
    engine = RocksEngine(path, min_free_bytes=0)
    change(Store(engine))
    engine.close()
    report = warpmem.verify(path)
    assert not report.ok and report.opened
    assert [fault for fault in report.faults if fault.family == family and what in fault.what], report.faults


def test_a_whole_store_has_no_fault(template: Path, tmp_path: Path) -> None:
    before = {file.name: file.read_bytes() for file in template.iterdir()}
    report = warpmem.verify(template)
    assert report.ok and report.complete and report.faults == ()
    assert (report.items, report.owners, report.sequence) == (3, 2, 8)
    expected = {
        "log": 8,
        "items": 3,
        "vectors": 4,
        "history": 4,
        "owners": 4,
        "listing": 3,
        "lookup": 6,
        "meta": 3,  # the identity, and what was spent on each owner
    }
    assert report.entries == {family: expected.get(family, 0) for family in codec.FAMILIES}
    assert {file.name: file.read_bytes() for file in template.iterdir()} == before
    make_store(tmp_path / "large", 3, items=200)
    make_live_store(tmp_path / "live", 4)
    seen: list[str] = []
    for name in ("large", "live"):
        report = warpmem.verify(tmp_path / name, progress=lambda what, count: seen.append(what))
        assert report.ok, report.faults


def test_vectors_that_are_not_in_use_are_found(template: Path, tmp_path: Path) -> None:
    path = shutil.copytree(template, tmp_path / "store")
    engine = RocksEngine(path, min_free_bytes=0)
    store = Store(engine)
    store.put("vectors_b", store.keys("vectors")[0], store.payload("vectors", store.keys("vectors")[0]))
    engine.close()
    assert [fault.what for fault in warpmem.verify(path).faults] == ["1 vectors that are not in use"]


def test_faults_name_the_item(template: Path, tmp_path: Path) -> None:
    path = shutil.copytree(template, tmp_path / "store")
    engine = RocksEngine(path, min_free_bytes=0)
    store = Store(engine)
    key = store.live()
    store.remove("listing", next(k for k in store.keys("listing") if k[12:] == key[4:]))
    engine.close()
    with warpmem.open(path, read_only=True) as memory:
        (item,) = (item for item in memory.list(user_id="ann") if item.key == "city")
    fault = warpmem.verify(path).faults[0]
    assert fault.id == item.id and fault.key is not None


def test_beside_a_writer_and_with_a_limit(template: Path, tmp_path: Path) -> None:
    path = shutil.copytree(template, tmp_path / "store")
    with warpmem.open(path, embedder="hashing", min_free_bytes=0) as memory:
        memory.add("in the log only", user_id="ann")
        assert warpmem.verify(path).items == 4
    engine = RocksEngine(path, min_free_bytes=0)
    engine.write([("items", key, b"broken") for key in Store(engine).keys("items")])
    engine.close()
    report = warpmem.verify(path, limit=2)
    assert len(report.faults) == 2 and report.more >= 2 and not report.ok
    with pytest.raises(InputError):
        warpmem.verify(5)  # type: ignore[arg-type]


def test_with_a_block_that_cannot_be_read_both_sides_of_it_are(tmp_path: Path) -> None:
    make_store(tmp_path / "store", 3, items=400, memtable_bytes=4 << 20)
    whole = warpmem.verify(tmp_path / "store")
    table = max((tmp_path / "store").glob("*.sst"), key=lambda file: file.stat().st_size)
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 1
    table.write_bytes(data)
    report = warpmem.verify(tmp_path / "store")
    assert not report.ok and not report.complete
    assert any(table.name in fault.what for fault in report.faults), report.faults
    assert whole.entries["vectors"] - 20 < report.entries["vectors"] < whole.entries["vectors"]


def test_an_unfinished_erasure_is_no_fault_and_not_ok(template: Path, tmp_path: Path) -> None:
    path = shutil.copytree(template, tmp_path / "store")
    engine = RocksEngine(path, min_free_bytes=0)
    Store(engine).put("meta", b"erase" + bytes(20), b"\x90")
    engine.close()
    report = warpmem.verify(path)
    assert (report.ok, report.complete, report.faults) == (False, False, ())


def test_a_deleted_item_may_lack_the_version_before_its_deletion(template: Path, tmp_path: Path) -> None:
    """As after a repair that did not find it: then its entry in the log is a stub."""
    path = shutil.copytree(template, tmp_path / "store")
    engine = RocksEngine(path, min_free_bytes=0)
    store = Store(engine)
    item = store.deleted()
    store.remove("history", codec.history_key(item, 2))
    entries = {key: decode(store.payload("log", key), LogEntry) for key in store.keys("log")}
    made = next(key for key, entry in entries.items() if (entry.key, entry.version) == (item, 2))
    assert entries[made].operation == "update"
    engine.close()
    assert "is not there" in str(warpmem.verify(path).faults)
    engine = RocksEngine(path, min_free_bytes=0)
    Store(engine).put("log", made, encode(stub(entries[made])))
    engine.close()
    report = warpmem.verify(path)
    assert report.ok, report.faults


def test_on_a_full_disk(template: Path, small_disk: Path) -> None:
    path = shutil.copytree(template, small_disk / "store")
    with (small_disk / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    assert warpmem.verify(path).ok
