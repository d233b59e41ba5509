"""What a Memory knows of entities and relations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..types import (
    AddResult,
    Durability,
    EntityPage,
    NewEntity,
    NewRelation,
    RelationPage,
    Scope,
)
from . import arguments
from .by_writer import Follower, by_writer

if TYPE_CHECKING:
    from ..protocols import Index
    from .graph import Graph
    from .serving import Current, Serving
    from .spaces import Spaces


class Connected(Follower):
    """The part of Memory that is a graph. See Memory.

    An entity is what the `entities` of items name, each owner's by itself. Names that differ in case,
    compatibility forms or spaces alone are one; the newest record made by `name_entity` that mentions a name
    says whose it is. A search that names fewer ids sees more items, and so more names.
    """

    _current: Current
    _graph: Graph
    _spaces: Spaces
    _check_open: Callable[[], None]
    add: Callable[..., Any]

    @by_writer
    def name_entity(
        self,
        name: str,
        *,
        aliases: Sequence[str] = (),
        kind: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        corpus_id: str | None = None,
        scope: Scope | None = None,
        metadata: dict[str, Any] | None = None,
        sources: Sequence[str] = (),
        trust: float | None = None,
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
        vector: Any = None,
        idempotency_key: str | None = None,
        durability: Durability | None = None,
    ) -> AddResult:
        """Say what an entity is called, and of what `kind` it is, such as "person". What was said of this
        name in this scope before ends, aliases included.

        An alias may be another entity's name: then they are one. `add` takes a NewEntity, which has fields
        for all that an item can have. Raises as `add`.
        """
        what = NewEntity(
            name=name, aliases=aliases, kind=kind, metadata=metadata, sources=sources, trust=trust,
            valid_from=valid_from, valid_to=valid_to, vector=vector, idempotency_key=idempotency_key,
        )  # fmt: skip
        return self._add_one(what, scope, user_id, agent_id, run_id, corpus_id, durability)

    @by_writer
    def relate(
        self,
        subject: str,
        predicate: str,
        object: str,
        *,
        functional: bool = False,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        corpus_id: str | None = None,
        scope: Scope | None = None,
        metadata: dict[str, Any] | None = None,
        sources: Sequence[str] = (),
        trust: float | None = None,
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
        vector: Any = None,
        idempotency_key: str | None = None,
        durability: Durability | None = None,
    ) -> AddResult:
        """Remember that two entities are related: ``relate("Ada", "lives in", "Paris", user_id=...)``.

        functional: there is one object at a time, so a later call closes the earlier relation. sources: ids
        of the items that say so; erased with the last of them. The same relation again, while it is true, is
        "touched", and its sources are joined to those it has. `add` takes a NewRelation, which has fields for
        all that an item can have. Raises as `add`.
        """
        what = NewRelation(
            subject=subject, predicate=predicate, object=object, functional=functional, metadata=metadata,
            sources=sources, trust=trust, valid_from=valid_from, valid_to=valid_to, vector=vector,
            idempotency_key=idempotency_key,
        )  # fmt: skip
        return self._add_one(what, scope, user_id, agent_id, run_id, corpus_id, durability)

    def _add_one(
        self,
        what: NewEntity | NewRelation,
        scope: Scope | None,
        user_id: str | None,
        agent_id: str | None,
        run_id: str | None,
        corpus_id: str | None,
        durability: Durability | None,
    ) -> AddResult:
        result = self.add(
            what, scope=scope, user_id=user_id, agent_id=agent_id, run_id=run_id, corpus_id=corpus_id,
            durability=durability,
        )  # fmt: skip
        assert isinstance(result, AddResult)
        return result

    def _indexes(self, serving: Serving) -> list[Index]:
        """That of the texts, and those of the other spaces."""
        return [serving.index, *(space.index for space in self._spaces if space.exists())]

    def entities(
        self,
        scope: Scope | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        corpus_id: str | None = None,
        query: str | None = None,
        as_of: datetime | None = None,
        known_at: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> EntityPage:
        """One page of the entities that a scope's items name, by canonical name without case.

        Items that are current and unexpired count, or those of `as_of` and `known_at` as in `search`. query:
        only entities with a name that stands in this text (in its first 4096 words), the longest one where
        several begin. An owner of whom nothing is known has none. limit <= 10,000. Raises InputError.
        """
        self._check_open()
        whose = arguments.required(arguments.one_scope(scope, user_id, agent_id, run_id, corpus_id))
        with self._current.use() as serving:
            return self._graph.entities(self._indexes(serving), whose, query, as_of, known_at, limit, cursor)

    def relations(
        self,
        scope: Scope | None = None,
        entity: str | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        corpus_id: str | None = None,
        predicate: str | None = None,
        as_of: datetime | None = None,
        known_at: datetime | None = None,
        include_past: bool = False,
        limit: int = 100,
        cursor: str | None = None,
    ) -> RelationPage:
        """One page of a scope's relations, earlier added first: all, or those of one entity, by any of its
        names and at either end.

        Relations that are true now, or at `as_of` by what was known at `known_at`; include_past: whenever
        they are true. predicate: only this one, in any case. An entity that the scope does not know, another
        owner's included, has none. limit <= 10,000. Raises InputError.
        """
        self._check_open()
        whose = arguments.required(arguments.one_scope(scope, user_id, agent_id, run_id, corpus_id))
        with self._current.use() as serving:
            return self._graph.relations(
                self._indexes(serving), whose, entity, predicate, as_of, known_at, include_past, limit, cursor
            )
