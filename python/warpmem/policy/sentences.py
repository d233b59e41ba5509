"""Sentences of a text, and a choice of them in place of the whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Final

GAP: Final = "…"
"""Stands where sentences were left out."""
_TRIED: Final = 64

_CLOSING: Final = "[\"'\u201d\u2019\u00bb)\\]]*"
_END: Final = re.compile(
    rf"[.!?\u2026]+{_CLOSING}(?=\s|$)|[\u3002\uff01\uff1f\uff61]+[\u300d\u300f\u201d\u2019\uff09]*|[\n\r\u2028\u2029]"
)
_NEXT: Final = re.compile(r"[ \t]*(.?)")
_SHORT: Final = (
    "mr|mrs|ms|dr|prof|st|jr|sr|vs|etc|approx|fig|dept|inc|ltd|co|ca|usw|bzw|nr|str|jan|feb|apr|aug|sep"
    "|sept|oct|nov|dec|[a-z]"
)
_LONGEST: Final = 12
_ABBREVIATION: Final = re.compile(rf"(?:\b(?:{_SHORT})|\b[a-z]\.[a-z])\..?$|\bno\.[0-9]$", re.IGNORECASE)


def sentences(text: str) -> list[str]:
    """The sentences of a text in order, without the white space around them; none is empty.

    One ends at a line break, at a full stop of Chinese or Japanese, or at . ! ? … before white space. A stop
    behind an abbreviation or an initial ends none, nor one before a small letter: two sentences taken for one
    are a little long, half a sentence is wrong.
    """
    found: list[str] = []
    start = 0
    for match in _END.finditer(text):
        if match[0][0] in ".!?\u2026":
            tail = text[max(start, match.end() - _LONGEST) : match.end()]
            behind = _NEXT.match(text, match.end())
            following = "" if behind is None else behind[1]
            if following.islower() or _ABBREVIATION.search(tail + following):
                continue
        found.append(text[start : match.end()])
        start = match.end()
    found.append(text[start:])
    return [piece for piece in map(str.strip, found) if piece]


def joined(parts: Sequence[str], kept: Collection[int]) -> str:
    """The sentences of these numbers in their order, with a mark in each place where others were."""
    pieces: list[str] = []

    def leave_out() -> None:
        if not pieces or pieces[-1] != GAP:  # a sentence may be one
            pieces.append(GAP)

    following = 0
    for number in sorted(kept):
        if number > following:
            leave_out()
        pieces.append(parts[number])
        following = number + 1
    if following < len(parts):
        leave_out()
    return " ".join(pieces)


def best(parts: Sequence[str], worths: Sequence[float], most: int, count: Callable[[str], int]) -> set[int]:
    """The numbers of the sentences worth most that have at most `most` tokens together; the best one in any
    case."""
    order = sorted(range(len(parts)), key=lambda number: (-worths[number], number))
    kept = {order[0]}
    for number in order[1:_TRIED]:
        if count(joined(parts, kept | {number})) <= most:
            kept.add(number)
    return kept
