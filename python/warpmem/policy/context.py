"""Packing hits into a prompt: greedy in rank order, one line per item, never over the token budget.

A line is ``[<id>] (<kind>, <date of valid_from in UTC>) text``; with cite="number" the bracket holds the
item's place in `citations`, counted from 1, which costs fewer tokens. Whitespace and control characters
inside a text collapse to single spaces, so an item is always exactly one line and a remembered text cannot
pose as another item: whatever it says, even ``[id] (fact, ...)``, stands after its own item's id. Only the
first bracket of a line is a citation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC
from typing import Any, Literal

from ..errors import InputError
from ..protocols import TokenCounter
from ..types import ContextBlock, Hit, MemoryItem, Scope

_BREAKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")

_JOIN_SLACK = 2
"""Tokens that joining two lines may save at most, against counting them apart (a leading-space or start token
and a merged line break). Only decides when an exact recount is worth its time, never whether a line fits."""


def pack(
    hits: Sequence[Hit], max_tokens: int, counter: TokenCounter, cite: Literal["id", "number"] = "id"
) -> ContextBlock:
    """The best hits that fit into `max_tokens`, as counted by `counter` on the text as a whole.

    Of several items in one key slot (same scope and key) only the newest by valid_from takes part; an item
    that does not fit is left out and a later, shorter one may still fit. `omitted` counts the items left out
    for want of room. Raises InputError when max_tokens is not a positive int, or on another `cite`.
    """
    given: Any = max_tokens
    if not isinstance(given, int) or isinstance(given, bool):
        raise InputError(f"max_tokens must be an integer, not {type(given).__name__}")
    if max_tokens < 1:
        raise InputError(f"max_tokens must be at least 1, not {max_tokens}")
    if not isinstance(cite, str) or cite not in ("id", "number"):
        raise InputError("cite must be 'id' or 'number'")
    items = _current(hits)
    lines: list[str] = []
    ids: list[str] = []
    used = 0  # tokens of `lines`; since the last recount a sum over lines, which may be too high
    since = 0
    for item in items:
        line = format_line(item, item.id if cite == "id" else str(len(lines) + 1))
        cost = counter.count(f"\n{line}" if lines else line)
        over = used + cost - max_tokens
        if over > 0:
            if not lines or over > _JOIN_SLACK * (since + 1):
                continue
            exact = counter.count("\n".join((*lines, line)))
            if exact > max_tokens:
                if since:
                    used, since = counter.count("\n".join(lines)), 0
                continue
            used, since = exact, 0
        else:
            used, since = used + cost, since + 1
        lines.append(line)
        ids.append(item.id)
    text = "\n".join(lines)
    tokens = counter.count(text)
    while lines and tokens > max_tokens:  # a counter may find more in the whole than in the parts
        lines.pop()
        ids.pop()
        text = "\n".join(lines)
        tokens = counter.count(text)
    return ContextBlock(
        text=text,
        citations=tuple(ids),
        tokens=tokens,
        max_tokens=max_tokens,
        counter=counter.name,
        omitted=len(items) - len(ids),
    )


def format_line(item: MemoryItem, label: str) -> str:
    """One item as one line, cited as `label`."""
    day = item.valid_from.astimezone(UTC).date().isoformat()
    return f"[{label}] ({_one_line(item.kind)}, {day}) {_one_line(item.text)}"


def _one_line(text: str) -> str:
    return _BREAKS.sub(" ", text).strip()


def _current(hits: Sequence[Hit]) -> list[MemoryItem]:
    """The hits' items in rank order without repeated ids and without older items of a key slot."""
    newest: dict[tuple[Scope, str, bool], MemoryItem] = {}
    for hit in hits:
        item = hit.item
        if item.key is not None:
            slot = (item.scope, item.key, item.quarantined)
            known = newest.get(slot)
            if known is None or (item.valid_from, item.recorded_at) > (known.valid_from, known.recorded_at):
                newest[slot] = item
    seen: set[str] = set()
    items: list[MemoryItem] = []
    for hit in hits:
        item = hit.item
        if item.id in seen or (
            item.key is not None and newest[item.scope, item.key, item.quarantined].id != item.id
        ):
            continue
        seen.add(item.id)
        items.append(item)
    return items
