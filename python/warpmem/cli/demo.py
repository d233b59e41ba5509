"""The command demo: store a bundled sample, search it, reopen the store, and find the same answers.

Everything runs offline on the default embedder. Times come from the sample; "now" is the day after its last
message, so that the output does not depend on the machine's clock.
"""

from __future__ import annotations

import argparse
import struct
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from .. import compose
from ..errors import InputError
from ..memory import Memory
from ..types import Hit, NewItem, Ranking, Scope
from .output import day, one_line, score_terms

NOW = datetime(2026, 6, 1, tzinfo=UTC)
"""The demo's present."""

_FACTS = ("fact", "preference", "procedure", "event")
_WIDTH = 96
_CONTEXT_TOKENS = 240


class Fact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a message of the sample establishes. valid_from: when that is not the time of the message."""

    kind: str
    text: str
    key: str | None = None
    metadata: dict[str, Any] = {}
    priority: float = 0.5
    valid_from: datetime | None = None


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message of the sample."""

    user_id: str
    agent_id: str
    run_id: str
    role: str
    at: datetime
    text: str
    facts: tuple[Fact, ...] = ()


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A search of the demo. `expect` is a part of the best hit's text."""

    user: str
    query: str
    expect: str
    k: int = 1
    as_of: datetime | None = None
    kinds: tuple[str, ...] | None = None
    filters: dict[str, Any] | None = None
    ranking: Ranking | None = None


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}T00:00:00+00:00")


def _over_time(user: str, query: str, expected: Sequence[tuple[str | None, str]]) -> tuple[Question, ...]:
    """One question at several times; None is now."""
    return tuple(
        Question(user=user, query=query, expect=text, as_of=None if at is None else _moment(at), kinds=_FACTS)
        for at, text in expected
    )


_DOSE = "What dose of thiamazole does the cat take?"
_RANKED = Ranking(recency=0.3, priority=0.2, half_life=timedelta(days=90))

SECTIONS: tuple[tuple[str, tuple[Question, ...]], ...] = (
    (
        "Recall: the best of everything one user said or was told",
        (Question(user="odile", query="order PO-20417 crushed envelopes", expect="PO-20417", k=3),),
    ),
    (
        "Facts that change: a new value supersedes the old one, and the past stays searchable",
        _over_time(
            "tobias",
            _DOSE,
            [(None, "back to 2.5 mg"), ("2025-09-01", "takes 5 mg"), ("2025-04-20", "takes 2.5 mg")],
        )
        + _over_time(
            "nadia",
            "When is the deadline of project Kestrel?",
            [(None, "1 August 2025"), ("2025-07-01", "14 July 2025"), ("2025-05-01", "30 June 2025")],
        ),
    ),
    (
        "Learned late: said in March 2026, true from June 2025, so it answers for July 2025 only",
        _over_time(
            "kwame",
            "Who is Kwame's Japanese tutor?",
            [(None, "Arakawa"), ("2025-07-15", "Hoshino"), ("2025-04-20", "Whitlock")],
        ),
    ),
    (
        'Filter, applied inside the scan: {"metadata.magnitude": {"gte": 9}}',
        (
            Question(
                user="desmond",
                query="What was my magnitude estimate of a variable star?",
                expect="magnitude 9.9",
                k=3,
                filters={"metadata.magnitude": {"gte": 9}},
            ),
        ),
    ),
    (
        "Isolation: two users went to Lisbon, each finds only their own trip",
        (
            Question(user="nadia", query="trip to Lisbon", expect="robot learning", kinds=_FACTS),
            Question(user="odile", query="trip to Lisbon", expect="Lisbon", kinds=_FACTS),
        ),
    ),
    (
        "Ranking: meaning and words + 0.3 recency (halves in 90 days) + 0.2 priority, in one scan",
        (
            Question(
                user="kwame",
                query="What must I know before we eat?",
                expect="",
                k=3,
                kinds=_FACTS,
                ranking=_RANKED,
            ),
        ),
    ),
)


def load_sample() -> list[Line]:
    """The bundled messages, in order."""
    text = files("warpmem.cli").joinpath("data", "conversations.jsonl").read_bytes()
    return msgspec.json.Decoder(Line).decode_lines(text)


def run(args: argparse.Namespace) -> int:
    """Run the demo; 1 when an answer is not the expected one, or changes over the reopening."""
    sample = load_sample()
    with _directory(args.keep) as path:
        started = time.perf_counter()
        with compose.open(path) as memory:
            _store(memory, sample)
            wrong = _show(memory)
            _show_context(memory)
            before = _answers(memory)
        _heading("Restart: close the store, open it again, ask everything once more")
        with compose.open(path) as memory:
            after = _answers(memory)
        same = before == after
        hits = sum(len(answer) for answer in before)
        verdict = "the same ids in the same order with the same score bits" if same else "DIFFERENT ANSWERS"
        print(f"  {len(before)} searches, {hits} hits: {verdict}")
        print(f"  {time.perf_counter() - started:.1f} s in all")
        _next_steps(args.keep)
    for question in wrong:
        print(f"  UNEXPECTED: {question.user} asked {question.query!r}, expected {question.expect!r}")
    return 0 if same and not wrong else 1


@contextmanager
def _directory(keep: str | None) -> Iterator[str]:
    """Where the store goes: a new directory, removed afterwards unless the caller named it."""
    if keep is not None:
        if Path(keep).exists() and (not Path(keep).is_dir() or any(Path(keep).iterdir())):
            raise InputError(f"--keep {keep!r}: name a directory that does not exist yet, or an empty one")
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="warpmem-demo-") as path:
        yield path


# --------------------------------------------------------------------------------------- storing


def _store(memory: Memory, sample: Sequence[Line]) -> None:
    users = len({line.user_id for line in sample})
    facts = sum(len(line.facts) for line in sample)
    _heading(f"Store: {len(sample)} messages of {users} users, and {facts} facts that they establish")
    memory.search("warm up", user_id="nobody")  # the embedder's weights load at first use
    started = time.perf_counter()
    calls = 0
    for _, lines in groupby(sample, key=lambda line: (line.user_id, line.run_id)):
        memory.add_many([item for line in lines for item in _new_items(line)])
        calls += 1
    seconds = time.perf_counter() - started
    stats = memory.stats()
    count = len(sample) + facts
    print(f"  {count} items in {calls} durable commits, one a conversation: {count / seconds:,.0f} adds/s")
    print(
        f"  embedder {stats.model_id} ({stats.dimension} dimensions, offline); search backend {stats.backend}"
    )


def _new_items(line: Line) -> Iterator[NewItem]:
    yield NewItem(
        text=line.text,
        kind="message",
        scope=Scope(user_id=line.user_id, agent_id=line.agent_id, run_id=line.run_id),
        metadata={"role": line.role},
        valid_from=line.at,
    )
    for fact in line.facts:
        yield NewItem(
            text=fact.text,
            kind=fact.kind,
            scope=Scope(user_id=line.user_id),
            key=fact.key,
            metadata=fact.metadata,
            priority=fact.priority,
            valid_from=fact.valid_from or line.at,
        )


# ------------------------------------------------------------------------------------- searching


def _search(memory: Memory, question: Question) -> Sequence[Hit]:
    return memory.search(
        question.query,
        user_id=question.user,
        k=question.k,
        as_of=question.as_of,
        kinds=question.kinds,
        filters=question.filters,
        ranking=question.ranking,
        now=NOW,
        explain=True,
    )


def _show(memory: Memory) -> list[Question]:
    """Print every section; returns the questions whose best hit is not the expected one."""
    wrong: list[Question] = []
    for title, questions in SECTIONS:
        _heading(title)
        asked = ""
        for question in questions:
            ask = f"{question.user}: {question.query}"
            if ask != asked:
                print(f"  {ask}")
                asked = ask
            hits = _search(memory, question)
            for hit in hits:
                _print_hit(hit, question)
            if not hits or question.expect not in hits[0].item.text:
                wrong.append(question)
    return wrong


def _print_hit(hit: Hit, question: Question) -> None:
    item = hit.item
    if question.kinds is not None and question.ranking is None:
        when = "now" if question.as_of is None else f"as of {day(question.as_of)}"
        print(f"    {when:16} {one_line(item.text, _WIDTH - 21)}")
        since = f"{item.kind}, true from {day(item.valid_from)}"
        since += "" if item.valid_to is None else f" to {day(item.valid_to)}"
        print(f"    {'':16} {since}")
        _print_score(hit, 21)
        return
    print(f"    {item.kind}, {day(item.valid_from)}: {one_line(item.text, _WIDTH - 20 - len(item.kind))}")
    _print_score(hit, 6)


def _print_score(hit: Hit, indent: int) -> None:
    margin = " " * indent
    whole = " + ".join(term.replace(" ", "\xa0") for term in f"score {score_terms(hit)}".split(" + "))
    lines = textwrap.wrap(whole, _WIDTH - indent - 2)
    print(margin + f"\n{margin}  ".join(lines).replace("\xa0", " "))


def _show_context(memory: Memory) -> None:
    _heading(f"Context: what a prompt gets, never over {_CONTEXT_TOKENS} tokens")
    query = "What does Tobias eat?"
    block = memory.context(query, user_id="tobias", kinds=_FACTS, max_tokens=_CONTEXT_TOKENS, now=NOW)
    print(f"  tobias: {query}")
    for line in block.text.splitlines():
        print(textwrap.fill(line, _WIDTH, initial_indent="    ", subsequent_indent="      "))
    print(
        f"  {block.tokens} of {block.max_tokens} tokens, {len(block.citations)} items cited by id, "
        f"{block.omitted} left out for want of room"
    )


def _answers(memory: Memory) -> list[list[tuple[str, bytes]]]:
    """(id, bits of the float32 score) of every hit of every question."""
    return [
        [(hit.item.id, struct.pack("<f", hit.score)) for hit in _search(memory, question)]
        for _, questions in SECTIONS
        for question in questions
    ]


def _heading(title: str) -> None:
    print(f"\n{title}\n{'-' * min(len(title), _WIDTH)}")


def _next_steps(keep: str | None) -> None:
    _heading("Next")
    if keep is not None:
        print(f"  python -m warpmem search 'trip to Lisbon' --user nadia --store {keep}")
        print(f"  python -m warpmem export --store {keep}")
    else:
        print("  python -m warpmem demo --keep ./demo-store     keeps the store for the other commands")
    print("  python -m warpmem doctor                       what runs here, and whether it computes right")
    print("  with warpmem.open('memory.db') as memory: ...  the same from Python; see README.md")
