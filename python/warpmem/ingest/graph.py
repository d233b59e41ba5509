"""Entities and relations as the items that they are stored as.

    kind "entity"    metadata name, aliases and, where it is known, kind; a key of its name
    kind "relation"  metadata subject, predicate and object; a functional one has a key of subject and
                     predicate

What such an item names follows from its metadata, whoever made it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ..errors import InputError
from ..ops.digest import digest16
from ..ops.texts import check_name
from ..types import NewEntity, NewItem, NewRelation
from ..types.graph import ENTITY, RELATION
from .names import fold_name

_MAX_ALIASES: Final = 255
_NAMES: Final = ("name", "aliases", "kind")
_TRIPLE: Final = ("subject", "predicate", "object")


def entity_item(entity: NewEntity) -> NewItem:
    """The item that gives an entity its names. Raises InputError."""
    aliases: Any = entity.aliases
    if isinstance(aliases, str) or not isinstance(aliases, Sequence):
        raise InputError(f"aliases must be a list of strings, not {type(aliases).__name__}")
    facts: dict[str, Any] = {"name": entity.name, "aliases": list(aliases)}
    if entity.kind is not None:
        facts["kind"] = entity.kind
    names = _names_of_entity(facts)
    known_as = f", also known as {', '.join(names[1:])}" if names[1:] else ""
    kind = "" if entity.kind is None else f" ({entity.kind})"
    return NewItem(
        text=f"{entity.name}{kind}{known_as}" if entity.text is None else entity.text,
        scope=entity.scope,
        kind=ENTITY,
        metadata=_joined(facts, entity.metadata, _NAMES),
        key=_key(ENTITY, entity.name),
        sources=entity.sources,
        trust=entity.trust,
        valid_from=entity.valid_from,
        valid_to=entity.valid_to,
        expires_at=entity.expires_at,
        vector=entity.vector,
        idempotency_key=entity.idempotency_key,
    )


def relation_item(relation: NewRelation) -> NewItem:
    """The item that a relation is. Raises InputError."""
    facts = relation_facts(relation.subject, relation.predicate, relation.object)
    _names_of_relation(facts)
    if not isinstance(relation.functional, bool):
        raise InputError(f"functional must be True or False, not {type(relation.functional).__name__}")
    return NewItem(
        text=" ".join(facts.values()) if relation.text is None else relation.text,
        scope=relation.scope,
        kind=RELATION,
        metadata=_joined(facts, relation.metadata, _TRIPLE),
        priority=relation.priority,
        key=_key(RELATION, relation.subject, relation.predicate) if relation.functional else None,
        sources=relation.sources,
        trust=relation.trust,
        valid_from=relation.valid_from,
        valid_to=relation.valid_to,
        expires_at=relation.expires_at,
        vector=relation.vector,
        idempotency_key=relation.idempotency_key,
    )


def relation_facts(subject: str, predicate: str, object: str) -> dict[str, Any]:
    """The metadata of a relation."""
    return dict(zip(_TRIPLE, (subject, predicate, object), strict=True))


def named_by(kind: str, metadata: Mapping[str, Any], given: tuple[str, ...]) -> tuple[str, ...]:
    """What an item names: `given`, but of an entity's record its name and aliases, of a relation its subject
    and object. Raises InputError where metadata lacks them, or `given` are others."""
    if kind == ENTITY:
        names = _names_of_entity(metadata)
    elif kind == RELATION:
        names = _names_of_relation(metadata)
    else:
        return given
    if given and given != names:
        raise InputError(f"the entities of an item of kind {kind!r} follow from its metadata: leave them out")
    return names


def _names_of_entity(facts: Mapping[str, Any]) -> tuple[str, ...]:
    aliases = facts.get("aliases", [])
    if not isinstance(aliases, list):
        raise InputError(f"an entity's aliases must be a list of strings, not {type(aliases).__name__}")
    if len(aliases) > _MAX_ALIASES:
        raise InputError(f"an entity has {_MAX_ALIASES} aliases at most, not {len(aliases)}")
    if "kind" in facts:
        _name(facts["kind"], "an entity's kind")
    name = _name(facts.get("name"), "an entity's name")
    return (name, *(_name(alias, f"aliases[{i}]") for i, alias in enumerate(aliases)))


def _names_of_relation(facts: Mapping[str, Any]) -> tuple[str, ...]:
    subject, _, object_ = (_name(facts.get(name), f"a relation's {name}") for name in _TRIPLE)
    return subject, object_


def _name(value: Any, what: str) -> str:
    if not fold_name(check_name(value, what)):
        raise InputError(f"{what} must hold more than spaces")
    return str(value)


def _joined(facts: dict[str, Any], metadata: Any, own: Sequence[str]) -> Any:
    """Metadata that a caller gave, with what this module says of the item; it is checked with all other."""
    if not isinstance(metadata, dict):
        return facts if metadata is None else metadata
    taken = [name for name in own if name in metadata]
    if taken:
        raise InputError(f"metadata may not have the keys {', '.join(taken)} here: they are arguments")
    return {**metadata, **facts}


def _key(kind: str, *names: str) -> str:
    """A key of any names, of one length: the same for names that differ in case alone."""
    digest = digest16(b"", *(fold_name(name).encode("utf-8") for name in names))
    return f"{kind}:{digest.hex()}"
