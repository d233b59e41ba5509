"""The form in which names of entities are told apart, and found in a text."""

from __future__ import annotations

import functools
import re
from typing import Final

from .normalize import normalize_text
from .words import UNSPACED, marks

_ASCII: Final = re.compile(r"[a-z0-9]+|\S")


def tokens(text: str) -> list[str]:
    """The caseless words of a text, its other characters one by one; so is a script without spaces. Unlike
    words for search: "C" and "C++" differ, and so do "Jose" and "José"."""
    if text.isascii():
        return _ASCII.findall(text.lower())
    return _pattern().findall(normalize_text(text))


def fold_name(name: str) -> str:
    """Equal for names that differ only in case, compatibility forms and spaces; "" for one of spaces."""
    return " ".join(tokens(name))


@functools.cache
def _pattern() -> re.Pattern[str]:
    letter = rf"[^\W_{UNSPACED}]"
    return re.compile(rf"[{UNSPACED}]|{letter}(?:{letter}|[{marks()}])*|\S")
