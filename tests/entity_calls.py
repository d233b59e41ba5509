"""Short forms of what tests of entities ask a Memory."""

from __future__ import annotations

from typing import Any

from warpmem import AddResult, Memory


def add(memory: Memory, text: str, *entities: str, user: str = "ann", **more: Any) -> str:
    result = memory.add(text, user_id=user, entities=entities, **more)
    assert isinstance(result, AddResult)
    return result.id


def names(memory: Memory, user: str = "ann", **more: Any) -> list[str]:
    return [entity.name for entity in memory.entities(user_id=user, **more)]


def triples(memory: Memory, entity: str | None = None, user: str = "ann", **more: Any) -> list[str]:
    page = memory.relations(user_id=user, entity=entity, **more)
    return [f"{one.subject} {one.predicate} {one.object}" for one in page]
