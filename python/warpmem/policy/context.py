"""Packing hits into a prompt: by value for their tokens, as quoted data, never over the token budget.

    <memories>
    2023-05-08, message:
    [<id>] Caroline: I went to a support group yesterday.
    [<id>] Melanie: How was it?
    2026-03-04, fact:
    [<id>] Caroline lives in Porto.
    </memories>

Items of one kind and day (of valid_from, in UTC) share a heading; those of one run are a passage, in the
order in which they were said. The passage of the best hit comes first. With cite="number" the bracket holds
the item's place in `citations`, counted from 1, which costs fewer tokens.

What says when it happened (ops/event_time.py) has that behind its text, as (2026-03-01) or
(2026-02-23 to 2026-03-01): "last week" alone would be that of whoever reads it.

Whitespace and control characters inside a text collapse to single spaces, so an item is always exactly one
line, and only the first bracket of a line is a citation. Whatever a text says, it is a quotation: it cannot
begin a line, and the tag around the block is one that none of the texts holds, ``memories-1`` where one says
``</memories>``.

What goes in is chosen greedily by worth for cost. An item's worth is the tokens of its text, an eighth of the
budget at most, divided by its place among the hits: any part of a text may hold the answer, and later hits do
so less often. Its cost is the tokens it adds, its heading included where nothing else has brought that. The
best hit goes first. `bench/locomo` compares what this finds with what the order of the hits does.

What stands word for word in an item of its day that it was made of, as a statement does in its message, is
not said twice: where both would go in, the item it was made of says it, and others have the room.
"""

from __future__ import annotations

import heapq
import itertools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any, Final, Literal, NamedTuple

from ..errors import InputError
from ..ops.event_time import days_of
from ..protocols import TokenCounter
from ..types import ContextBlock, Hit, MemoryItem, Scope
from ..types.scalars import int_of
from .counting import counted
from .echoes import echoes_of, said_by

_CONTROLS: Final = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")
"""But for those that are white space."""
_TAGS: Final = re.compile(r"</?memories(?:-([0-9]{1,9}))?")
_SHARE: Final = 8
"""An item is long when its text takes more than this part of the budget."""
_FOLLOWS: Final = 3
"""What follows a hit in its run stands so many times as far behind as the hit itself."""
_ROUNDS: Final = 3
_JOIN_SLACK: Final = 2
"""Tokens that joining two lines may save at most, against counting them apart. Only decides when an exact
recount is worth its time, never whether a line fits."""


_Passage = tuple[Scope | None, str, str]
"""What shares a heading: the scope where it is of a run, the kind, and the day."""


class _Line(NamedTuple):
    """One item that may go in. heading: the tokens that the heading of its passage costs."""

    item: MemoryItem
    text: str
    place: float
    passage: _Passage
    heading: int
    cost: int
    worth: float

    @property
    def day(self) -> str:
        return self.passage[2]


def pack(
    hits: Sequence[Hit],
    max_tokens: int,
    counter: TokenCounter,
    cite: Literal["id", "number"] = "id",
    *,
    following: Mapping[str, MemoryItem] | None = None,
    shown: Mapping[str, str] | None = None,
) -> ContextBlock:
    """What fits of the hits into `max_tokens`, as counted by `counter` on the text as a whole; "" where not
    even one does.

    following: by a hit's id the item that came next in its run, which may go in beside it. shown: by an
    item's id a text in place of its own. Of several items in one key slot (same scope and key) only the
    newest by valid_from takes part; an item that does not fit is left out and others may still fit. `omitted`
    counts the hits left out for want of room, not those whose words stand in what they were made of. Raises
    InputError when max_tokens is not a positive int, or on another `cite`.
    """
    check(max_tokens, cite)
    items = _current(hits)
    lines = _lines(items, following or {}, shown or {}, max_tokens, counter, cite)
    block = _Block(_tag([line.text for line in lines]), cite, counter)
    echoes = echoes_of(lines)
    chosen = _once(lines, max_tokens, block, echoes)
    tokens = block.count(chosen)
    while chosen and tokens > max_tokens:  # a counter may find more in the whole than in the parts
        chosen.pop()
        tokens = block.count(chosen)
    text, ids = block.render(chosen)
    told = said_by(ids, echoes).union(ids)
    return ContextBlock(
        text=text,
        citations=tuple(ids),
        tokens=tokens if chosen else 0,  # some counters find a token in an empty text
        max_tokens=max_tokens,
        counter=counter.name,
        omitted=sum(item.id not in told for item in items),
    )


def check(max_tokens: Any, cite: Any) -> int:
    """max_tokens as an int. Raises InputError when it is not a positive integer, or on a `cite` that is
    none."""
    budget = int_of(max_tokens)
    if budget is None:
        raise InputError(f"max_tokens must be an integer, not {type(max_tokens).__name__}")
    if budget < 1:
        raise InputError(f"max_tokens must be at least 1, not {budget}")
    if not isinstance(cite, str) or cite not in ("id", "number"):
        raise InputError("cite must be 'id' or 'number'")
    return budget


def long(max_tokens: int) -> int:
    """The tokens of text beyond which an item is long for this budget."""
    return max(1, max_tokens // _SHARE)


def one_line(text: str) -> str:
    """A text without line breaks and control characters."""
    if _CONTROLS.search(text) is not None:
        text = _CONTROLS.sub(" ", text)
    return " ".join(text.split())


class _Block:
    """How chosen lines are written and counted."""

    def __init__(self, tag: str, cite: str, counter: TokenCounter) -> None:
        self._tag = tag
        self._by_number = cite == "number"
        self._counter = counter

    def render(self, lines: Sequence[_Line]) -> tuple[str, list[str]]:
        """(text, ids in its order)."""
        passages: dict[_Passage, list[_Line]] = {}
        for line in sorted(lines, key=lambda line: line.place):
            passages.setdefault(line.passage, []).append(line)
        written: list[str] = []
        ids: list[str] = []
        for passage, members in passages.items():
            written.append(_heading(passage))
            if passage[0] is not None:
                members.sort(key=lambda line: line.item.id)  # ids of one owner sort by time
            for line in members:
                ids.append(line.item.id)
                label = str(len(ids)) if self._by_number else line.item.id
                written.append(f"[{label}] {line.text}")
        if not ids:
            return "", ids
        return "\n".join((f"<{self._tag}>", *written, f"</{self._tag}>")), ids

    def count(self, lines: Sequence[_Line]) -> int:
        return self._counter.count(self.render(lines)[0])


def _lines(
    items: Sequence[MemoryItem],
    following: Mapping[str, MemoryItem],
    shown: Mapping[str, str],
    max_tokens: int,
    counter: TokenCounter,
    cite: str,
) -> list[_Line]:
    """What may go in, best first."""
    places: dict[str, float] = {item.id: place for place, item in enumerate(items, 1)}
    known = {item.id: item for item in items}
    for place, item in enumerate(items, 1):
        after = following.get(item.id)
        if after is not None and (after.key is None or after.id in known):
            known.setdefault(after.id, after)
            places[after.id] = min(places.get(after.id, float("inf")), _FOLLOWS * place)
    most = long(max_tokens)
    headings: dict[_Passage, int] = {}
    anchor = counter.count("x")
    # A line beyond this never goes in, whatever else does: how far beyond makes no difference.
    beyond = max_tokens + _JOIN_SLACK * (len(known) + 1)

    def added(text: str) -> int:
        return max(1, counted(counter, f"x\n{text}", beyond + anchor) - anchor)

    label = items[0].id if items and cite == "id" else "10"
    bare = added(f"[{label}]")
    lines = []
    for item in sorted(known.values(), key=lambda item: places[item.id]):
        passage = _passage(item)
        if passage not in headings:
            headings[passage] = added(_heading(passage))
        text = one_line(shown.get(item.id, item.text) or f"{item.modality} {item.blob}")  # without a caption
        text += _when(item)
        cost = added(f"[{item.id if cite == 'id' else label}] {text}")
        content = max(1, cost - bare)
        at = places[item.id]
        lines.append(_Line(item, text, at, passage, headings[passage], cost, min(content, most) / at))
    return lines


def _once(
    lines: Sequence[_Line], max_tokens: int, block: _Block, echoes: Mapping[str, set[str]]
) -> list[_Line]:
    """The lines that go in, each of which says something that no other does."""
    chosen = _chosen(lines, max_tokens, block)
    kept = _apart(chosen, echoes)
    for _ in range(_ROUNDS):
        if len(kept) == len(chosen):
            break
        # Others have the room that they took; what says them stands where the best of them stood.
        lines, kept = _stepped_in(lines, kept, echoes)
        chosen = _chosen(lines, max_tokens, block, kept)
        kept = _apart(chosen, echoes)
    return kept


def _apart(chosen: Sequence[_Line], echoes: Mapping[str, set[str]]) -> list[_Line]:
    """Chosen lines without those that others of them say."""
    kept: set[str] = set()
    said: set[str] = set()
    for line in sorted(chosen, key=lambda line: -len(line.text)):  # of two that say each other one stays
        if line.item.id not in said:
            kept.add(line.item.id)
            said |= said_by((line.item.id,), echoes)
    return [line for line in chosen if line.item.id in kept]


def _stepped_in(
    lines: Sequence[_Line], kept: Sequence[_Line], echoes: Mapping[str, set[str]]
) -> tuple[list[_Line], list[_Line]]:
    """The lines that none of the kept ones says, and these. place: the best of what the line says."""
    places = {line.item.id: line.place for line in lines}
    kept = [
        line._replace(
            place=min(places.get(one, line.place) for one in (line.item.id, *echoes.get(line.item.id, ())))
        )
        for line in kept
    ]
    known = {line.item.id: line for line in kept}
    said = said_by(known, echoes) - known.keys()
    left = [known.get(line.item.id, line) for line in lines if line.item.id not in said]
    return left, kept


def _chosen(
    lines: Sequence[_Line], max_tokens: int, block: _Block, before: Sequence[_Line] = ()
) -> list[_Line]:
    """The lines that go in, in the order in which they were chosen, after those chosen `before`."""
    chosen = list(before)
    ids = {line.item.id for line in before}
    taken = {number for number, line in enumerate(lines) if line.item.id in ids}
    opened = {line.passage for line in before}
    # Tokens of the block; since the last recount a sum over lines, which may be too high.
    used, since = block.count(chosen) if chosen else 0, 0

    def cost(line: _Line) -> int:
        return line.cost + (0 if line.passage in opened else line.heading)

    def entry(number: int) -> tuple[bool, float, int, bool]:
        line = lines[number]
        return bool(number or before), -line.worth / cost(line), number, line.passage in opened

    members: dict[_Passage, list[int]] = {}
    for number, line in enumerate(lines):
        members.setdefault(line.passage, []).append(number)
    heap = [entry(number) for number in range(len(lines))]
    heapq.heapify(heap)
    while heap:
        _, _, number, cheap = heapq.heappop(heap)
        line = lines[number]
        if number in taken or cheap != (line.passage in opened):
            continue  # it stands there once more
        over = used + cost(line) - max_tokens
        if over > 0 and over > _JOIN_SLACK * (since + 1):
            continue
        if over > 0 or not chosen:
            exact = block.count([*chosen, line])
            if exact > max_tokens:
                if since:
                    used, since = block.count(chosen), 0
                continue
            used, since = exact, 0
        else:
            used, since = used + cost(line), since + 1
        chosen.append(line)
        taken.add(number)
        if line.passage not in opened:
            opened.add(line.passage)
            for other in members[line.passage]:
                if other not in taken:
                    heapq.heappush(heap, entry(other))
    return chosen


def _passage(item: MemoryItem) -> _Passage:
    day = item.valid_from.astimezone(UTC).date().isoformat()
    return (None if item.scope.run_id is None else item.scope, one_line(item.kind), day)


def _when(item: MemoryItem) -> str:
    """When what an item says happened, where it tells."""
    days = days_of(item.metadata)
    if days is None:
        return ""
    first, last = (day.isoformat() for day in days)
    return f" ({first})" if first == last else f" ({first} to {last})"


def _heading(passage: _Passage) -> str:
    return f"{passage[2]}, {passage[1]}:"


def _tag(texts: Sequence[str]) -> str:
    """A name for the block's tags that no text can open or close."""
    said = "".join(unicodedata.normalize("NFKC", "".join(text.split())).casefold() for text in texts)
    found = _TAGS.findall(said)
    if not found:
        return "memories"
    begun = {digits[:length] for digits in found for length in range(1, len(digits) + 1)}
    return next(f"memories-{number}" for number in itertools.count(1) if str(number) not in begun)


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
