"""Masks of filters over keys that are not declared: only new rows are looked at, and a deadline holds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpmem
from warpmem import Memory, NewItem
from warpmem.errors import DeadlineExceeded
from warpmem.memory.cache import ItemCache
from warpmem.memory.deadline import Deadline

ONES = np.ones(8, np.float32)
HIGH = {"metadata.level": {"gte": 3}}


def _items(count: int, **fields: Any) -> list[NewItem]:
    return [NewItem(text=f"t{i}", vector=ONES, metadata={"level": i % 7}, **fields) for i in range(count)]


def _ids(memory: Memory, filters: Any, **options: Any) -> set[str]:
    found = memory.search(vector=ONES, user_id="u", k=1000, filters=filters, **options)
    return {hit.item.id for hit in found}


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many items each reading of items was asked for."""
    seen: list[int] = []
    fetch = ItemCache.fetch

    def counted(self: ItemCache, keys: Sequence[bytes]) -> Any:
        seen.append(len(keys))
        return fetch(self, keys)

    monkeypatch.setattr(ItemCache, "fetch", counted)
    return seen


def test_a_change_has_the_filter_look_at_new_rows_alone(fetched: list[int]) -> None:
    with warpmem.open(dimension=8) as memory:
        ids = [added.id for added in memory.add_many(_items(500), user_id="u")]
        memory.search(vector=ONES, user_id="u", k=1, filters=HIGH)
        memory.add("new", vector=ONES, metadata={"level": 5}, user_id="u")
        memory.update(ids[0], metadata={"level": 6})
        memory.delete(ids[6])
        fetched.clear()
        memory.search(vector=ONES, user_id="u", k=1, filters=HIGH)
        assert sum(fetched) <= 10
        newest = memory.add("newer", vector=ONES, metadata={"level": 5}, user_id="u")
        listed = {item.id for item in memory.list(user_id="u", filters=HIGH, limit=1000)}
        assert _ids(memory, HIGH) == listed and {ids[0], newest.id} < listed


def test_filtered_searches_amid_changes_find_what_a_list_does(tmp_path: Path) -> None:
    rng = random.Random(3)
    filters = [
        HIGH,
        {"metadata.level": {"in": [0, 2]}, "kind": "fact"},
        {"not": {"metadata.level": 1}},
        {"version": {"gt": 1}},
        {"touched_at": {"gt": "2020-01-01T00:00:00Z"}},
        {"valid_to": {"exists": False}},
    ]
    with warpmem.open(tmp_path / "s", dimension=8, durability="os") as memory:
        ids = [added.id for added in memory.add_many(_items(90), user_id="u")]
        for turn in range(250):
            choice = rng.random()
            if choice < 0.4:
                metadata, key = {"level": rng.randrange(7)}, rng.choice([None, "a", "b"])
                added = memory.add(
                    f"n{rng.randrange(60)}", vector=ONES, metadata=metadata, key=key, user_id="u"
                )
                ids = list(dict.fromkeys([*ids, added.id]))
            elif choice < 0.6:
                memory.update(rng.choice(ids), metadata={"level": rng.randrange(7)})
            elif choice < 0.8:
                gone = ids.pop(rng.randrange(len(ids)))
                memory.erase([gone]) if choice > 0.77 else memory.delete(gone)
            wanted = rng.choice(filters)
            listed = {item.id for item in memory.list(user_id="u", filters=wanted, limit=1000)}
            assert _ids(memory, wanted) == listed, (turn, wanted)


def test_an_owner_without_rows_is_filtered(tmp_path: Path) -> None:
    with warpmem.open(tmp_path / "s", dimension=8) as memory:
        memory.delete(memory.add("gone", vector=ONES, user_id="u").id)
        assert _ids(memory, HIGH) == set()
    with warpmem.open(tmp_path / "s", dimension=8) as memory:
        assert _ids(memory, HIGH) == set()


def test_a_filter_keeps_the_deadline_and_goes_on_where_it_was(
    fetched: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with warpmem.open(dimension=8) as memory:
        memory.add_many(_items(5000), user_id="u")
        expected = _ids(memory, HIGH)
        filters = {"metadata.level": {"gte": 3, "lte": 1000}}
        left = iter(range(3))
        check = Deadline.check

        def late(self: Deadline, stage: str) -> None:
            if "filter" in stage and next(left, None) == 2:
                raise DeadlineExceeded(stage)
            check(self, stage)

        monkeypatch.setattr(Deadline, "check", late)
        fetched.clear()
        with pytest.raises(DeadlineExceeded, match="what it knows so far is kept"):
            _ids(memory, filters, deadline=60)
        assert sum(fetched) == 2 * 1024
        fetched.clear()
        assert _ids(memory, filters, deadline=60) == expected
        assert sum(fetched) == 5000 - 2 * 1024 + len(expected)
