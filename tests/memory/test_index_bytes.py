"""An index within a budget of memory: owners that were asked for longest ago are read from the log again, and
no answer is another one for that."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpmem
from warpmem import Memory, Ranking, Scope
from warpmem.errors import InputError

DIM, OWNERS, ITEMS = 32, 40, 70
WORDS = ["red", "tower", "tea", "cafe", "harbour", "x7"]
MODES: tuple[dict[str, Any], ...] = ({"mode": "dense"}, {}, {"ranking": Ranking(entities=0.5)})


def fill(memory: Memory) -> None:
    rng = np.random.default_rng(3)
    for owner in range(OWNERS):
        texts = [" ".join(rng.choice(WORDS, 3)) + f" {n}" for n in range(ITEMS)]
        rows = rng.standard_normal((ITEMS, DIM)).astype(np.float32)
        memory.add_many(texts, vectors=rows, user_id=f"u{owner}", run_id="r")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("index_bytes") / "store"
    with warpmem.open(path, dimension=DIM, checkpoint_rows=0) as memory:
        fill(memory)
    return path


def opened(path: Path, index_bytes: int = 0, **options: Any) -> Memory:
    return warpmem.open(path, dimension=DIM, read_only=True, index_bytes=index_bytes, **options)


def pairs(hits: Any) -> list[tuple[str, float]]:
    return [(hit.item.id, hit.score) for hit in hits]


def answers(memory: Memory, owner: int) -> list[Any]:
    asked = np.random.default_rng(owner).standard_normal(DIM).astype(np.float32)
    options: dict[str, Any] = {"vector": asked, "user_id": f"u{owner}", "k": 7}
    return [pairs(memory.search("red tea x7", **options, **mode)) for mode in MODES]


def held(memory: Memory) -> tuple[int, int, int]:
    """Owners, bytes of their rows, and how many were forgotten."""
    stats = memory._index.stats()
    return stats["owners"], stats["bytes"], stats["unloaded"]


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_every_answer_is_as_without_a_budget(written: Path, backend: Any) -> None:
    with opened(written, backend=backend) as memory:
        wanted = [answers(memory, owner) for owner in range(OWNERS)]
        owners, everything, unloaded = held(memory)
        assert (owners, unloaded) == (OWNERS, 0)
    budget = everything // 5
    with opened(written, budget, backend=backend) as memory:
        for seed in range(2):
            for owner in random.Random(seed).sample(range(OWNERS), OWNERS):
                assert answers(memory, owner) == wanted[owner]
                owners, rows, _ = held(memory)
                assert rows <= budget * 5 // 4 and owners < OWNERS // 3
        assert held(memory)[2] > OWNERS


def test_who_was_asked_for_last_stays(written: Path) -> None:
    with opened(written) as memory:
        for owner in range(OWNERS):
            answers(memory, owner)
        budget = held(memory)[1] // 4
    with opened(written, budget) as memory:
        for owner in range(1, OWNERS):
            answers(memory, owner)
            answers(memory, 0)
        last = f"u{OWNERS - 1}"
        partitions = memory._index._partitions  # type: ignore[attr-defined]
        known = {name: memory._log.owner(Scope(user_id=name).owner) for name in ("u0", "u1", last)}
        assert {name for name, number in known.items() if number in partitions} == {"u0", last}


def test_one_search_over_more_than_the_budget_holds(written: Path) -> None:
    scopes = [Scope(user_id=f"u{owner}") for owner in range(OWNERS)]
    asked: dict[str, Any] = {"vector": np.ones(DIM, np.float32), "scopes": scopes, "k": 50}
    with opened(written) as memory:
        wanted = [pairs(memory.search("red x7", **asked, **mode)) for mode in MODES]
    with opened(written, 1) as memory:
        for _ in range(2):
            for mode, hits in zip(MODES, wanted, strict=True):
                assert pairs(memory.search("red x7", **asked, **mode)) == hits
        assert held(memory)[2] > 0
        answers(memory, 3)
        assert held(memory)[0] == 1, "what the search needed went with it"


@pytest.mark.parametrize("index_bytes", [1, 300_000])
def test_threads_that_search_and_change_under_a_budget(index_bytes: int) -> None:
    """What was added before a search began is found by it; everybody meets everybody's owners."""
    with warpmem.open(dimension=DIM, index_bytes=index_bytes) as memory:
        fill(memory)

        def work(seed: int) -> None:
            rng = random.Random(seed)
            for turn in range(60):
                user, name = f"u{rng.randrange(OWNERS)}", f"made{seed}n{turn}"
                vector = np.random.default_rng(seed * 1000 + turn).standard_normal(DIM).astype(np.float32)
                options: dict[str, Any] = {"vector": vector, "user_id": user}
                known = memory.add(f"{name} harbour", **options)
                for mode in ("dense", "hybrid", "lexical"):
                    found = memory.search(name, k=1, mode=mode, **options)
                    assert [hit.item.id for hit in found] == [known.id], mode
                if turn % 3 == 0:
                    memory.delete(known.id)
                    assert known.id not in {hit.item.id for hit in memory.search(name, k=5, **options)}

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(6)))
        assert held(memory)[2] > 0


def test_rows_of_a_saved_index_are_the_files(tmp_path: Path) -> None:
    """Of such owners only what was made of them goes: their words."""
    with warpmem.open(tmp_path / "store", dimension=DIM) as memory:
        fill(memory)
        wanted = [answers(memory, owner) for owner in range(OWNERS)]
        assert memory.checkpoint()
    with warpmem.open(tmp_path / "store", dimension=DIM, index_bytes=100_000) as memory:
        partitions = memory._index._partitions  # type: ignore[attr-defined]
        for owner in range(OWNERS):
            assert answers(memory, owner) == wanted[owner]
        assert len(partitions) == OWNERS and held(memory)[2] > 0
        with_words = [part for part in partitions.values() if part.words is not None]
        assert 0 < len(with_words) < OWNERS // 2
        known = memory.add("a new harbour", vector=np.ones(DIM), user_id="u0")
        assert memory.search("new harbour", user_id="u0", mode="lexical")[0].item.id == known.id


def test_a_search_sees_that_an_owner_goes_before_his_rows_do(written: Path) -> None:
    """It found no rows, and believed that there are none."""
    with opened(written) as memory:
        answers(memory, 0)
        index: Any = memory._index
        ((owner, partition),) = index._partitions.items()
        pool, states = index._pool, []

        class Watched:
            def __getattr__(self, name: str) -> Any:
                return getattr(pool, name)

            def drop(self, lists: Any) -> None:
                states.append(partition.state)
                pool.drop(lists)

        index._pool = Watched()
        with partition.lock:
            index._drop(owner, partition)
        assert states == ["dropped"]


def test_it_is_counted(written: Path) -> None:
    with opened(written, 1) as memory:
        for owner in range(3):
            answers(memory, owner)
        stats = memory.stats()
        assert (stats.loaded_owners, stats.unloaded_owners) == (1, 2)
        assert "warpmem_unloaded_owners_total 2" in memory.metrics()


@pytest.mark.parametrize("value", [-1, 1.5, True, None, "1"])
def test_a_budget_is_bytes(value: Any) -> None:
    with pytest.raises(InputError, match="index_bytes"):
        warpmem.open(dimension=DIM, index_bytes=value)
