"""Random changes of trust, keys, versions and sources: whatever order they come in, the values of a key do
not overlap, quarantine hides what it should, and the store verifies and reopens to the same answers."""

from __future__ import annotations

import contextlib
import random
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

import warpmem
from warpmem import Memory, NewItem
from warpmem.errors import InputError, NotFound
from warpmem.ops.clock import FixedClock

USERS = ("u", "v")
KEYS = ("home", "work", None)
SOURCES = ("web", "tool")


class Changes:
    """One random change after the other."""

    def __init__(self, memory: Memory, clock: FixedClock, seed: int) -> None:
        self.memory = memory
        self.clock = clock
        self.random = random.Random(seed)
        self.ids: list[str] = []

    def make(self) -> None:
        self.clock.advance(timedelta(minutes=self.random.randrange(3)))
        self.random.choice(
            (self.add, self.add, self.add, self.trust, self.end, self.revert, self.delete, self.source)
        )()

    def add(self) -> None:
        item = NewItem(
            text=f"note {self.random.randrange(12)}",
            key=self.random.choice(KEYS),
            trust=self.random.choice((0.0, 0.25, 0.5, 1.0)),
            sources=self.random.choice(((), ("web",), ("tool", "web"), ("other",))),
            valid_from=self.memory.list(user_id="clock").items[0].valid_from
            + timedelta(hours=self.random.randrange(-5, 5)) if self.random.random() < 0.3 else None,
        )  # fmt: skip
        result = self.memory.add(item, user_id=self.random.choice(USERS))
        assert isinstance(result, warpmem.AddResult)
        self.ids.append(result.id)

    def trust(self) -> None:
        if self.ids:
            self.changed(
                lambda one: self.memory.update(one, trust=self.random.choice((0.0, 0.25, 0.75, 1.0)))
            )

    def end(self) -> None:
        def change(one: str) -> object:
            begins = self.memory.get(one).valid_from
            ends = self.random.choice((None, begins, begins + timedelta(hours=2)))
            return self.memory.update(one, valid_to=ends)

        self.changed(change)

    def revert(self) -> None:
        self.changed(lambda one: self.memory.revert(one, self.random.randrange(1, 4)))

    def delete(self) -> None:
        if self.random.random() < 0.3:
            self.changed(self.memory.delete)

    def source(self) -> None:
        source = self.random.choice(SOURCES)
        (self.memory.reinstate if source in self.memory.revoked() else self.memory.revoke)(source)

    def changed(self, change: object) -> None:
        if self.ids:
            with contextlib.suppress(NotFound, InputError):
                change(self.random.choice(self.ids))  # type: ignore[operator]


def check(memory: Memory) -> None:
    for user in USERS:
        everything = memory.list(user_id=user, include_past=True, quarantined=True, limit=10_000).items
        for key in KEYS[:-1]:
            for hidden in (False, True):
                values = sorted(
                    (item for item in everything if item.key == key and item.quarantined is hidden),
                    key=lambda item: (item.valid_from, item.id),
                )
                for one, following in pairwise(values):
                    assert one.valid_to is not None and one.valid_to <= following.valid_from
        found = {hit.item.id for hit in memory.search("note", user_id=user, k=4096)}
        listed = {item.id for item in memory.list(user_id=user, limit=10_000)}
        assert found == listed
        assert not any(item.quarantined for item in everything if item.id in found)
        both = {hit.item.id for hit in memory.search("note", user_id=user, k=4096, quarantined=True)}
        assert both == {item.id for item in memory.list(user_id=user, quarantined=True, limit=10_000)}


def answers(memory: Memory) -> object:
    return [
        [
            (item.id, item.version, item.trust)
            for item in memory.list(user_id=user, quarantined=True, limit=10_000)
        ]
        + [(hit.item.id, hit.score) for hit in memory.search("note", user_id=user, k=4096, quarantined=True)]
        for user in USERS
    ]


@pytest.mark.parametrize("seed", range(8))
def test_any_order_of_changes_keeps_the_rules(seed: int, tmp_path: Path, clock: FixedClock) -> None:
    path = tmp_path / "store"
    with warpmem.open(path, embedder="hashing", clock=clock, durability="os") as memory:
        memory.add("now", user_id="clock")
        changes = Changes(memory, clock, seed)
        for number in range(120):
            changes.make()
            if number % 10 == 9:
                check(memory)
        before = answers(memory)
    assert warpmem.verify(path).ok
    with warpmem.open(path, embedder="hashing", clock=clock) as memory:
        assert answers(memory) == before
        check(memory)
