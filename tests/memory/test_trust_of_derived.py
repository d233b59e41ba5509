"""Random items that come from each other: what they are trusted is the same whether they come before a source
is revoked or after that, and reinstating it gives everything back."""

from __future__ import annotations

import random

import pytest

import warpmem
from warpmem import Memory, NewItem

ORIGINS = ("web", "tool")
UNKNOWN = "0" * 32


class Store:
    """Items of two owners, and what the rule says of each, worked out from how they were added."""

    def __init__(self, memory: Memory, seed: int) -> None:
        self.memory = memory
        self.random = random.Random(seed)
        self.given: dict[str, tuple[float, tuple[str, ...]]] = {}
        self.deleted: set[str] = set()

    def add(self, trust: float, sources: tuple[str, ...]) -> str:
        item = NewItem(text=f"item {len(self.given)}", trust=trust, sources=sources)
        result = self.memory.add(item, user_id=self.random.choice(("u", "v")))
        assert isinstance(result, warpmem.AddResult)
        self.given[result.id] = trust, sources
        return result.id

    def add_some(self, count: int) -> None:
        for _ in range(count):
            known = [*self.given][-30:]
            number = self.random.randrange(1, 4)
            sources = self.random.sample(known, min(number, len(known)))
            if not sources or self.random.random() < 0.2:
                sources.append(self.random.choice((*ORIGINS, "other", UNKNOWN)))
            self.add(self.random.choice((0.25, 0.75, 1.0, 1.0)), tuple(sources))

    def delete_some(self) -> None:
        for item_id in self.random.sample([*self.given], len(self.given) // 8):
            if item_id not in self.deleted:
                self.memory.delete(item_id)
                self.deleted.add(item_id)

    def check(self) -> None:
        revoked = set(self.memory.revoked())
        expected: dict[str, float] = {}
        for item_id, (trust, sources) in self.given.items():  # each after what it comes from
            known = [expected[source] for source in sources if source in expected]
            if revoked.intersection(sources):
                trust = 0.0
            elif known and all(source in expected or source == UNKNOWN for source in sources):
                trust = min(trust, max(known))
            expected[item_id] = trust
        live = [item_id for item_id in self.given if item_id not in self.deleted]
        assert {one: self.memory.get(one).trust for one in live} == {one: expected[one] for one in live}


@pytest.mark.parametrize("seed", range(8))
def test_what_comes_from_items_is_trusted_as_they_are(seed: int) -> None:
    with warpmem.open(embedder="hashing") as memory:
        store = Store(memory, seed)
        for _ in range(12):
            store.add_some(10)
            store.check()
            source = store.random.choice(ORIGINS)
            (memory.reinstate if source in memory.revoked() else memory.revoke)(source)
            store.check()
            if store.random.random() < 0.5:
                store.delete_some()
        for source in memory.revoked():
            memory.reinstate(source)
        store.check()


@pytest.mark.parametrize("seed", range(8))
def test_the_rule_is_the_same_for_sources_that_are_older_and_newer(seed: int) -> None:
    """Sources that were given later, so an item may come from a newer one of another owner."""
    with warpmem.open(embedder="hashing") as memory:
        store = Store(memory, seed)
        ids = [store.add(1.0, ("other",)) for _ in range(40)]
        page = store.add(1.0, ("web",))
        for newer, item_id in zip([page, *reversed(ids)], reversed(ids), strict=False):
            memory.update(item_id, sources=[newer, *store.random.sample([page, "web"], 1)])
        assert memory.revoke("web") == 41
        assert {memory.get(item_id).trust for item_id in ids} == {0.0}
        assert memory.reinstate("web") == 41
        assert {memory.get(item_id).trust for item_id in ids} == {1.0}
