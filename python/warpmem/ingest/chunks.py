"""A document in chunks under a token budget, with nothing lost.

Blocks (blocks.py) that stand beside each other under one path go together as long as they fit. One that does
not fit alone is cut at the coarsest of these that helps: paragraphs, lines, sentences (also of scripts that
are written without spaces), words, characters. The chunks, one after the other, are the document.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Sequence
from typing import Final

import msgspec

from ..errors import InputError, InvalidText
from ..protocols import TokenCounter
from ..types import Format
from .blocks import blocks

_CUTS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"\n(?:[^\S\n]*\n)+",
        r"\n(?:[^\S\n]*\n)*|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]+",
        (
            r"[.!?\u2026\u061f\u06d4\u0964][\"'\u201d\u2019\u00bb)\]]*\s+"
            r"|[\u3002\uff01\uff1f\uff0e\uff61][\u300d\u300f\u201d\u2019\uff09\u3011]*\s*"
        ),
        r"\s+|[\u3001\uff0c\uff1b\uff1a]",
    )
)
"""Each ends a piece, from coarse to fine."""

_BLANK = re.compile(r"[\s\x00-\x1f\x7f-\xa0\xad\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff]*")


class Chunk(msgspec.Struct, frozen=True):
    """document[start:end], in characters. path: the headings above it, outermost first."""

    start: int
    end: int
    path: tuple[str, ...]


def chunks(text: str, format: Format, counter: TokenCounter, max_tokens: int) -> list[Chunk]:
    """The chunks of a document in order: the first begins at 0, each where the one before it ends, the last
    ends where the document does.

    None counts more than `max_tokens`, but for white space, which goes with what is before it however long it
    is, and single characters that count more. Raises InvalidText when the document holds nothing that can be
    seen, InputError when max_tokens is below 8.
    """
    if max_tokens < _LEAST:
        raise InputError(f"max_tokens must be at least {_LEAST}, not {max_tokens}")
    if _BLANK.fullmatch(text):
        raise InvalidText("the document holds no text")
    packer = _Packer(text, counter, max_tokens)
    found: list[Chunk] = []
    together: list[tuple[int, int]] = []
    path: tuple[str, ...] = ()
    for block in blocks(text, format):
        if together and block.path != path:
            found += [Chunk(start, end, path) for start, end in packer.packed(together, 0)]
            together = []
        path = block.path
        together.append((block.start, block.end))
    found += [Chunk(start, end, path) for start, end in packer.packed(together, 0)]
    return _without_blanks(text, found)


_LEAST: Final = 8


class _Packer:
    def __init__(self, text: str, counter: TokenCounter, max_tokens: int) -> None:
        self._text = text
        self._counter = counter
        self._max = max_tokens

    def packed(self, spans: Sequence[tuple[int, int]], depth: int) -> list[tuple[int, int]]:
        """Adjoining spans, joined while they fit; those that do not fit alone are cut from `depth` on."""
        found: list[tuple[int, int]] = []
        group: list[tuple[int, int]] = []
        used = 0
        for span in spans:
            cost = self._tokens(*span)
            if group and used + cost > self._max:
                found += self._fitting(group, depth)
                group, used = [], 0
            group.append(span)
            used += cost
        return found + self._fitting(group, depth) if group else found

    def _fitting(self, group: Sequence[tuple[int, int]], depth: int) -> list[tuple[int, int]]:
        """A group as one span, or in parts where the whole counts more than its parts did."""
        start, end = group[0][0], group[-1][1]
        if self._tokens(start, end) <= self._max:
            return [(start, end)]
        if len(group) > 1:
            half = len(group) // 2
            return self._fitting(group[:half], depth) + self._fitting(group[half:], depth)
        return self._cut(start, end, depth)

    def _cut(self, start: int, end: int, depth: int) -> list[tuple[int, int]]:
        while depth < len(_CUTS):
            ends = [match.end() for match in _CUTS[depth].finditer(self._text, start, end)]
            depth += 1
            pieces = _spans(start, [cut for cut in ends if cut < end], end)
            if len(pieces) > 1:
                return self.packed(pieces, depth)
        return self._characters(start, end)

    def _characters(self, start: int, end: int) -> list[tuple[int, int]]:
        """Cut where a character begins that does not belong to the one before it, as late as it fits."""
        found = []
        while start < end:
            fits = start + 1  # it is taken whether it fits or not
            fails = min(start + self._max, end) + 1
            # Nobody counts the whole rest for every piece: twice as far while that fits.
            while fails <= end and self._tokens(start, fails - 1) <= self._max:
                fits, fails = fails - 1, min(2 * fails - start, end + 1)
            while fails - fits > 1:
                middle = (fits + fails) // 2
                if self._tokens(start, middle) <= self._max:
                    fits = middle
                else:
                    fails = middle
            cut = fits
            while start + 1 < cut < end and _belongs(self._text[cut], self._text[cut - 1]):
                cut -= 1
            if cut == start + 1 < end:
                cut = fits  # nothing but marks that belong together
            found.append((start, cut))
            start = cut
        return found

    def _tokens(self, start: int, end: int) -> int:
        return self._counter.count(self._text[start:end])


def _spans(start: int, cuts: Sequence[int], end: int) -> list[tuple[int, int]]:
    edges = [start, *cuts, end]
    return [(one, other) for one, other in itertools.pairwise(edges) if other > one]


def _belongs(character: str, before: str) -> bool:
    """Whether a character shapes the one before it: combining marks, joiners and what they join."""
    return unicodedata.category(character) in ("Mn", "Mc", "Me") or "\u200d" in (character, before)


def _without_blanks(text: str, found: Sequence[Chunk]) -> list[Chunk]:
    """Chunks that show nothing join the one before them, or at the beginning the one behind."""
    kept: list[Chunk] = []
    begin = None
    for chunk in found:
        if _BLANK.fullmatch(text, chunk.start, chunk.end):
            if kept:
                kept[-1] = msgspec.structs.replace(kept[-1], end=chunk.end)
            elif begin is None:
                begin = chunk.start
            continue
        if begin is not None:
            chunk = msgspec.structs.replace(chunk, start=begin)
            begin = None
        kept.append(chunk)
    return kept
