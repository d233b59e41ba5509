"""What a program wants to have remembered of messages."""

from __future__ import annotations

from typing import Any

import msgspec

from ..errors import InputError
from .items import KIND_NAME

_MAX_INSTRUCTIONS = 8_000
_MAX_DESCRIPTION = 500
_MAX_NAME = 100
_MOST = 64
_TAKEN = ("message", "document", "summary", "profile", "entity", "relation")
"""Kinds that something else than a memory of a message has."""


class Extraction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a language model is to remember of messages, and what not: the program's words, which messages
    cannot change.

    instructions    in words, up to 8,000 characters
    kinds           up to 64 kinds and what belongs to each, in up to 500 characters; a memory is of one of
                    these. None named: fact, preference, event, procedure
    keys            up to 64 keys and what each is, like {"home_city": "where the person lives"}; a memory has
                    one of these or none. None named: the model thinks of keys. A value is read by
                    `value("said:home_city")`
    only_keys       nothing but values of these keys is remembered, and no relations either
    relations       who stands in which relation to whom is remembered, too
    """

    instructions: str = ""
    kinds: dict[str, str] = {}
    keys: dict[str, str] = {}
    only_keys: bool = False
    relations: bool = True

    def __post_init__(self) -> None:
        _check_text(self.instructions, "instructions", _MAX_INSTRUCTIONS)
        if self.instructions and self.instructions.isspace():
            raise InputError("instructions are only whitespace: leave them out")
        for name, table in (("kinds", self.kinds), ("keys", self.keys)):
            _check_table(table, name)
            msgspec.structs.force_setattr(self, name, dict(table))  # the caller's may change
        for kind in self.kinds:
            if not KIND_NAME.fullmatch(kind) or kind in _TAKEN:
                raise InputError(
                    "kinds: a kind is a lower-case letter and up to 63 letters, digits or underscores, and "
                    f"none of {', '.join(_TAKEN)}; not {kind!r}"
                )
        for name, flag in (("only_keys", self.only_keys), ("relations", self.relations)):
            if not isinstance(flag, bool):
                raise InputError(f"{name} must be True or False, not {type(flag).__name__}")
        if self.only_keys and not self.keys:
            raise InputError("only_keys needs keys: nothing would be remembered")


def _check_table(table: Any, name: str) -> None:
    if not isinstance(table, dict):
        raise InputError(f"{name} must be a table of names and descriptions, not {type(table).__name__}")
    if len(table) > _MOST:
        raise InputError(f"{name} may hold {_MOST} entries, not {len(table)}")
    for key, description in table.items():
        _check_text(key, f"a name in {name}", _MAX_NAME)
        if not key.strip() or any(not character.isprintable() for character in key):
            raise InputError(f"a name in {name} is blank or holds a control character")
        _check_text(description, f"{name}.{key}", _MAX_DESCRIPTION)


def _check_text(value: Any, name: str, most: int) -> None:
    if not isinstance(value, str):
        raise InputError(f"{name} must be a string, not {type(value).__name__}")
    if len(value) > most:
        raise InputError(f"{name} may have {most} characters, not {len(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{name}: lone surrogate at character {error.start}, not valid Unicode") from None
