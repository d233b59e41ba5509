"""Is the cost flat in the size of the store? Both ratios are gated."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from stores import alternate, fill, unit_rows

import warpmem

SMALL, LARGE = 1_000, 100_000
MAX_ADD_RATIO = 1.5
STORE, SMALL_STORE, PER_USER = 200_000, 1_000, 100
MAX_SEARCH_RATIO = 2.0
DIMENSION = 256


def test_add_at_100000_against_1000(tmp_path: Path, report: Callable[[str], None]) -> None:
    """One user with all items, whose rows are in the index: the hardest case for an add."""
    rows = unit_rows(LARGE)
    with ExitStack() as stack:
        stores = []
        for size in (SMALL, LARGE):
            memory = stack.enter_context(warpmem.open(tmp_path / str(size), dimension=DIMENSION))
            fill(memory, ["one"] * size, rows[:size])
            assert len(memory.search(vector=rows[0], user_id="one", k=10)) == 10
            stores.append(memory)
        fresh = unit_rows(2_000, seed=7)
        for durability, rounds in (("os", 400), ("sync", 200)):
            small, large = alternate(
                [
                    lambda i, memory=memory, durability=durability: memory.add(
                        f"new {i} {durability}", user_id="one", vector=fresh[i], durability=durability
                    )
                    for memory in stores
                ],
                rounds,
            )
            report(
                f"add, durability {durability}: at {SMALL:,} items {small * 1e6:.0f} us, at {LARGE:,} items "
                f"{large * 1e6:.0f} us, ratio {large / small:.2f} (gate {MAX_ADD_RATIO})"
            )
            assert large / small <= MAX_ADD_RATIO
        assert [memory.stats().items for memory in stores] == [SMALL + 640, LARGE + 640]


@pytest.mark.parametrize("item_cache", [65_536, 1], ids=["cached", "uncached"])
def test_search_in_200000_against_1000(
    tmp_path: Path, report: Callable[[str], None], item_cache: int
) -> None:
    """A user with 100 items, in a store of many such users and in one of few."""
    rows = unit_rows(STORE)
    users = [f"user {i // PER_USER}" for i in range(STORE)]
    with ExitStack() as stack:
        stores = []
        for size in (SMALL_STORE, STORE):
            memory = stack.enter_context(
                warpmem.open(tmp_path / str(size), dimension=DIMENSION, item_cache=item_cache)
            )
            fill(memory, users[:size], rows[:size])
            stores.append(memory)
        queries = unit_rows(2_000, seed=8)
        expected, found = (
            memory.search(vector=queries[0], user_id="user 3", k=PER_USER) for memory in stores
        )
        assert len(found) == PER_USER
        assert [(hit.item.text, hit.score) for hit in found] == [
            (hit.item.text, hit.score) for hit in expected
        ]
        small, large = alternate(
            [
                lambda i, memory=memory: memory.search(vector=queries[i], user_id="user 3", k=10)
                for memory in stores
            ],
            1_000,
        )
        report(
            f"search, {PER_USER} of {SMALL_STORE:,} items {small * 1e6:.0f} us, {PER_USER} of {STORE:,} "
            f"{large * 1e6:.0f} us, ratio {large / small:.2f} (gate {MAX_SEARCH_RATIO})"
        )
        assert large / small <= MAX_SEARCH_RATIO
