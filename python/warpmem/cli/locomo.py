"""The command eval locomo: retrieval recall and latency on LoCoMo's conversations.

LoCoMo: Maharana et al., "Evaluating Very Long-Term Conversational Memory of LLM Agents", ACL 2024. Its data
is licensed CC BY-NC 4.0 and is not part of warpmem.

One user for each conversation. Granularity "turn" stores every turn as a message in the form of turn_text,
"observation" every observation as a fact with the ids of the turns it was made from; both with the session's
date as valid_from. A session is a run, stored by one add_many. Every question is then searched once, in its
own conversation, with as many hits as the largest k. recall@k is the share of a question's evidence ids among
those of the first k hits, averaged over the questions that have evidence. Evidence that names no turn of its
conversation counts as not found. With --context the same share is taken of the items that context() cites by
number within so many tokens.
"""

from __future__ import annotations

import argparse
import math
import platform
import re
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from .. import __version__, compose
from ..config import EmbedderName
from ..errors import InputError
from ..memory import Memory
from ..protocols import Embedder, Reranker
from ..types import NewItem
from .output import path_text, to_json

_TURN_ID = re.compile(r"D:?(\d+):(\d+)")
_SESSION = re.compile(r"session_(\d+)")
_DATE = "%I:%M %p on %d %B, %Y"


class Turn(msgspec.Struct, frozen=True):
    """One utterance. blip_caption describes a shared image."""

    speaker: str
    dia_id: str
    text: str
    blip_caption: str | None = None


class Question(msgspec.Struct, frozen=True):
    """One question with the turns that answer it, and LoCoMo's category: 1 multi-hop, 2 temporal, 3 open
    domain, 4 single-hop, 5 adversarial."""

    question: str
    category: int
    evidence: tuple[str, ...] = ()


class Conversation(msgspec.Struct, frozen=True):
    """One item of the file. conversation: session_n, session_n_date_time, speaker_a, speaker_b."""

    sample_id: str
    conversation: dict[str, Any]
    qa: tuple[Question, ...]
    observation: dict[str, dict[str, list[tuple[str, str | list[str]]]]] = {}


def run(args: argparse.Namespace) -> int:
    """Evaluate, print a table, and write the report."""
    report = evaluate(
        load(args.file),
        ks=args.k,
        granularity=args.granularity,
        mode=args.mode,
        embedder=args.embedder,
        config=args.config,
        rerank=args.rerank,
        captions=args.captions,
        context=args.context,
    )
    report["settings"]["file"] = path_text(Path(args.file).name)
    if args.out is not None:
        try:
            Path(args.out).write_text(to_json(report) + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write {args.out!r}: {error.strerror}") from error
    print("\n".join(table(report)))
    return 0


def load(file: str) -> list[Conversation]:
    """Read LoCoMo's JSON. Raises InputError when it is not in that shape."""
    try:
        return msgspec.json.decode(Path(file).read_bytes(), type=list[Conversation])
    except OSError as error:
        raise InputError(f"cannot read {file!r}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file!r} is not in LoCoMo's format: {error}") from error
    except RecursionError as error:
        raise InputError(f"{file!r} is not in LoCoMo's format: nested too deeply") from error


def turn_ids(evidence: Sequence[str]) -> frozenset[str]:
    """Turn ids in evidence strings; one may hold several ("D8:6; D9:17") or be misspelt ("D:11:26")."""
    return frozenset(f"D{session}:{turn}" for text in evidence for session, turn in _TURN_ID.findall(text))


def turn_text(turn: Turn, *, captions: bool) -> str:
    """The stored form of a turn: ``speaker: text``, then, with `captions`, that of its image in brackets.

    On the first five conversations of LoCoMo the default embedder has a recall@10 of .391 in this form and of
    .318 without the speaker; without captions .413 and .330.
    """
    text = f"{turn.speaker}: {turn.text}"
    return f"{text} [image: {turn.blip_caption}]" if captions and turn.blip_caption is not None else text


def evaluate(
    conversations: Sequence[Conversation],
    *,
    ks: Sequence[int],
    granularity: str,
    mode: str,
    embedder: EmbedderName | Embedder | None = None,
    config: str | None = None,
    rerank: int | Reranker | None = None,
    captions: bool = True,
    context: int | None = None,
) -> dict[str, Any]:
    """The report: recall, latency_ms, add_per_s, counts, settings, and with `context` tokens what is found
    within them. ks ascending. Raises as Memory does."""
    packed = None if context is None else _Packed(context)
    shares: dict[int, dict[str, list[float]]] = {k: defaultdict(list) for k in ks}
    latencies: list[float] = []
    stored = 0
    seconds = 0.0
    with (
        tempfile.TemporaryDirectory(prefix="warpmem-eval-") as path,
        compose.open(path, embedder=embedder, config=config) as memory,
    ):
        memory.search("warm up", user_id="nobody")  # the embedder's weights load at first use
        for conversation in conversations:
            for number, items in sessions(conversation, granularity, captions):
                started = time.perf_counter()
                user, run = conversation.sample_id, f"session {number}"
                stored += len(memory.add_many(items, user_id=user, run_id=run))
                seconds += time.perf_counter() - started
        for conversation in conversations:
            for question in conversation.qa:
                wanted = turn_ids(question.evidence)
                found, elapsed = _ask(memory, conversation.sample_id, question, ks[-1], mode, rerank)
                latencies.append(elapsed * 1e3)
                if not wanted:
                    continue
                if packed is not None:
                    packed.ask(memory, conversation.sample_id, question, mode, rerank)
                for k in ks:
                    share = len(wanted & set().union(*found[:k])) / len(wanted)
                    shares[k]["overall"].append(share)
                    shares[k][str(question.category)].append(share)
        stats = memory.stats()
        plan = memory.search("plan", user_id="nobody").plan
    if not latencies:
        raise InputError("the file holds no question")
    categories = sorted({name for by_name in shares.values() for name in by_name} - {"overall"})
    return {
        **({} if packed is None else {"context": packed.report()}),
        "recall": {
            "overall": {str(k): _mean(shares[k]["overall"]) for k in ks},
            "by_category": {name: {str(k): _mean(shares[k][name]) for k in ks} for name in categories},
        },
        "latency_ms": {"p50": statistics.median(latencies), "p95": _percentile(latencies, 0.95)},
        "add_per_s": stored / seconds if seconds else 0.0,
        "counts": {
            "conversations": len(conversations),
            "items": stored,
            "questions": len(latencies),
            "with_evidence": {name: len(shares[ks[0]][name]) for name in ["overall", *categories]},
        },
        "settings": {
            "dataset": "locomo",
            "granularity": granularity,
            "mode": mode,
            "rerank": rerank.model_id if isinstance(rerank, Reranker) else rerank,
            "k": list(ks),
            "embedder": stats.model_id,
            "dimension": stats.dimension,
            "backend": stats.backend,
            "plan": plan,
            "durability": stats.durability,
            "text": _text_form(granularity, captions),
            "commits": "one add_many for each session",
            "latency": "one search of each question, embedding included, the embedder loaded before",
            "warpmem": __version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
        },
    }


def _text_form(granularity: str, captions: bool) -> str:
    if granularity == "observation":
        return "the observation's sentence"
    return "speaker: text [image: caption]" if captions else "speaker: text"


def sessions(
    conversation: Conversation, granularity: str, captions: bool
) -> Iterator[tuple[int, list[NewItem]]]:
    """(number, items) of each session, in order."""
    numbers = sorted(
        int(match[1]) for name in conversation.conversation if (match := _SESSION.fullmatch(name)) is not None
    )
    for number in numbers:
        when = _session_date(conversation.conversation, number)
        if granularity == "turn":
            items = _turns(conversation.conversation[f"session_{number}"], when, captions)
        else:
            items = _observations(conversation.observation.get(f"session_{number}_observation", {}), when)
        if items:
            yield number, items


def _turns(session: Any, when: datetime, captions: bool) -> list[NewItem]:
    try:
        turns = msgspec.convert(session, list[Turn])
    except msgspec.ValidationError as error:
        raise InputError(f"a session is not in LoCoMo's format: {error}") from error
    return [
        NewItem(
            text=turn_text(turn, captions=captions),
            kind="message",
            metadata={"speaker": turn.speaker, "turns": [turn.dia_id]},
            valid_from=when,
        )
        for turn in turns
    ]


def _observations(speakers: dict[str, list[tuple[str, str | list[str]]]], when: datetime) -> list[NewItem]:
    return [
        NewItem(
            text=sentence,
            kind="fact",
            metadata={"speaker": speaker, "turns": sorted(turn_ids([ids] if isinstance(ids, str) else ids))},
            valid_from=when,
        )
        for speaker, observations in speakers.items()
        for sentence, ids in observations
    ]


def _session_date(conversation: dict[str, Any], number: int) -> datetime:
    text = conversation.get(f"session_{number}_date_time")
    try:
        return datetime.strptime(str(text), _DATE).replace(tzinfo=UTC)
    except ValueError as error:
        raise InputError(f"session {number} has no date such as '1:56 pm on 8 May, 2023'") from error


def _ask(
    memory: Memory, user_id: str, question: Question, k: int, mode: Any, rerank: int | Reranker | None
) -> tuple[list[list[str]], float]:
    """(turn ids of each hit, seconds)."""
    started = time.perf_counter()
    result = memory.search(question.question, user_id=user_id, k=k, mode=mode, rerank=rerank)
    elapsed = time.perf_counter() - started
    return [hit.item.metadata["turns"] for hit in result], elapsed


class _Packed:
    """Contexts of so many tokens: what they hold of the evidence, by category."""

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._counter = ""
        self._shares: dict[str, list[float]] = defaultdict(list)
        self._items: list[int] = []
        self._tokens: list[int] = []
        self._milliseconds: list[float] = []

    def ask(
        self, memory: Memory, user_id: str, question: Question, mode: Any, rerank: int | Reranker | None
    ) -> None:
        """Pack one context and note it. The question has evidence."""
        started = time.perf_counter()
        block = memory.context(
            question.question,
            user_id=user_id,
            mode=mode,
            rerank=rerank,
            max_tokens=self._max_tokens,
            cite="number",
        )
        self._milliseconds.append((time.perf_counter() - started) * 1e3)
        wanted = turn_ids(question.evidence)
        cited = [item.metadata["turns"] for item in memory.get_many(block.citations) if item is not None]
        for name in ("overall", str(question.category)):
            self._shares[name].append(len(wanted & set().union(*cited)) / len(wanted))
        self._counter = block.counter
        self._items.append(len(block.citations))
        self._tokens.append(block.tokens)

    def report(self) -> dict[str, Any]:
        names = sorted(self._shares.keys() - {"overall"})
        return {
            "max_tokens": self._max_tokens,
            "counter": self._counter,
            "recall": {
                "overall": _mean(self._shares["overall"]),
                "by_category": {name: _mean(self._shares[name]) for name in names},
            },
            "items": _mean(self._items),
            "tokens": _mean(self._tokens),
            "latency_ms": {"p50": statistics.median(self._milliseconds) if self._milliseconds else 0.0},
        }


def _mean(values: Sequence[float] | Sequence[int]) -> float:
    return statistics.fmean(values) if values else 0.0


def _percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1]


def table(report: dict[str, Any]) -> list[str]:
    """The report for a person."""
    settings, counts, latency = report["settings"], report["counts"], report["latency_ms"]
    ks = settings["k"]
    stored = (
        f"{counts['items']} items ({settings['granularity']}s) of {counts['conversations']} conversations"
    )
    lines = [
        f"{stored}, {counts['questions']} questions; {settings['mode']}, {settings['embedder']}",
        f"{'recall at':14}" + "".join(f"{k:>8}" for k in ks) + "   questions",
    ]
    rows = [("overall", report["recall"]["overall"])]
    rows += [(f"category {name}", values) for name, values in report["recall"]["by_category"].items()]
    for name, values in rows:
        count = counts["with_evidence"][name.removeprefix("category ")]
        lines.append(f"{name:14}" + "".join(f"{values[str(k)]:8.3f}" for k in ks) + f"{count:12}")
    lines.append(
        f"search p50 {latency['p50']:.3f} ms, p95 {latency['p95']:.3f} ms (embedding included); "
        f"{report['add_per_s']:,.0f} adds/s"
    )
    if "context" in report:
        packed = report["context"]
        lines.append(
            f"context of {packed['max_tokens']} tokens: recall {packed['recall']['overall']:.3f}, "
            f"{packed['items']:.1f} items, p50 {packed['latency_ms']['p50']:.3f} ms"
        )
    return lines
