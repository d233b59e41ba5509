"""The conversations as lists of items, and recall of what was found."""

from __future__ import annotations

import functools
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from warpmem import Memory, MemoryItem, NewItem
from warpmem.cli import locomo
from warpmem.cli.locomo import Conversation, Question
from warpmem.protocols import TokenCounter

KS = (1, 5, 10, 20)
BUDGET = 1000
_JOIN = 2
GRANULARITIES = ("turn", "observation")


class Stored(NamedTuple):
    """One item: its text, the turns it tells of, and the line that it makes in a plain prompt."""

    text: str
    turns: frozenset[str]
    kind: str
    day: str


def stored(conversation: Conversation, granularity: str) -> list[Stored]:
    """What is stored of a conversation, in order."""
    return [
        as_stored(item) for _, items in locomo.sessions(conversation, granularity, True) for item in items
    ]


def as_stored(item: NewItem | MemoryItem) -> Stored:
    """As `warpmem eval locomo` makes it: with its kind, its day and its turns."""
    assert item.metadata is not None and item.kind is not None and item.valid_from is not None
    turns = frozenset(item.metadata["turns"])
    return Stored(item.text, turns, item.kind, item.valid_from.date().isoformat())


def fill(memory: Memory, conversations: Sequence[Conversation], granularity: str) -> None:
    """Store all of them as `warpmem eval locomo` does."""
    for conversation in conversations:
        user = conversation.sample_id
        for number, items in locomo.sessions(conversation, granularity, True):
            memory.add_many(items, user_id=user, run_id=f"session {number}", durability="os")


def questions(
    conversations: Sequence[Conversation],
) -> Iterator[tuple[Conversation, Question, frozenset[str]]]:
    """Those that have evidence, and the turns that it names."""
    for conversation in conversations:
        for question in conversation.qa:
            wanted = locomo.turn_ids(question.evidence)
            if wanted:
                yield conversation, question, wanted


def share(wanted: frozenset[str], found: Sequence[Stored]) -> float:
    return len(wanted & frozenset().union(*(one.turns for one in found))) / len(wanted)


Found = Callable[[Conversation, Question], Sequence[Stored]]


def recall(conversations: Sequence[Conversation], found: Found) -> dict[str, Any]:
    """recall@k, overall and by category, in the form of `warpmem eval locomo`."""
    shares: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for conversation, question, wanted in questions(conversations):
        hits = found(conversation, question)
        for name in ("overall", str(question.category)):
            for k in KS:
                shares[name][k].append(share(wanted, hits[:k]))
    means = {name: {str(k): statistics.fmean(of_k[k]) for k in KS} for name, of_k in shares.items()}
    return {"overall": means.pop("overall"), "by_category": dict(sorted(means.items()))}


def in_order(hits: Sequence[Stored], counter: TokenCounter) -> list[Stored]:
    """The hits that fit into the budget in their order, each a line of number, kind, date and text; one that
    does not fit is left out, and shorter ones behind it may fit."""
    lines: list[str] = []
    taken: list[Stored] = []
    used = since = 0  # tokens so far; since the last recount a sum over lines, which may be too high
    for hit in hits:
        text = f"({hit.kind}, {hit.day}) {' '.join(hit.text.split())}"
        line = f"[{len(lines) + 1}] {text}"
        over = used + _cost(counter, text) - BUDGET
        if over > 0:
            if over > _JOIN * (since + 1):
                continue
            exact = counter.count("\n".join([*lines, line]))
            if exact > BUDGET:
                used, since = counter.count("\n".join(lines)), 0
                continue
            used, since = exact, 0
        else:
            used, since = used + _cost(counter, text), since + 1
        lines.append(line)
        taken.append(hit)
    return taken


@functools.cache
def _cost(counter: TokenCounter, text: str) -> int:
    """What a line costs by itself: at most _JOIN more than among others."""
    return counter.count(f"\n[10] {text}")


def recall_in_order(
    conversations: Sequence[Conversation], found: Found, counter: TokenCounter
) -> dict[str, Any]:
    """What plain lines in the order of the hits hold of the evidence."""
    shares: dict[str, list[float]] = defaultdict(list)
    items = []
    for conversation, question, wanted in questions(conversations):
        taken = in_order(found(conversation, question), counter)
        items.append(len(taken))
        for name in ("overall", str(question.category)):
            shares[name].append(share(wanted, taken))
    means = {name: statistics.fmean(values) for name, values in shares.items()}
    return {
        "recall": {"overall": means.pop("overall"), "by_category": dict(sorted(means.items()))},
        "items": statistics.fmean(items),
    }
