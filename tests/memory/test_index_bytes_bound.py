"""What an index within a budget of memory counts, what it leaves alone, and how often it adds up."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpmem
from warpmem import Memory, NewItem
from warpmem.index.partition import Partition
from warpmem.index.resident_partitions import ResidentPartitions

DIM, OWNERS, ITEMS = 32, 20, 70
F32 = np.float32


def fill(memory: Memory) -> None:
    rng = np.random.default_rng(3)
    for owner in range(OWNERS):
        rows = rng.standard_normal((ITEMS, DIM)).astype(F32)
        items = [NewItem(text=f"red tower {n}", metadata={"n": n}, vector=row) for n, row in enumerate(rows)]
        memory.add_many(items, user_id=f"u{owner}")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its index."""
    path = tmp_path_factory.mktemp("index_bytes_bound") / "store"
    with warpmem.open(path, dimension=DIM) as memory:
        fill(memory)
        for owner in range(OWNERS):
            dense(memory, owner)
        assert memory.checkpoint()
    return path


def opened(path: Path, index_bytes: int, **options: Any) -> Memory:
    return warpmem.open(path, dimension=DIM, index_bytes=index_bytes, checkpoint_rows=0, **options)


def dense(memory: Memory, owner: int, **options: Any) -> Any:
    return memory.search(vector=np.ones(DIM, F32), user_id=f"u{owner}", k=3, **options)


def test_rows_that_came_since_the_index_was_saved_count(tmp_path: Path) -> None:
    """They lie in pages of their own, which the system cannot take back."""
    with warpmem.open(tmp_path / "store", dimension=DIM) as memory:
        fill(memory)
        for owner in range(OWNERS):
            dense(memory, owner)
        page = memory.stats().index_bytes // (2 * OWNERS)
        assert memory.checkpoint()
    with opened(tmp_path / "store", 8 * page) as memory:
        partitions: dict[int, Partition] = memory._index._partitions  # type: ignore[attr-defined]
        assert len(partitions) == OWNERS
        for owner in range(OWNERS):
            known = memory.add("a new tower", vector=np.ones(DIM, F32), user_id=f"u{owner}")
            assert dense(memory, owner)[0].item.id == known.id
        assert sum(len(partition.names._tail) > 0 for partition in partitions.values()) <= 8
        for owner in range(OWNERS):
            assert dense(memory, owner)[0].item.text == "a new tower"


def test_where_rows_stand_counts(saved: Path) -> None:
    """Filters that the index cannot decide ask for it."""
    with opened(saved, 100_000, read_only=True) as memory:
        for owner in range(OWNERS):
            found = dense(memory, owner, filters={"metadata.n": {"lt": 2}})
            assert {hit.item.metadata["n"] for hit in found} == {0, 1}
        partitions: Any = memory._index._partitions  # type: ignore[attr-defined]
        placed = [one for one in partitions.values() if one._places is not None]
        assert 0 < len(placed) < OWNERS // 2


def test_the_index_is_saved_while_others_search(tmp_path: Path) -> None:
    """What is being saved stays; else it is never the same at the end as at the beginning."""
    with warpmem.open(tmp_path / "store", dimension=DIM, checkpoint_rows=0) as memory:
        fill(memory)
    with opened(tmp_path / "store", 1) as memory:
        dense(memory, 0)
        index: Any = memory._index
        saving = index._checkpoint._backend
        turns: list[int] = []

        class Busy:
            def __getattr__(self, name: str) -> Any:
                return getattr(saving, name)

            def save_pool(self, *arguments: Any) -> None:
                turns.append(len(turns) + 1)
                dense(memory, len(turns))
                saving.save_pool(*arguments)

        index._checkpoint._backend = Busy()
        assert memory.checkpoint() and turns == [1]
        dense(memory, 5)
        assert memory.stats().loaded_owners == 1


def test_memory_is_not_added_up_by_every_search(
    tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the owner who is asked for is more than the budget holds alone, nobody else can make room."""
    turns: list[Any] = []
    trim = ResidentPartitions._trim
    monkeypatch.setattr(
        ResidentPartitions, "_trim", lambda self, wanted: (turns.append(wanted), trim(self, wanted))[1]
    )
    with opened(saved, 1, read_only=True) as memory:
        memory.search("red", vector=np.ones(DIM, F32), user_id="u1")
        memory.search("red", vector=np.ones(DIM, F32), user_id="u1")
        before = len(turns)
        for _ in range(20):
            memory.search("red", vector=np.ones(DIM, F32), user_id="u1")
        assert len(turns) == before
        memory.search("red", vector=np.ones(DIM, F32), user_id="u2")
        assert len(turns) > before


def test_memory_is_added_up_while_an_owner_is_read() -> None:
    class Reading(Partition):
        """Its rows come in between two looks."""

        __slots__ = ("looks",)

        def __getattribute__(self, name: str) -> Any:
            if name == "_places":
                looks = self.looks = getattr(self, "looks", 0) + 1
                return {(b"key", 1): (0, 0)} if looks == 1 else None
            return super().__getattribute__(name)

    assert Reading().memory() > 0


def test_a_search_that_meets_rows_of_an_owner_read_anew_begins_again(tmp_path: Path) -> None:
    """More rows than there were names when it began."""
    item: dict[str, Any] = {"vector": np.ones(DIM, F32), "user_id": "u0"}
    item["valid_from"] = datetime(2020, 1, 1, tzinfo=UTC)
    with warpmem.open(tmp_path / "store", dimension=DIM) as memory:
        memory.add("red", **item)
        dense(memory, 0)
        index: Any = memory._index
        ((owner, partition),) = index._partitions.items()
        pool = index._pool

        class Meanwhile:
            def __getattr__(self, name: str) -> Any:
                return getattr(pool, name)

            def scan(self, *arguments: Any, **options: Any) -> Any:
                index._pool = pool
                with partition.lock:
                    index._drop(owner, partition)
                memory.add("red again", **item)
                dense(memory, 0)
                return pool.scan(*arguments, **options)

        index._pool = Meanwhile()
        assert len(dense(memory, 0)) == 2
