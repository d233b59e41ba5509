"""The whole memory: add, search, and what the facade adds to the raw index search (gated)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from stores import alternate, fill, unit_rows

import warpmem
from warpmem.ops.clock import SystemClock
from warpmem.protocols import Index
from warpmem.records import ScopePart, ScoreParams, SearchRequest
from warpmem.types import Durability, Owner

ITEMS, K = 2_000, 10
ROWS = unit_rows(ITEMS + 2_000)
MAX_CACHED, MAX_UNCACHED = 50e-6, 150e-6


@pytest.fixture(scope="module", params=[65_536, 1], ids=["cached", "uncached"])
def memory(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[warpmem.Memory]:
    path: Path = tmp_path_factory.mktemp("store") / "store"
    with warpmem.open(path, dimension=ROWS.shape[1], item_cache=request.param) as opened:
        fill(opened, ["one"] * ITEMS, ROWS[:ITEMS])
    with warpmem.open(path, item_cache=request.param) as opened:  # as after a restart: from tables on disk
        opened.search(vector=ROWS[0], user_id="one", k=ITEMS)
        yield opened


@pytest.mark.parametrize("durability", ["os", "sync"])
def test_add_text(benchmark: BenchmarkFixture, tmp_path: Path, durability: Durability) -> None:
    """One text at a time with the default embedder."""
    numbers = iter(range(1_000))
    with warpmem.open(tmp_path / "store", durability=durability) as memory:
        memory.search("warm up", user_id="one")
        benchmark.pedantic(
            lambda: memory.add(f"Note {next(numbers)}: the printer is out of paper.", user_id="one"),
            rounds=300,
            warmup_rounds=20,
        )
        assert memory.stats().items == 320


def test_add_many_1000_texts(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """A thousand texts in one synced commit, with the default embedder."""
    batches = iter(range(100))

    def add(memory: warpmem.Memory) -> None:
        batch = next(batches)
        memory.add_many(
            [f"Note {batch}.{i}: the printer is out of paper." for i in range(1_000)], user_id="one"
        )

    with warpmem.open(tmp_path / "store") as memory:
        memory.search("warm up", user_id="one")
        benchmark.pedantic(add, (memory,), rounds=5, warmup_rounds=1)
        assert memory.stats().items == 6_000


def test_search(benchmark: BenchmarkFixture, memory: warpmem.Memory) -> None:
    """k = 10 of 2,000 items by a given vector."""
    queries = iter(range(2_000))
    hits = benchmark.pedantic(
        lambda: memory.search(vector=ROWS[ITEMS + next(queries)], user_id="one", k=K),
        rounds=500,
        warmup_rounds=50,
    )
    assert len(hits) == K


def test_facade_overhead(memory: warpmem.Memory, report: Callable[[str], None]) -> None:
    """Memory.search against Index.search, which is reached past the public API for this purpose."""
    index: Index = memory._index
    number = memory._log.owner(Owner("user", "one"))
    assert number is not None
    now, params = SystemClock().now(), ScoreParams()

    def raw(i: int) -> object:
        return index.search([SearchRequest(ROWS[ITEMS + i], (ScopePart(number),), now)], K, params)

    def whole(i: int) -> object:
        return memory.search(vector=ROWS[ITEMS + i], user_id="one", k=K)

    # The least disturbed of seven medians: the difference is small against what a busy machine adds.
    inner, outer = min((alternate([raw, whole], 200) for _ in range(7)), key=lambda pair: pair[1] - pair[0])
    cached = memory.stats().item_cache["capacity"] > 1
    gate = MAX_CACHED if cached else MAX_UNCACHED
    report(
        f"{'cached' if cached else 'uncached'}: index {inner * 1e6:.1f} us, facade {outer * 1e6:.1f} us, +"
        f"{(outer - inner) * 1e6:.1f} us (gate {gate * 1e6:.0f})"
    )
    assert outer - inner <= gate
