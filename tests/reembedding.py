"""What must hold of a store's vectors, whatever re-embedding did to it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from warpmem import Memory, Scope
from warpmem.embed.hashing import HashingEmbedder
from warpmem.ops.clock import FixedClock
from warpmem.storage import codec
from warpmem.storage.values import HistoryValue, ItemValue, decode, decode_row

USERS = ("ann", "bob", "eve")


class Hooked:
    """The hashing embedder, with a function that is called before it embeds."""

    def __init__(self, dimension: int, hook: Callable[[Sequence[str]], Any] = len) -> None:
        self._made = HashingEmbedder(dimension)
        self.hook = hook
        self.model_id, self.dimension = self._made.model_id, dimension
        self.embedded: list[str] = []

    def embed(self, texts: Sequence[str], *, role: Literal["document", "query"]) -> NDArray[np.float32]:
        self.hook(texts)
        if role == "document":
            self.embedded += texts
        return self._made.embed(texts, role=role)


def vector_of(text: str, dimension: int) -> NDArray[np.float32]:
    """(dimension,) float32, of unit length as close as float64 gets."""
    row = HashingEmbedder(dimension).embed([text], role="document")[0].astype(np.float64)
    return (row / np.sqrt(row @ row)).astype(np.float32)


def check_vectors(memory: Memory, given: dict[str, NDArray[np.float32]] | None = None) -> int:
    """Every searchable version has one vector, that of its text in the store's model; the other family is
    empty unless a job is under way. given: vectors by text, for those that were not embedded. Returns how
    many vectors there are."""
    log: Any = memory._log
    engine, identity = log._engine, log.identity
    other = next(family for family in codec.VECTOR_FAMILIES if family != identity.vectors)
    if log.job() is None:
        assert list(engine.scan(other, b"", codec.KEYS_END)) == [], "vectors of another model were left"
    wanted: dict[bytes, ItemValue] = {}
    for key, stored in engine.scan("items", b"", codec.KEYS_END):
        current = decode(codec.unseal("items", key, stored), ItemValue)
        wanted[codec.vector_key(key, current.version)] = current
        for version in range(1, current.version):
            name = codec.history_key(key, version)
            past = decode(codec.unseal("history", name, engine.get("history", name)), HistoryValue).item
            assert past is not None
            wanted[codec.vector_key(key, version)] = past
    found = dict(engine.scan(identity.vectors, b"", codec.KEYS_END))
    assert found.keys() == wanted.keys(), "a version lacks its vector, or a vector its version"
    for name, stored in found.items():
        row = decode_row(name[:20], 1, codec.unseal(identity.vectors, name, stored), identity.dimension)
        value = wanted[name]
        assert (row.retired_at, row.valid_to, row.ordinal) == (
            value.retired_at, value.valid_to, value.ordinal,
        )  # fmt: skip
        expected = (given or {}).get(value.text)
        if expected is None:
            expected = vector_of(value.text, identity.dimension)
        np.testing.assert_allclose(row.vector, expected, rtol=0, atol=2e-7)
    return len(found)


def hits(memory: Memory, query: str, user: str, k: int = 1000, **options: Any) -> list[tuple[str, int, str]]:
    """(id, version, score bits) of a search."""
    found = memory.search(query, scope=Scope(user_id=user), k=k, **options)
    return [(hit.item.id, hit.item.version, hit.score.hex()) for hit in found]


def change(memory: Memory, clock: FixedClock, rng: random.Random, count: int) -> None:
    """Random adds, keyed adds, updates with and without a new text, repetitions and deletions."""
    for _ in range(count):
        clock.advance(timedelta(seconds=1))
        user, seed = rng.choice(USERS), rng.randrange(1 << 30)
        items = memory.list(user_id=user, limit=1000, include_past=True).items
        action = rng.choice(("add", "add", "key", "text", "metadata", "repeat", "delete"))
        if action == "add" or not items:
            memory.add(f"item {seed}", user_id=user, metadata={"n": seed % 5})
        elif action == "key":
            memory.add(f"value {seed}", user_id=user, key=f"k{seed % 3}")
        elif action == "text":
            memory.update(rng.choice(items).id, text=f"new {seed}")
        elif action == "metadata":
            memory.update(rng.choice(items).id, metadata={"n": seed % 5})
        elif action == "repeat":
            memory.add(rng.choice(items).text, user_id=user)
        else:
            memory.delete(rng.choice(items).id)


def answers(memory: Memory) -> list[Any]:
    moments = [change.at for change in memory.changes(limit=10_000)]
    then = moments[len(moments) // 2]
    options: tuple[dict[str, Any], ...] = (
        {}, {"as_of": then}, {"known_at": then}, {"filters": {"metadata.n": {"gte": 2}}},
    )  # fmt: skip
    return [hits(memory, "item value 7", user, **chosen) for user in USERS for chosen in options]
