"""Checks on the two free parts of an item: its metadata and its text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from ..config import MAX_METADATA_BYTES, MAX_TEXT_BYTES
from ..errors import InvalidMetadata, InvalidText
from ..types.scalars import plain

MAX_METADATA_DEPTH = 32
MIN_INT = -(1 << 63)
MAX_INT = (1 << 64) - 1

_SHOWN_KEY = 40


def check_metadata(value: Any) -> dict[str, Any]:
    """A deep copy of `value` as plain JSON: dict, list, str, bool, int, float, None.

    Tuples become lists, and scalars of NumPy what they stand for. Raises InvalidMetadata naming the path when
    a value is not JSON, an integer needs more than 64 bits, a float is not finite, nesting exceeds 32 levels
    or the JSON text exceeds 64 KiB.
    """
    if type(value) is dict and not value:
        return {}
    if not isinstance(value, (dict, Mapping)):
        raise InvalidMetadata(f"metadata must be a JSON object (a dict), not {type(value).__name__}")
    copy: dict[str, Any] = _Copier().copy(value, "metadata", 1)
    size = len(msgspec.json.encode(copy))
    if size > MAX_METADATA_BYTES:
        raise InvalidMetadata(f"metadata is {size} bytes of JSON, over the limit of {MAX_METADATA_BYTES}")
    return copy


class _Copier:
    """Copies, and stops as soon as the copy is certain to be over the size limit."""

    def __init__(self) -> None:
        self._least = 0

    def _count(self, least: int) -> None:
        """`least`: bytes that the next piece takes as JSON, or fewer."""
        self._least += least
        if self._least > MAX_METADATA_BYTES:
            raise InvalidMetadata(
                f"metadata is at least {self._least} bytes of JSON, over the limit of {MAX_METADATA_BYTES}"
            )

    def copy(self, value: Any, path: str, depth: int) -> Any:
        self._count(1)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._string(value, path)
        if isinstance(value, int):
            if not MIN_INT <= value <= MAX_INT:
                raise InvalidMetadata(f"{path}: integer outside {MIN_INT} to {MAX_INT}; store it as a string")
            return int(value)
        if isinstance(value, float):
            if not math.isfinite(value):
                raise InvalidMetadata(
                    f"{path}: JSON has no NaN and no infinity; leave the value out or store null"
                )
            return float(value)
        if isinstance(value, (dict, list, tuple, Mapping)) and depth > MAX_METADATA_DEPTH:
            raise InvalidMetadata(f"{path}: nested {depth} deep, over the limit of {MAX_METADATA_DEPTH}")
        if isinstance(value, (dict, Mapping)):
            return {
                self._key(k, path): self.copy(v, f"{path}.{_shown(k)}", depth + 1) for k, v in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self.copy(v, f"{path}[{i}]", depth + 1) for i, v in enumerate(value)]
        known = plain(value)
        if known is not value:
            return self.copy(known, path, depth)
        raise InvalidMetadata(
            f"{path}: {type(value).__name__} is not JSON; convert it to a string or a number"
        )

    def _key(self, key: Any, path: str) -> str:
        if not isinstance(key, str):
            raise InvalidMetadata(f"{path}: keys must be strings, not {type(key).__name__}")
        return self._string(key, f"{path} (a key)")

    def _string(self, value: str, path: str) -> str:
        self._count(len(value))
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidMetadata(
                f"{path}: lone surrogate at character {error.start}, not valid Unicode"
            ) from None
        return str.__str__(value)


def _shown(key: Any) -> str:
    """A key as it stands in a path; the copy of the key itself reports what is wrong with it."""
    text = str(key)
    return text if len(text) <= _SHOWN_KEY else text[:_SHOWN_KEY] + "..."


def check_caption(text: Any) -> str:
    """As check_text, of what need not say anything."""
    return "" if isinstance(text, str) and not text else check_text(text)


def check_text(text: Any, what: str = "text") -> str:
    """The text as a plain str. what: it is, for messages.

    Raises InvalidText when it is not a string, is empty or only whitespace, is not valid Unicode, or takes
    more than 1 MiB of UTF-8.
    """
    if not isinstance(text, str):
        raise InvalidText(f"{what} must be a string, not {type(text).__name__}")
    if len(text) > MAX_TEXT_BYTES:
        raise InvalidText(_too_long(what, f"at least {len(text)}"))
    if not text or text.isspace():
        advice = "; there is nothing to remember" if what == "text" else ""
        raise InvalidText(f"{what} is empty or only whitespace{advice}")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InvalidText(
            f"lone surrogate at character {error.start} of {len(text)}, not valid Unicode; "
            "decode the source with errors='replace'"
        ) from None
    if size > MAX_TEXT_BYTES:
        raise InvalidText(_too_long(what, str(size)))
    return str.__str__(text)


def _too_long(what: str, size: str) -> str:
    advice = "; split it into several items" if what == "text" else ""
    return f"{what} is {size} bytes of UTF-8, over the limit of {MAX_TEXT_BYTES}{advice}"
