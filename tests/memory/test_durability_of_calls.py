"""Each call that takes `durability` waits for the disk, or does not, whatever the store does by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, get_args

import pytest

import warpmem
from warpmem import AddResult, Memory
from warpmem.types import Durability

Call = Callable[[Memory, str, Durability], Any]

CALLS: Final[dict[str, Call]] = {
    "add": lambda memory, known, how: memory.add("new", user_id="ann", durability=how),
    "add_many": lambda memory, known, how: memory.add_many(["new"], user_id="ann", durability=how),
    "add_document": lambda memory, known, how: memory.add_document(
        "A document.", name="d", user_id="ann", durability=how
    ),
    "name_entity": lambda memory, known, how: memory.name_entity("Ann", user_id="ann", durability=how),
    "relate": lambda memory, known, how: memory.relate("Ann", "knows", "Bob", user_id="ann", durability=how),
    "update": lambda memory, known, how: memory.update(known, text="other", durability=how),
    "revert": lambda memory, known, how: memory.revert(known, 1, durability=how),
    "delete": lambda memory, known, how: memory.delete(known, durability=how),
    "delete_all": lambda memory, known, how: memory.delete_all(user_id="ann", durability=how),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("how", get_args(Durability))
def test_a_call_is_as_durable_as_it_says(monkeypatch: pytest.MonkeyPatch, call: str, how: Durability) -> None:
    other: Durability = "os" if how == "sync" else "sync"
    with warpmem.open(None, embedder="hashing", durability=other) as memory:
        added = memory.add("known", user_id="ann")
        assert isinstance(added, AddResult)
        memory.update(added.id, text="known better")
        memory.flush()
        engine: Any = memory._log._engine  # type: ignore[attr-defined]
        syncs: list[bool] = []
        monkeypatch.setattr(engine, "sync", lambda: syncs.append(True))
        before = memory._log.totals()["sequence"]
        CALLS[call](memory, added.id, how)
        assert memory._log.totals()["sequence"] > before
        assert bool(syncs) == (how == "sync")


def test_every_call_that_takes_it_is_here() -> None:
    taking = {
        name
        for name in dir(Memory)
        if not name.startswith("_") and "durability" in getattr(getattr(Memory, name), "__annotations__", {})
    }
    assert taking == CALLS.keys()
