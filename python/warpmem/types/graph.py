"""Entities and relations: what a caller gives, and what a store answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from .items import Scope

ENTITY: Final = "entity"
RELATION: Final = "relation"
"""The kinds of the items that an entity's record and a relation are."""


class NewEntity(msgspec.Struct, frozen=True, kw_only=True):
    """What to add so that an entity has a canonical name and others: an item of kind "entity".

    A later one of the same name and scope takes the place of this one, its aliases included. `kind` is the
    entity's own, such as "person". text: instead of one made of the names. The rest is as in NewItem.
    """

    name: str
    aliases: Sequence[str] = ()
    kind: str | None = None
    scope: Scope | None = None
    text: str | None = None
    metadata: dict[str, Any] | None = None
    sources: Sequence[str] = ()
    trust: float | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    expires_at: datetime | None = None
    vector: Any = None
    idempotency_key: str | None = None


class NewRelation(msgspec.Struct, frozen=True, kw_only=True):
    """What to add so that two entities are related: an item of kind "relation".

    functional: a subject has one object of this predicate at a time in its scope, so a later relation closes
    the earlier one, as a later value of a key does. Subjects and predicates that differ in case alone are the
    same there; aliases are not. text: instead of "subject predicate object". The rest is as in NewItem.
    """

    subject: str
    predicate: str
    object: str
    functional: bool = False
    scope: Scope | None = None
    text: str | None = None
    metadata: dict[str, Any] | None = None
    priority: float | None = None
    sources: Sequence[str] = ()
    trust: float | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    expires_at: datetime | None = None
    vector: Any = None
    idempotency_key: str | None = None


class Entity(msgspec.Struct, frozen=True, kw_only=True):
    """What items of a scope name.

    name      the canonical one, or as the earliest item writes it
    aliases   its other names, in order; None of them is written as the name in another case
    kind      as its NewEntity said
    items     how many items name it, relations included and its own record not
    first, last
              when the earliest and the latest of them begin to be true; of its own record where there is none
    id        of its own record, an item of kind "entity"; None for one that items name and nothing more
    """

    name: str
    aliases: tuple[str, ...]
    kind: str | None
    items: int
    first: datetime
    last: datetime
    id: str | None


class Relation(msgspec.Struct, frozen=True, kw_only=True):
    """How two entities are related, and when that is true: an item of kind "relation" in short.

    Subject and object have their canonical names. id: the item's.
    """

    id: str
    subject: str
    predicate: str
    object: str
    valid_from: datetime
    valid_to: datetime | None
    sources: tuple[str, ...]


class EntityPage(msgspec.Struct, frozen=True):
    """One page of entities by name. `cursor` continues it; None when there is no more."""

    entities: tuple[Entity, ...]
    cursor: str | None

    def __len__(self) -> int:
        return len(self.entities)

    def __iter__(self) -> Iterator[Entity]:
        return iter(self.entities)


class RelationPage(msgspec.Struct, frozen=True):
    """One page of relations, earlier added first. `cursor` continues it; None when there is no more."""

    relations: tuple[Relation, ...]
    cursor: str | None

    def __len__(self) -> int:
        return len(self.relations)

    def __iter__(self) -> Iterator[Relation]:
        return iter(self.relations)
