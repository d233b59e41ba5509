"""What a store answers after it took conversations in, counted: `python -m conversation_figures` prints it.

current first   questions whose first hit holds the value of now
old absent      questions among whose ten hits no value of before is
as of           questions about each former value, as of when it held, whose first hit holds it
agreeing        contexts of all that is asked in which no two values of one attribute stand
duplicates      the share of facts in the store that say what another one says
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any, Literal, NamedTuple

import warpmem
from conversations import ATTRIBUTES, OTHERS, Conversation, Extractor, conversations, question
from scripted_extraction import ReadingModel
from warpmem import Memory
from warpmem.ingest.statements import sentences, states
from warpmem.ops.clock import FixedClock

COUNT = 120
SEED = 7


class Figures(NamedTuple):
    """Shares, but for the first two."""

    conversations: int
    messages: int
    current_first: float
    old_absent: float
    as_of: float
    agreeing: float
    duplicates: float


def take_in(memory: Memory, clock: FixedClock, talk: Conversation, infer: Literal["rules", "llm"]) -> None:
    """Every session of a conversation, each when it was."""
    for session in talk.sessions:
        if session:
            clock.set(session[-1].at)
            memory.add(
                [{"role": message.role, "content": message.text, "at": message.at} for message in session],
                user_id=talk.user, infer=infer, wait=True,
            )  # fmt: skip


def measure(memory: Memory, talks: list[Conversation]) -> Figures:
    """Ask a store that took the conversations in."""
    first, absent, then, agreeing = [], [], [], []
    facts = repeated = 0
    for talk in talks:
        stored = [item.text for item in memory.list(user_id=talk.user, kinds=["fact"], limit=10_000)]
        facts += len(stored)
        said = Counter(_means(talk, text) for text in stored)
        repeated += sum(count - 1 for count in said.values())
        for span in talk.spans:
            value, attribute = span.fact.value, span.fact.attribute
            if span.end is None:
                values = _answers(memory, talk, attribute)
                former = {other.fact.value for other in talk.spans if other.fact.attribute == attribute}
                first.append(values[:1] == [value])
                absent.append(not (former - {value}).intersection(values[:10]))
                agreeing.append(len(_in_context(memory, talk, attribute)) <= 1)
            elif span.end - span.begin > timedelta(hours=1):
                middle = span.begin + (span.end - span.begin) / 2
                then.append(_answers(memory, talk, attribute, as_of=middle)[:1] == [value])
    messages = sum(len(session) for talk in talks for session in talk.sessions)
    return Figures(
        len(talks), messages, _share(first), _share(absent), _share(then), _share(agreeing), repeated / facts
    )


def _means(talk: Conversation, text: str) -> tuple[str, ...]:
    """What a fact says, however it is worded: attribute and value, or the text."""
    return next(((name, *found) for name in ATTRIBUTES if (found := _values(talk, name, text))), (text,))


def _answers(memory: Memory, talk: Conversation, attribute: str, **options: Any) -> list[str]:
    """The values of the person's attribute in the hits of a question about it, best first."""
    ask = question(talk.who, attribute)
    found = memory.search(ask, user_id=talk.user, kinds=["fact"], k=20, **options)
    return [value for hit in found for value in _values(talk, attribute, hit.item.text)]


def _in_context(memory: Memory, talk: Conversation, attribute: str) -> set[str]:
    context = memory.context(question(talk.who, attribute), user_id=talk.user, kinds=["fact"], k=50)
    return {value for line in context.text.split("\n") for value in _values(talk, attribute, line)}


def _values(talk: Conversation, attribute: str, text: str) -> list[str]:
    """Which values a text gives the person's attribute, as the model words it or as he does."""
    if any(f"{other} of " in text for other in OTHERS):
        return []
    ways = (ATTRIBUTES[attribute][1], *ATTRIBUTES[attribute][2])
    return [
        value for value in ATTRIBUTES[attribute][3]
        if any(way.format(who=talk.who, value=value) in text for way in ways)
    ]  # fmt: skip


def _share(outcomes: list[bool]) -> float:
    return sum(outcomes) / len(outcomes) if outcomes else 1.0


def run(infer: Literal["rules", "llm"], count: int = COUNT, errors: float = 0.0, **options: Any) -> Figures:
    """Take conversations in and ask."""
    talks = list(conversations(count, SEED))
    clock = FixedClock(talks[0].sessions[0][0].at)
    model = ReadingModel(Extractor(talks, errors))
    with warpmem.open(clock=clock, language_model=model, background_work=False, **options) as memory:
        for talk in talks:
            take_in(memory, clock, talk, infer)
        clock.set(max(message.at for talk in talks for session in talk.sessions for message in session))
        return measure(memory, talks)


def small_talk(count: int = COUNT) -> tuple[float, float]:
    """(share of the sentences without a fact that the rules drop, share of those with one that they keep)."""
    dropped, kept = [], []
    for talk in conversations(count, SEED):
        for message in (message for session in talk.sessions for message in session):
            for sentence in sentences(message.text):
                if any(fact.value in sentence for fact in message.facts):
                    kept.append(states(sentence))
                else:
                    dropped.append(not states(sentence))
    return _share(dropped), _share(kept)


if __name__ == "__main__":
    print("rules: dropped, kept", small_talk())
    print("llm", run("llm"))
    print("llm, one verdict in ten wrong", run("llm", errors=0.1))
    print("rules", run("rules"))
    print("rules, hybrid", run("rules", mode="hybrid"))
