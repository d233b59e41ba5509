"""What happens between two steps of a search while an owner is forgotten, read anew, or erased from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpmem
from warpmem import Memory
from warpmem.index.partition import Partition

DIM = 8
F32 = np.float32
ONES = np.ones(DIM, F32)


def vector(n: int) -> Any:
    row = np.zeros(DIM, F32)
    row[n % DIM] = 1.0
    return row


def add(memory: Memory, text: str, n: int, **options: Any) -> str:
    options = {"user_id": "u", "metadata": {"n": n}, **options}
    return memory.add(text, vector=vector(n), **options).id


def texts(memory: Memory, **options: Any) -> list[str]:
    return sorted(hit.item.text for hit in memory.search(vector=ONES, user_id="u", k=20, **options))


def drop(memory: Memory) -> None:
    """Forget all owners, as a budget does."""
    index: Any = memory._index
    for owner, partition in list(index._partitions.items()):
        with partition.lock:
            index._drop(owner, partition)


@contextmanager
def before(memory: Memory, name: str, do: Callable[[], None]) -> Iterator[list[int]]:
    """Call `do` before the pool's method of this name is next called."""
    index: Any = memory._index
    pool = index._pool
    done: list[int] = []

    class Meanwhile:
        def __getattr__(self, asked: str) -> Any:
            if asked == name and not done:
                done.append(1)
                do()
                return getattr(pool if type(index._pool) is Meanwhile else index._pool, asked)
            return getattr(pool, asked)

    index._pool = Meanwhile()
    try:
        yield done
    finally:
        if type(index._pool) is Meanwhile:
            index._pool = pool


def test_a_hits_vector_is_its_own() -> None:
    """A search looked up where a row stands; before it read it another one stood there."""
    with warpmem.open(dimension=DIM) as memory:
        first = add(memory, "first", 0)
        for n in (1, 2, 3):
            add(memory, f"t{n}", n)
        assert len(texts(memory)) == 4
        memory.delete(first)  # read anew, the others stand a row further ahead

        def anew() -> None:
            drop(memory)
            texts(memory)

        with before(memory, "vectors", anew) as done:
            found = memory.search(vector=ONES, user_id="u", return_vectors="numpy")
        assert done
        for hit, row in zip(found, found.vectors, strict=True):
            assert row.tolist() == vector(hit.item.metadata["n"]).tolist()


def test_a_mask_is_never_one_of_other_rows() -> None:
    """After sixteen masks of rows that were numbered anew before the scan the last one was believed."""
    with warpmem.open(dimension=DIM, index_bytes=1) as memory:
        others = [add(memory, f"another {n}", 9) for n in range(20)]
        for n in range(5):
            add(memory, f"t{n}", n)
        memory.add("red", vector=ONES, user_id="somebody")
        index: Any = memory._index
        search, turns = index.search, []

        def late(requests: Any, *arguments: Any) -> Any:
            if requests[0].parts[0].bitmap is not None:
                turns.append(memory.delete(others[len(turns)]))  # those behind it stand a row further ahead
                memory.search(vector=ONES, user_id="somebody")
            return search(requests, *arguments)

        index.search = late
        assert texts(memory, filters={"metadata.n": {"lt": 5}}) == [f"t{n}" for n in range(5)]
        assert len(turns) > 1 and memory.stats().unloaded_owners > 0


def test_an_owner_read_from_the_log_while_the_index_is_restored_is_there_once(tmp_path: Path) -> None:
    """Rows of the file stood in his lists already, under other numbers."""
    with warpmem.open(tmp_path / "store", dimension=DIM) as memory:
        gone = add(memory, "gone", 0, user_id="another")
        first = add(memory, "first", 0)
        add(memory, "second", 1)
        assert len(texts(memory)) == 2
        add(memory, "third", 2)
        memory.delete(first)
        index: Any = memory._index
        (owner,) = index._partitions
        read = index._read

        def reading(checkpoint: Any) -> Any:
            found = read(checkpoint)
            drop(memory)
            index._partitions[owner] = Partition()  # somebody asks for him, and has not begun to read
            return found

        index._read = reading
        assert memory.checkpoint()
        memory.erase([gone])
        assert texts(memory) == ["second", "third"]


@pytest.mark.parametrize("ask", ["entities", "warm"])
def test_names_beside_an_erasure(tmp_path: Path, ask: str) -> None:
    """There were more rows than names, of an owner whose names were looked at before."""
    with warpmem.open(tmp_path / "store", dimension=DIM) as memory:
        gone = add(memory, "gone", 0, user_id="another")
        add(memory, "first", 0, entities=["Nadia"])
        texts(memory)
        assert memory.checkpoint()

        def renewed() -> None:
            memory.erase([gone])
            add(memory, "second", 1, entities=["Tomas"])

        with before(memory, "rows", renewed) as done:
            if ask == "warm":
                memory.warm(user_id="u", words=False, entities=True)
            else:
                assert [entity.name for entity in memory.entities(user_id="u").entities] == ["Nadia"]
        assert done and len(memory.entities(user_id="u").entities) == 2


class Failing:
    """A pool that cannot drop lists, or is interrupted when it just has."""

    def __init__(self, pool: Any, error: type[BaseException], *, after: bool) -> None:
        self._pool, self._error, self._after = pool, error, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def drop(self, lists: Any) -> None:
        if self._after:
            self._pool.drop(lists)
        raise self._error


def of_two() -> warpmem.Memory:
    """One of two users is in memory; the next search of the other takes his place."""
    memory = warpmem.open(dimension=DIM, index_bytes=1)
    for user in ("u", "another"):
        add(memory, f"of {user}", 0, user_id=user)
    assert texts(memory) == ["of u"]
    return memory


def test_a_search_does_not_fail_for_want_of_memory_to_forget_others() -> None:
    with of_two() as memory:
        index: Any = memory._index
        pool = index._pool
        index._pool = Failing(pool, MemoryError, after=False)
        assert [hit.item.text for hit in memory.search(vector=ONES, user_id="another")] == ["of another"]
        add(memory, "later", 1)
        with pytest.raises(MemoryError):
            texts(memory)
        index._pool = pool
        assert texts(memory) == ["later", "of u"]


@pytest.mark.parametrize("after", [False, True])
def test_an_owner_who_was_forgotten_by_half_is_not_taken_for_empty(after: bool) -> None:
    """An interrupt came between his rows and his name."""
    with of_two() as memory:
        index: Any = memory._index
        pool = index._pool
        index._pool = Failing(pool, KeyboardInterrupt, after=after)
        with pytest.raises(KeyboardInterrupt):
            memory.search(vector=ONES, user_id="another")
        index._pool = pool
        assert texts(memory) == ["of u"]


def test_owners_who_are_read_again_and_again_are_nothing_to_save(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with warpmem.open(path, dimension=DIM, checkpoint_rows=0) as memory:
        for user in range(4):
            for n in range(10):
                add(memory, f"t{n}", n, user_id=f"u{user}")
    with warpmem.open(path, dimension=DIM, index_bytes=1, checkpoint_rows=0) as memory:
        for _ in range(5):
            for user in range(4):
                memory.search(vector=ONES, user_id=f"u{user}")
        index: Any = memory._index
        assert memory.stats().unloaded_owners > 15
        assert not index.checkpoint(40)  # of 200 that were read 10 are there
        assert index.checkpoint(10) and not index.checkpoint(10)
        add(memory, "later", 1, user_id="u0")
        memory.search(vector=ONES, user_id="u0")
        assert index.checkpoint(10)
