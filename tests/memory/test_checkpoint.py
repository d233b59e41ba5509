"""The index checkpoint: derived state that saves a rebuild, and is never believed over the log."""

from __future__ import annotations

import random
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpmem
from warpmem import Memory, NewItem, Scope
from warpmem.storage.directory import INDEX_NAME
from warpmem.storage.log import StoreLog

DIMENSION = 16
START = datetime(2026, 1, 1, tzinfo=UTC)
USERS = ("ann", "bob", "eve")


class SteppedClock:
    """A second later at every look."""

    def __init__(self) -> None:
        self.seconds = 0

    def now(self) -> int:
        self.seconds += 1
        return int((START + timedelta(seconds=self.seconds)).timestamp()) * 1_000_000


def vector(seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)


def open_store(path: Path, **options: Any) -> Memory:
    return warpmem.open(path, dimension=DIMENSION, durability="os", checkpoint_rows=0, **options)


def change(memory: Memory, rng: random.Random, count: int) -> None:
    """Random adds, keyed adds, updates and deletions."""
    for _ in range(count):
        user, seed = rng.choice(USERS), rng.randrange(1 << 30)
        items = memory.list(user_id=user, limit=1000).items
        action = rng.choice(("add", "add", "key", "update", "delete"))
        if action == "add" or not items:
            memory.add(
                f"item {seed}", user_id=user, vector=vector(seed), kind=rng.choice(("fact", "event")),
                metadata={"n": seed % 5},
            )  # fmt: skip
        elif action == "key":
            memory.add(f"value {seed}", user_id=user, vector=vector(seed), key=f"k{seed % 3}")
        elif action == "update":
            memory.update(rng.choice(items).id, text=f"new {seed}", vector=vector(seed))
        else:
            memory.delete(rng.choice(items).id)


def answers(memory: Memory) -> list[Any]:
    """What a store says to many questions: current, past, filtered, of several scopes."""
    moments = [item.recorded_at for user in USERS for item in memory.list(user_id=user, limit=1000).items]
    middle = sorted(moments)[len(moments) // 2]
    found = []
    for user in USERS:
        for seed in range(4):
            for options in (
                {},
                {"as_of": middle},
                {"known_at": middle},
                {"filters": {"metadata.n": {"gte": 2}}},
                {"kinds": ["event"]},
            ):
                result = memory.search(
                    vector=vector(seed),
                    scopes=[Scope(user_id=user), Scope(user_id=USERS[0])],
                    k=20,
                    **options,  # type: ignore[arg-type]
                )
                found.append([(hit.item.id, hit.item.version, hit.score) for hit in result])
    return found


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Owners whose rows were read from the log."""
    seen: list[int] = []
    rows = StoreLog.rows

    def counted(self: StoreLog, owner: int, **options: Any) -> Any:
        seen.append(owner)
        return rows(self, owner, **options)

    monkeypatch.setattr(StoreLog, "rows", counted)
    return seen


def restored(memory: Memory) -> str:
    said: str = memory._index.restored  # type: ignore[attr-defined]
    return said


def test_the_next_open_reads_no_rows_again(tmp_path: Path, loads: list[int]) -> None:
    with open_store(tmp_path / "s", clock=SteppedClock()) as memory:
        change(memory, random.Random(1), 60)
        expected = answers(memory)
        assert memory.checkpoint()
    assert len(set(loads)) == len(USERS)
    loads.clear()
    with open_store(tmp_path / "s") as memory:
        assert restored(memory).startswith("3 owners")
        assert answers(memory) == expected
        assert loads == []


@pytest.mark.parametrize("seed", range(5))
def test_what_came_later_is_replayed(tmp_path: Path, seed: int, loads: list[int]) -> None:
    path, rng = tmp_path / "s", random.Random(seed)
    with open_store(path, clock=SteppedClock()) as memory:
        change(memory, rng, 40)
        answers(memory)
        memory.checkpoint()
        change(memory, rng, 40)
        expected = answers(memory)
    loads.clear()
    with open_store(path) as memory:
        assert answers(memory) == expected
        assert loads == []
        change(memory, rng, 10)
        expected = answers(memory)
        memory.checkpoint()
    (path / INDEX_NAME).rename(tmp_path / "kept")
    with open_store(path) as memory:
        assert restored(memory) == "no checkpoint"
        assert answers(memory) == expected
    shutil.copy(tmp_path / "kept", path / INDEX_NAME)
    with open_store(path, read_only=True) as memory:
        assert restored(memory).startswith("3 owners")
        assert answers(memory) == expected


def test_one_of_another_store_is_not_used(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        with open_store(tmp_path / name, clock=SteppedClock()) as memory:
            change(memory, random.Random(seed), 40)
            expected = answers(memory)
            memory.checkpoint()
    shutil.copy(tmp_path / "a" / INDEX_NAME, tmp_path / "b" / INDEX_NAME)
    with open_store(tmp_path / "b") as memory:
        assert "another store" in restored(memory)
        assert answers(memory) == expected


def test_one_that_is_ahead_of_the_log_is_not_used(tmp_path: Path) -> None:
    """As after a power loss, or when an old copy of the other files was put back."""
    path = tmp_path / "s"
    with open_store(path, clock=SteppedClock()) as memory:
        change(memory, random.Random(1), 40)
        expected = answers(memory)
    shutil.copytree(path, tmp_path / "old")
    with open_store(path) as memory:
        change(memory, random.Random(2), 40)
        answers(memory)
        memory.checkpoint()
    shutil.copy(path / INDEX_NAME, tmp_path / "old" / INDEX_NAME)
    with open_store(tmp_path / "old") as memory:
        assert "log" in restored(memory)
        assert answers(memory) == expected


def test_damage_is_rebuilt_from_the_log(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with open_store(path, clock=SteppedClock()) as memory:
        change(memory, random.Random(1), 40)
        expected = answers(memory)
        memory.checkpoint()
    whole = (path / INDEX_NAME).read_bytes()
    rng = random.Random(3)
    for at in [0, 1, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(60))]:
        damaged = bytearray(whole)
        damaged[at] ^= 1 << rng.randrange(8)
        (path / INDEX_NAME).write_bytes(damaged)
        with open_store(path, read_only=True) as memory:
            assert answers(memory) == expected, at
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        (path / INDEX_NAME).write_bytes(whole[:length])
        with open_store(path, read_only=True) as memory:
            assert answers(memory) == expected, length
            assert "not used" in restored(memory)


def test_changes_over_damaged_pages(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with open_store(path, clock=SteppedClock()) as memory:
        change(memory, random.Random(1), 40)
        answers(memory)
        memory.checkpoint()
    data = bytearray((path / INDEX_NAME).read_bytes())
    for at in range(len(data) // 4, 3 * len(data) // 4, 97):
        data[at] ^= 255
    (path / INDEX_NAME).write_bytes(data)
    with open_store(path) as memory:
        change(memory, random.Random(2), 40)
        found = answers(memory)
    (path / INDEX_NAME).unlink()
    with open_store(path) as memory:
        assert answers(memory) == found


def test_closing_saves_after_many_changes_only(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with warpmem.open(path, dimension=DIMENSION, durability="os", checkpoint_rows=50) as memory:
        memory.add_many([f"t{i}" for i in range(40)], user_id="ann", vectors=np.eye(40, DIMENSION) + 0.1)
        memory.search(vector=vector(0), user_id="ann")
    assert not (path / INDEX_NAME).exists()
    with warpmem.open(path, dimension=DIMENSION, durability="os", checkpoint_rows=40) as memory:
        memory.search(vector=vector(0), user_id="ann")
    assert (path / INDEX_NAME).exists()
    before = (path / INDEX_NAME).stat().st_mtime_ns
    with warpmem.open(path, dimension=DIMENSION, durability="os", checkpoint_rows=1) as memory:
        memory.search(vector=vector(0), user_id="ann")
    assert (path / INDEX_NAME).stat().st_mtime_ns == before


def test_a_store_in_memory_keeps_none() -> None:
    with warpmem.open(None, dimension=DIMENSION) as memory:
        memory.add("t", user_id="ann", vector=vector(0))
        assert not memory.checkpoint()


def test_a_left_over_of_a_crash_is_no_foreign_file(tmp_path: Path) -> None:
    with open_store(tmp_path / "s") as memory:
        memory.add(NewItem(text="t"), user_id="ann", vector=vector(0))
    left = tmp_path / "s" / (INDEX_NAME + ".tmp-4711-0")
    left.write_bytes(b"half")
    with open_store(tmp_path / "s") as memory:
        assert len(memory.search(vector=vector(0), user_id="ann")) == 1
        assert memory.checkpoint()
    assert not left.exists()


def test_the_working_directory_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    memory = open_store(Path("store"))
    memory.add("Ann has a canary", user_id="ann", vector=vector(1))
    monkeypatch.chdir(elsewhere)
    memory.checkpoint()
    assert (tmp_path / "store" / INDEX_NAME).exists() and not any(elsewhere.iterdir())
    assert memory.erase(user_id="ann").checkpoint == "rewritten"
    memory.close()
