"""Markdown by its headings, and what all documents have in common: blocks and lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)$")
_LINE_ENDS = "\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


class Block(NamedTuple):
    """text[start:end] of a document. path: the headings above it, outermost first; a chunk has one path."""

    start: int
    end: int
    path: tuple[str, ...] = ()


def lines_of(text: str) -> list[tuple[int, str]]:
    """(start, line without its end) of each line, and at the end (length of the text, "")."""
    found = []
    start = 0
    for line in text.splitlines(keepends=True):
        found.append((start, line.rstrip(_LINE_ENDS)))
        start += len(line)
    return [*found, (start, "")]


def sections(lines: Sequence[tuple[int, str]]) -> list[Block]:
    """Paragraphs, lists, tables and fenced code of Markdown, each under its path. A heading goes with what
    follows it: its first paragraph, or a deeper heading where there is none."""
    found: list[Block] = []
    path: list[tuple[int, str]] = []
    begin, bare, fence, before = 0, False, "", ""
    for number, (start, line) in enumerate(lines):
        fenced = _FENCE.match(line)
        if fence:
            if fenced and fenced[1].startswith(fence) and not fenced[2].strip():
                fence, line = "", ""  # what follows begins anew
        elif heading := _heading(line, before, lines[number + 1][1] if number + 1 < len(lines) else ""):
            if start > begin and not (bare and path and heading[0] > path[-1][0]):
                found.append(Block(begin, start, tuple(title for _, title in path)))
                begin = start
            while path and path[-1][0] >= heading[0]:
                path.pop()
            path.append(heading)
            bare = True
        elif line.strip() and not (bare and _UNDERLINE.match(line) and before.strip()):
            if not before.strip() and start > begin and not bare:
                found.append(Block(begin, start, tuple(title for _, title in path)))
                begin = start
            bare = False
            fence = fenced[1] if fenced else ""
        before = line
    end = lines[-1][0]
    if end > begin:
        found.append(Block(begin, end, tuple(title for _, title in path)))
    return found


def _heading(line: str, before: str, below: str) -> tuple[int, str] | None:
    """(level, title) of a line that is a heading: by its marks, or underlined and with nothing above."""
    marked = _HEADING.match(line)
    if marked:
        return len(marked[1]), (marked[2] or "").strip()
    if before.strip() or not line.strip() or _UNDERLINE.match(line) or _FENCE.match(line):
        return None
    underline = _UNDERLINE.match(below)
    return None if underline is None else (1 if underline[1][0] == "=" else 2, line.strip())
