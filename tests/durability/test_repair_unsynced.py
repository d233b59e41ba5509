"""What repair makes of changes that a loss of power kept from the disk, beside others that are whole.

Changes of one group are synced together. Before that, any sector of any of them may be missing, and nobody
was told that one of them is stored."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import warpmem
from durability.damage import read_contents
from warpmem.storage.rocks import RocksEngine
from warpmem.types import Durability

SECTOR = 512


def added(memory: warpmem.Memory, name: str, durability: Durability = "os") -> None:
    texts = [f"{name} {n} " + f"{n * 7919:06d} " * 20 for n in range(100)]
    memory.add(texts, user_id="ann", durability=durability)


def engine_of(memory: warpmem.Memory) -> RocksEngine:
    engine = memory._log._engine  # type: ignore[attr-defined]
    assert isinstance(engine, RocksEngine)
    return engine


def store_with_a_hole(path: Path, *, synced: bool, apart: bool) -> Path:
    """A list that lacks a sector, and one behind it that is whole. synced: the first was synced before the
    second was written; apart: they are in two logs."""
    live = path / "live"
    with warpmem.open(live, embedder="hashing", min_free_bytes=0, background_work=False) as memory:
        memory.add("before", user_id="ann")
        added(memory, "first")
        if synced:
            memory.flush()
        if apart:
            engine_of(memory)._families["owners"].flush()  # begins a log, and keeps this one for the others
        added(memory, "second")
        shutil.copytree(live, path / "store")
    logs = {log: log.read_bytes() for log in (path / "store").glob("*.log")}
    log = next(log for log, data in logs.items() if b"first 50 " in data)
    assert (b"second 50 " in logs[log]) != apart
    at = logs[log].index(b"first 50 ") // SECTOR * SECTOR
    log.write_bytes(logs[log][:at] + bytes(SECTOR) + logs[log][at + SECTOR :])
    return path / "store"


@pytest.mark.parametrize("apart", [False, True], ids=["one log", "two logs"])
@pytest.mark.parametrize("synced", [False, True], ids=["one group", "synced between"])
def test_half_a_list_is_kept_only_where_it_had_been_synced(
    tmp_path: Path, *, synced: bool, apart: bool
) -> None:
    store = store_with_a_hole(tmp_path, synced=synced, apart=apart)
    report = warpmem.repair(store, tmp_path / "new")
    assert warpmem.verify(tmp_path / "new").ok and not report.ok
    texts = list(read_contents(tmp_path / "new").live.values())
    found = {name: sum(text.startswith(name) for text in texts) for name in ("before", "first", "second")}
    assert (found["before"], found["second"]) == (1, 100)
    assert (0 < found["first"] < 100) if synced else found["first"] == 0, found


def test_the_log_says_what_may_not_have_been_on_the_disk(tmp_path: Path) -> None:
    with warpmem.open(tmp_path / "store", embedder="hashing", min_free_bytes=0) as memory:
        one = memory.add("synced", user_id="ann")
        memory.add("after a sync", user_id="ann", durability="os")
        memory.add(["beside it", "and it"], user_id="ann", durability="os")
        memory.add("synced with both", user_id="ann")
        memory.update(one.id, text="after all", durability="os")
        memory.erase([one.id])
        memory.add("the last", user_id="ann")
        entries = list(memory._log.entries(0))  # type: ignore[attr-defined]
    said = [(entry.operation, entry.unsynced) for entry in entries]
    assert said == [
        ("erase", True),  # a stub is written when it is, whatever stood there
        ("add", False),
        ("add", True),
        ("add", True),
        ("add", True),
        ("erase", True),  # of the update
        ("erase", False),  # the notice: the mark before it was synced
        ("add", False),
    ]
