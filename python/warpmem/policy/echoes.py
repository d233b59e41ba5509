"""What an item says that stands in another one already, which it was made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from ..types import MemoryItem

_TRIES: Final = 16
"""How often a text is looked for in another, where it stands within words only."""


class Line(Protocol):
    """An item as it is shown: by its text, under a day."""

    @property
    def item(self) -> MemoryItem: ...
    @property
    def text(self) -> str: ...
    @property
    def day(self) -> str: ...


def echoes_of(lines: Iterable[Line]) -> dict[str, set[str]]:
    """By an item's id those of others of its day that were made of it and stand in it word for word."""
    lines = list(lines)
    known = {line.item.id: line for line in lines}
    echoes: dict[str, set[str]] = {}
    for line in lines:
        for source in line.item.sources:
            origin = known.get(source)
            if origin is None or origin is line or origin.day != line.day:
                continue
            if _stands_in(line.text, origin.text):
                echoes.setdefault(source, set()).add(line.item.id)
    return echoes


def _stands_in(text: str, other: str) -> bool:
    at = other.find(text)
    for _ in range(_TRIES):
        if at < 0:
            return False
        end = at + len(text)
        if not (_within(other[at - 1 : at + 1]) or _within(other[end - 1 : end + 1])):
            return True
        at = other.find(text, at + 1)
    return False


def _within(pair: str) -> bool:
    """Whether there is no end of a word between two characters."""
    return len(pair) == 2 and pair.isalnum()


def said_by(ids: Iterable[str], echoes: Mapping[str, set[str]]) -> set[str]:
    """The ids of what these items say, and of what that says."""
    said: set[str] = set()
    new = set(ids)
    while new:
        new = {echo for one in new for echo in echoes.get(one, ())} - said
        said |= new
    return said
