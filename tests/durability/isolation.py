"""Many owners side by side, each with words of its own: nothing that one may see holds another's."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import warpmem
from warpmem import NewItem, Ranking, Scope
from warpmem.errors import NotFound

OWNERS = 100
DIM = 8
_WORD = re.compile(r"canary-(\d+)-")
_RARE = {"erase": 1, "reopen": 1}
_WEIGHTS = {
    "add": 300, "update": 120, "delete": 60, "search": 200, "search_two": 40, "context": 40, "list": 80,
    "get": 80, "foreign": 120, "history": 60, "feed": 8, "names": 60, **_RARE,
}  # fmt: skip


class Owners:
    """A store and what each of its owners has put there: live items and deleted ones, by id."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.path = folder / "store"
        self.random = random.Random(f"isolation {seed}")
        self.live: list[dict[str, str]] = [{} for _ in range(OWNERS)]
        self.deleted: list[set[str]] = [set() for _ in range(OWNERS)]
        self.counts: Counter[str] = Counter()
        self.texts = 0
        self.memory = self.open()

    def open(self) -> warpmem.Memory:
        return warpmem.open(self.path, dimension=DIM, durability="os", min_free_bytes=0)

    def step(self) -> None:
        """One operation of one owner."""
        (what,) = self.random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
        # Some owners have much, most have little.
        owner = min(self.random.randrange(OWNERS), self.random.randrange(OWNERS))
        self.counts[what] += 1
        getattr(self, what)(owner)

    def close(self) -> None:
        self.memory.close()

    # ------------------------------------------------------------------------------------- helpers

    def scope(self, owner: int) -> Scope:
        """Users, agents and corpora: owners of several types share ids."""
        name = f"canary-{owner}-id"
        kind = ("user_id", "agent_id", "corpus_id")[owner % 3]
        return Scope(**{kind: name})

    def text(self, owner: int) -> str:
        self.texts += 1
        return f"canary-{owner}- says {self.texts}"

    def vector(self) -> list[float]:
        return [self.random.gauss(0, 1) for _ in range(DIM)]

    def one(self, owner: int) -> str | None:
        return self.random.choice(list(self.live[owner])) if self.live[owner] else None

    def own(self, owner: int, *texts: str) -> None:
        """No word of these is another's."""
        found = {int(number) for text in texts for number in _WORD.findall(text)}
        assert found <= {owner}, f"owner {owner} reads of {sorted(found - {owner})}"

    def own_items(self, owner: int, items: Iterable[Any]) -> None:
        for item in items:
            self.own(owner, item.text, str(item.metadata), str(item.scope), item.key or "")
            assert self.live[owner].get(item.id) == item.text, f"owner {owner} reads what it has not"

    # ---------------------------------------------------------------------------------- operations

    def add(self, owner: int) -> None:
        text = self.text(owner)
        named = (f"canary-{owner}- thing", "everybody")
        item = NewItem(text=text, metadata={"note": text}, key=text, vector=self.vector(), entities=named)
        result = self.memory.add(item, scope=self.scope(owner))
        assert isinstance(result, warpmem.AddResult) and result.action == "added"
        self.live[owner][result.id] = text

    def update(self, owner: int) -> None:
        if item_id := self.one(owner):
            text = self.text(owner)
            item = self.memory.update(item_id, text=text, vector=self.vector(), scope=self.scope(owner))
            self.live[owner][item_id] = text
            self.own(owner, item.text, str(item.metadata))

    def delete(self, owner: int) -> None:
        if item_id := self.one(owner):
            self.memory.delete(item_id, scope=self.scope(owner))
            del self.live[owner][item_id]
            self.deleted[owner].add(item_id)

    def search(self, owner: int) -> None:
        filters = {"text": {"contains": "1"}} if self.random.random() < 0.3 else None
        found = self.memory.search(
            vector=self.vector(), scope=self.scope(owner), k=OWNERS * 10, filters=filters
        )
        self.own_items(owner, found.items)
        expected = {i for i, text in self.live[owner].items() if filters is None or "1" in text}
        assert {item.id for item in found.items} == expected

    def search_two(self, owner: int) -> None:
        other = (owner + 1) % OWNERS
        scopes = [self.scope(owner), self.scope(other)]
        found = self.memory.search(vector=self.vector(), scopes=scopes, k=OWNERS * 10)
        for hit in found:
            self.own_items(owner if hit.item.scope == scopes[0] else other, [hit.item])
        assert len(found) == len(self.live[owner]) + len(self.live[other])
        for whose, result in zip(
            (owner, other), self.memory.search_many(vectors=[self.vector()] * 2, scopes=scopes), strict=True
        ):
            self.own_items(whose, result.items)

    def context(self, owner: int) -> None:
        block = self.memory.context(vector=self.vector(), scope=self.scope(owner), max_tokens=500)
        self.own(owner, block.text)
        assert set(block.citations) <= set(self.live[owner])

    def list(self, owner: int) -> None:
        order = self.random.choice(("recorded", "valid_from"))
        page = self.memory.list(self.scope(owner), order=order, limit=10_000)  # type: ignore[arg-type]
        self.own_items(owner, page)
        assert {item.id for item in page} == set(self.live[owner])
        assert self.memory.count(self.scope(owner)) == len(page)

    def names(self, owner: int) -> None:
        found = self.memory.entities(self.scope(owner))
        self.own(owner, *(entity.name for entity in found))
        assert [entity.items for entity in found] == [len(self.live[owner])] * (2 * bool(self.live[owner]))
        hits = self.memory.search(
            "everybody", vector=self.vector(), scope=self.scope(owner), ranking=Ranking(entities=1.0)
        )
        self.own_items(owner, hits.items)
        assert all(hit.parts["entities"] == 1.0 for hit in hits)

    def get(self, owner: int) -> None:
        if item_id := self.one(owner):
            self.own_items(owner, [self.memory.get(item_id, scope=self.scope(owner))])

    def foreign(self, owner: int) -> None:
        """Another's id under one's own scope is no id."""
        other = (owner + self.random.randrange(1, OWNERS)) % OWNERS
        item_id, scope = self.one(other), self.scope(owner)
        if item_id is None:
            return
        calls: list[Any] = [
            lambda: self.memory.get(item_id, scope=scope),
            lambda: self.memory.update(item_id, text="stolen", vector=self.vector(), scope=scope),
            lambda: self.memory.delete(item_id, scope=scope),
            lambda: self.memory.revert(item_id, 1, scope=scope),
            lambda: self.memory.history(item_id, scope=scope),
            lambda: self.memory.erase([item_id], scope=scope),
        ]
        try:
            self.random.choice(calls)()
        except NotFound:
            pass
        else:
            raise AssertionError(f"owner {owner} reached an item of {other}")
        assert self.memory.get_many([item_id], scope=scope) == (None,)
        assert self.memory.get(item_id).text == self.live[other][item_id]

    def history(self, owner: int) -> None:
        known = [*self.live[owner], *sorted(self.deleted[owner])]
        if known:
            versions = self.memory.history(self.random.choice(known), scope=self.scope(owner))
            self.own(owner, *(str(version.item) for version in versions if version.item))

    def feed(self, owner: int) -> None:
        sequence = self.memory.stats().sequence
        for change in self.memory.changes(max(0, sequence - 50)):
            whose = [n for n in range(OWNERS) if change.id in self.live[n] or change.id in self.deleted[n]]
            assert change.operation == "erase" or [change.scope] == [self.scope(n) for n in whose]

    def erase(self, owner: int) -> None:
        if self.random.random() < 0.5:
            self.memory.erase(scope=self.scope(owner))
            self.live[owner], self.deleted[owner] = {}, set()
        elif item_id := self.one(owner):
            self.memory.erase([item_id], scope=self.scope(owner))
            del self.live[owner][item_id]

    def reopen(self, owner: int) -> None:
        if self.random.random() < 0.5:
            self.memory.checkpoint()
        self.memory.close()
        self.memory = self.open()


def run(folder: Path, first: int, count: int) -> Counter[str]:
    """`count` operations over 100 owners; returns how many of each kind there were."""
    owners = Owners(folder, first)
    try:
        for _ in range(count):
            owners.step()
        for owner in range(OWNERS):
            owners.list(owner)
            owners.search(owner)
            owners.names(owner)
    finally:
        owners.close()
    return owners.counts
