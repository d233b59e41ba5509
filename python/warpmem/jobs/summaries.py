"""Summaries that need no model: every different text once, in the order of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..ingest.normalize import normalize_text
from ..ops.event_time import Days, days_of
from ..types import MemoryItem

_TOGETHER = 128
"""Repetitions in one line at most: a summary names them all as its sources."""


class Line(NamedTuple):
    """What one or more items say in the same words: those items, and how a summary puts it."""

    items: tuple[MemoryItem, ...]
    text: str


def lines_of(items: Sequence[MemoryItem]) -> list[Line]:
    """One line for each different text, by when it was said first. A repetition is counted, not repeated."""
    said: dict[str, list[MemoryItem]] = {}
    for item in sorted(items, key=lambda item: (item.valid_from, item.id)):
        said.setdefault(normalize_text(item.text), []).append(item)
    return [
        Line(tuple(some), _line(some))
        for same in said.values()
        for some in (same[start : start + _TOGETHER] for start in range(0, len(same), _TOGETHER))
    ]


def _line(same: Sequence[MemoryItem]) -> str:
    first, last = _span(same)
    text = " ".join(same[0].text.split())
    when = f"{first}" if first == last else f"{first} to {last}"
    return f"{when}: {text}" if len(same) == 1 else f"{when}, {len(same)} times: {text}"


def _when(item: MemoryItem) -> Days:
    """The days on which it happened; where nothing tells, the one from which on it is true."""
    return days_of(item.metadata) or (item.valid_from.date(), item.valid_from.date())


def _span(items: Sequence[MemoryItem]) -> Days:
    return min(_when(item)[0] for item in items), max(_when(item)[1] for item in items)


def days_of_all(items: Sequence[MemoryItem]) -> Days | None:
    """From the first day to the last of what the lines say, where any of it has its own."""
    if all(days_of(item.metadata) is None for item in items):
        return None
    return _span(items)


def text_of(lines: Sequence[Line]) -> str:
    """What a summary of some lines says: an event that is alone in it keeps its own words, and `valid_from`
    and its metadata say when it was."""
    if len(lines) == 1 and len(lines[0].items) == 1:
        return lines[0].items[0].text
    return "\n".join(line.text for line in lines)


def parted(
    lines: Sequence[Line], count: Callable[[str], int], max_tokens: int, max_items: int
) -> list[list[Line]]:
    """Lines in as few parts as have room for them, none cut; one that is too long by itself stands alone."""
    parts: list[list[Line]] = []
    tokens = items = 0
    for line in lines:
        cost = count(line.text) + 1
        if not parts or tokens + cost > max_tokens or items + len(line.items) > max_items:
            parts.append([])
            tokens = items = 0
        parts[-1].append(line)
        tokens += cost
        items += len(line.items)
    return parts
