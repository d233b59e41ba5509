"""The reading side of entities and relations: pages of them."""

from __future__ import annotations

import base64
import binascii
import itertools
from collections.abc import Sequence
from datetime import datetime

from ..errors import InputError
from ..ingest.names import fold_name
from ..ops.clock import to_datetime, to_micros
from ..ops.ids import format_id
from ..ops.texts import check_name
from ..policy.metadata import check_text
from ..protocols import EntityNames, Index, Log
from ..records import NamedEntity, ScopePart
from ..types import Entity, EntityPage, MemoryItem, Relation, RelationPage, Scope
from . import arguments
from .cache import versions_of

_MAX_PAGE = 10_000
_FETCH = 256


class Graph:
    """Pages of entities and relations. Thread-safe."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def entities(
        self,
        indexes: Sequence[Index],
        scope: Scope,
        query: str | None,
        as_of: datetime | None,
        known_at: datetime | None,
        limit: int,
        cursor: str | None,
    ) -> EntityPage:
        limit = arguments.check_count(limit, "limit", _MAX_PAGE)
        after = None if cursor is None else _parse_cursor(cursor)
        if query is not None:
            check_text(query, "the query")
        names = self._names(indexes, scope, as_of, known_at)
        found = [] if names is None else names.entities(after, limit + 1, query)
        page = found[:limit]
        records = versions_of(self._log, [entity.record for entity in page if entity.record is not None])
        recorded = {item.id: item for item in records if item is not None}
        entities = tuple(_entity(entity, recorded) for entity in page)
        return EntityPage(entities, _cursor(page[-1].form) if len(found) > limit else None)

    def relations(
        self,
        indexes: Sequence[Index],
        scope: Scope,
        entity: str | None,
        predicate: str | None,
        as_of: datetime | None,
        known_at: datetime | None,
        past: bool,
        limit: int,
        cursor: str | None,
    ) -> RelationPage:
        limit = arguments.check_count(limit, "limit", _MAX_PAGE)
        arguments.check_flag(past, "include_past")
        after = -1 if cursor is None else _parse_ordinal(cursor)
        if entity is not None:
            check_name(entity, "entity")
        wanted = None if predicate is None else fold_name(check_name(predicate, "predicate"))
        names = self._names(indexes, scope, as_of, known_at)
        if names is None:
            return RelationPage((), None)
        found = iter(names.relations(entity, after, past=past))
        relations: list[Relation] = []
        last = after
        while some := list(itertools.islice(found, _FETCH)):
            items = versions_of(self._log, [name for _, name in some])
            for (ordinal, _), item in zip(some, items, strict=True):
                relation = None if item is None else _relation(item, names)
                if relation is None or not (wanted is None or fold_name(relation.predicate) == wanted):
                    continue
                if len(relations) == limit:
                    return RelationPage(tuple(relations), _cursor(str(last)))
                relations.append(relation)
                last = ordinal
        return RelationPage(tuple(relations), None)

    def _names(
        self, indexes: Sequence[Index], scope: Scope, as_of: datetime | None, known_at: datetime | None
    ) -> EntityNames | None:
        at = self._log.now() if as_of is None else to_micros(as_of, "as_of")
        known = None if known_at is None else to_micros(known_at, "known_at")
        owner = self._log.owner(scope.owner)
        if owner is None:
            return None
        part = ScopePart(owner, *arguments.attributes(scope))
        found = [names for index in indexes if (names := index.names(part, at, known)) is not None]
        return found[0].joined(found[1:]) if found else None


def _entity(found: NamedEntity, recorded: dict[str, MemoryItem]) -> Entity:
    record_id = None if found.record is None else format_id(found.record[0])
    record = None if record_id is None else recorded.get(record_id)
    kind = None if record is None else record.metadata.get("kind")
    return Entity(
        name=found.name,
        aliases=found.aliases,
        kind=kind if isinstance(kind, str) else None,
        items=found.items,
        first=to_datetime(found.first),
        last=to_datetime(found.last),
        id=record_id,
    )


def _relation(item: MemoryItem, names: EntityNames) -> Relation | None:
    """None for an item of that kind from before relations had a meaning."""
    subject, predicate, object_ = (item.metadata.get(name) for name in ("subject", "predicate", "object"))
    if not (isinstance(subject, str) and isinstance(predicate, str) and isinstance(object_, str)):
        return None
    return Relation(
        id=item.id,
        subject=names.title(subject),
        predicate=predicate,
        object=names.title(object_),
        valid_from=item.valid_from,
        valid_to=item.valid_to,
        sources=item.sources,
    )


def _cursor(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode("utf-8")).decode("ascii")


def _parse_cursor(cursor: str) -> str:
    try:
        return base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True).decode("utf-8")
    except (ValueError, binascii.Error, AttributeError) as error:
        raise InputError("this is not a cursor of a page of entities or relations") from error


def _parse_ordinal(cursor: str) -> int:
    text = _parse_cursor(cursor)
    if not (text.isascii() and text.isdigit()):
        raise InputError("this is not a cursor of a page of relations")
    return int(text)
