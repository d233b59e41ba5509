"""How items and hits look: as JSON objects and as lines for a person."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from ..memory.exporting import item_fields as item_fields
from ..types import Entity, Hit, MemoryItem, Relation

T = TypeVar("T")

_BREAKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


def to_json(value: Any) -> str:
    """One line of JSON; datetimes as ISO 8601."""
    return msgspec.json.encode(value).decode("utf-8")


def print_json(value: Any) -> None:
    """Print one line of JSON, which stays JSON on a stdout that is not Unicode."""
    line = to_json(value)
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        # Characters outside ASCII occur in JSON's strings only, where \u escapes mean the same.
        line = _NOT_ASCII.sub(lambda match: json.dumps(match[0])[1:-1], line)
    print(line)


def path_text(path: str | os.PathLike[str]) -> str:
    """A path as text, bytes that are not UTF-8 as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def hit_fields(hit: Hit) -> dict[str, Any]:
    """score, parts, then the item's fields."""
    return {"score": hit.score, "parts": hit.parts, **item_fields(hit.item)}


def one_line(text: str, width: int | None = None) -> str:
    """A text without line breaks and control characters, cut to `width` characters."""
    line = _BREAKS.sub(" ", text).strip()
    if width is not None and len(line) > width:
        return line[: width - 3].rstrip() + "..."
    return line


def day(when: datetime) -> str:
    """The date in UTC."""
    return when.astimezone(UTC).date().isoformat()


def item_line(item: MemoryItem) -> str:
    """An item on one line: id, kind, since when, until when, key, text."""
    until = f" to {day(item.valid_to)}" if item.valid_to is not None else ""
    key = f" {one_line(item.key)} =" if item.key is not None else ""
    return f"{item.id}  {item.kind}, {day(item.valid_from)}{until}:{key} {one_line(item.text)}"


def entity_line(entity: Entity) -> str:
    """An entity on one line: its names and kind, how many items name it, from when to when."""
    kind = f" ({one_line(entity.kind)})" if entity.kind is not None else ""
    aliases = f", also {', '.join(map(one_line, entity.aliases))}" if entity.aliases else ""
    return (
        f"{one_line(entity.name)}{kind}{aliases}: {entity.items} items, {day(entity.first)} to "
        f"{day(entity.last)}"
    )


def relation_line(relation: Relation) -> str:
    """A relation on one line: its id, since when, until when, subject, predicate and object."""
    until = f" to {day(relation.valid_to)}" if relation.valid_to is not None else ""
    triple = " | ".join(map(one_line, (relation.subject, relation.predicate, relation.object)))
    return f"{relation.id}  {day(relation.valid_from)}{until}: {triple}"


def print_page(
    entries: Iterable[T],
    cursor: str | None,
    line: Callable[[T], str],
    *,
    json: bool,
    fields: Callable[[T], Any] = lambda entry: entry,
) -> None:
    """Print a listing, each entry as a line or as JSON of its fields, and how it is continued, if it is."""
    for entry in entries:
        if json:
            print_json(fields(entry))
        else:
            print(line(entry))
    if cursor is not None:
        if json:
            print_json({"cursor": cursor})
        else:
            print(f"more: --cursor {cursor}")


def score_terms(hit: Hit) -> str:
    """The score as its weighted sum, from the parts of an explained search."""
    parts = hit.parts
    terms = [
        f"{parts[f'weight_{name}']:g} x {name} {parts[name]:.4f}"
        for name in ("similarity", "lexical", "adjacent", "entities", "recency", "priority")
        if parts.get(f"weight_{name}")
    ]
    reranked = f"; rerank {parts['rerank']:.4f}" if "rerank" in parts else ""
    return f"{hit.score:.4f} = {' + '.join(terms) or '0'}{reranked}"
