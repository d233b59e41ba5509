"""What `add` takes, brought to one form: a list of NewItem.

    "text"                                          an item
    NewItem(...)                                    itself
    NewEntity(...), NewRelation(...)                what ingest/graph.py makes of them
    Message(role=..., content=...)                  an item of kind "message"
    {"role": ..., "content": ..., "name"?, "at"?}   the same; the chat format of OpenAI-compatible servers
    a list or tuple of these                        several items

In a mapping `content` may also be a list of {"type": "text", "text": ...} parts, and `timestamp` stands for
`at`; times are ISO 8601 strings with an offset, or aware datetimes. Other keys may be present as long as they
are empty (null, "", [] or {}), as in dumps of client libraries.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ..errors import InputError, InvalidText, InvalidTime, NotSupported
from ..ops.clock import to_micros
from ..types import Message, NewEntity, NewItem, NewRelation
from .graph import entity_item, relation_item

_MESSAGE_KEYS = frozenset(("role", "content", "name", "at", "timestamp"))
_TAKEN = (
    "a string, a NewItem, a NewEntity, a NewRelation, a Message, a mapping with role and content, "
    "or a list of those"
)


def to_new_items(content: Any, kind: str | None = None) -> tuple[list[NewItem], bool]:
    """(items, whether `content` was a list). Chat messages become items of `kind`, "message" when it is None.
    Raises InputError or a kind of it, naming position and type."""
    if isinstance(content, (list, tuple)):
        return [_to_item(one, f"content[{i}]", kind) for i, one in enumerate(content)], True
    return [_to_item(content, "content", kind)], False


def _to_item(value: Any, where: str, kind: str | None) -> NewItem:
    if isinstance(value, NewItem):
        return value
    if isinstance(value, str):
        return NewItem(text=value)
    if isinstance(value, NewEntity):
        return entity_item(value)
    if isinstance(value, NewRelation):
        return relation_item(value)
    if isinstance(value, Message):
        return _from_message(value, where, kind)
    if isinstance(value, Mapping):
        return _from_message(_parse(value, where), where, kind)
    raise InputError(f"{where}: cannot add {type(value).__name__}; give {_TAKEN}")


def _from_message(message: Message, where: str, kind: str | None) -> NewItem:
    role: Any = message.role  # a Struct's fields are not checked when it is made
    if not isinstance(role, str) or not role:
        raise InputError(f"{where}: role must be a string that is not empty")
    if not isinstance(message.content, str):
        raise InvalidText(f"{where}: content must be a string, not {type(message.content).__name__}")
    metadata: dict[str, Any] = {"role": role}
    if message.name is not None:
        if not isinstance(message.name, str):
            raise InputError(f"{where}: name must be a string, not {type(message.name).__name__}")
        metadata["name"] = message.name
    if message.at is not None:
        to_micros(message.at, f"{where}: at")
    kind = "message" if kind is None else kind
    return NewItem(text=message.content, kind=kind, metadata=metadata, valid_from=message.at)


def _parse(value: Mapping[Any, Any], where: str) -> Message:
    if "role" not in value or "content" not in value:
        raise InputError(f"{where}: a mapping is a chat message and needs the keys role and content")
    for key, extra in value.items():
        if key not in _MESSAGE_KEYS and not (
            extra is None or (isinstance(extra, (str, list, dict)) and not extra)
        ):
            raise NotSupported(
                f"{where}: key {key!r} of a chat message cannot be stored; put it into metadata of a NewItem"
            )
    if value.get("at") is not None and value.get("timestamp") is not None:
        raise InputError(f"{where}: at and timestamp mean the same; give one")
    at = value.get("at") if value.get("at") is not None else value.get("timestamp")
    return Message(
        role=value["role"],
        content=_content(value["content"], where),
        name=value.get("name"),
        at=None if at is None else _time(at, where),
    )


def _content(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, (list, tuple)):
        raise InvalidText(
            f"{where}: content must be a string or a list of text parts, not {type(content).__name__}"
        )
    texts: list[str] = []
    for i, part in enumerate(content):
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        if kind != "text":
            raise NotSupported(
                f"{where}: content part {i} is of type {kind!r}; only text parts can be stored"
            )
        text = part.get("text")
        if not isinstance(text, str):
            raise InvalidText(
                f"{where}: text of content part {i} must be a string, not {type(text).__name__}"
            )
        texts.append(text)
    return "\n".join(texts)


def _time(value: Any, where: str) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidTime(f"{where}: at is no ISO 8601 time, such as 2026-01-31T08:00:00+00:00") from None
    to_micros(value, f"{where}: at")
    assert isinstance(value, datetime)
    return value
