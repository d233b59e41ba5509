"""Latency and rates beside the peers, one call of each in turn, so that a slow moment hits all.

The peers' vectors are given to them, warpmem embeds each text and query itself; beside it there is a warpmem
that is given its vectors too and searches by meaning alone, as LangMem does. mem0's two SQLite databases,
LangMem's, Kuzu and FalkorDB sync every add, and so does warpmem's log with `durability="sync"`. Two do not:
Hindsight starts its PostgreSQL with fsync off, and LangMem's store in memory keeps nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from processes import Peer
from recalled import stored

import warpmem
from warpmem.cli.locomo import Conversation
from warpmem.embed.wordllama import WordLlamaEmbedder
from warpmem.ops.clock import SystemClock
from warpmem.protocols import Transaction
from warpmem.storage.log import open_log
from warpmem.storage.rocks import RocksEngine
from warpmem.types import MemoryItem, Owner, Scope

DIMENSION = 256
GIVEN = "warpmem dense, vectors given"
_VECTOR = np.full(DIMENSION, DIMENSION**-0.5, np.float32)
_NOW = datetime(2026, 6, 1, tzinfo=UTC)
ONE_BY_ONE, BATCHES, BATCH, SEARCHES = 300, 15, 100, 150


def rates(conversations: Sequence[Conversation], peers: dict[str, Peer], folder: Path) -> dict[str, Any]:
    """All hold all turns already, the peers those of the recall run; what is added here is of new users."""
    embedder = WordLlamaEmbedder()
    with (
        warpmem.open(folder / "rates") as memory,
        warpmem.open(folder / "given", dimension=DIMENSION) as given,
    ):
        for conversation in conversations:
            texts = [item.text for item in stored(conversation, "turn")]
            user = conversation.sample_id
            memory.add(texts, user_id=user, kind="message", run_id="r")
            vectors = embedder.embed(texts, role="document")
            given.add(texts, user_id=user, kind="message", run_id="r", vector=vectors)
        asked = [(one.sample_id, question.question) for one in conversations for question in one.qa]
        asked = asked[:: max(1, len(asked) // SEARCHES)]
        memory.search("warm up", user_id=asked[0][0], mode="hybrid")
        search, processor = _searches(memory, given, peers, asked)
        texts = [item.text for item in stored(conversations[0], "turn")]
        vectors = dict(zip(texts, embedder.embed(texts, role="document"), strict=True))
        ones = texts[:ONE_BY_ONE]
        log = open_log(
            RocksEngine(folder / "log"), SystemClock(), model_id="given", dimension=DIMENSION,
            durability="sync", max_queue=16, read_only=False,
        )  # fmt: skip
        times = _turns(
            {
                "warpmem": lambda text: _timed(lambda: memory.add(text, user_id="one", kind="message")),
                GIVEN: lambda text: _timed(
                    lambda: given.add(text, user_id="one", kind="message", vector=vectors[text])
                ),
                "the log alone": lambda text: _timed(lambda: log.transact(_put(text), "sync")),
                **{
                    name: lambda text, peer=peer: peer("add", user="one", texts=[text], numbers=[0])
                    for name, peer in peers.items()
                },
            },
            ones,
        )
        log.close()
        one = {name: 1 / statistics.median(values) for name, values in times.items()}
        batches = [texts[i * BATCH % 300 : i * BATCH % 300 + BATCH] for i in range(BATCHES)]
        times = _turns(
            {
                "warpmem": lambda some: _timed(lambda: memory.add(some, user_id="many", kind="message")),
                GIVEN: lambda some: _timed(
                    lambda: given.add(
                        some,
                        user_id="many",
                        kind="message",
                        vector=np.stack([vectors[text] for text in some]),
                    )
                ),
                **{
                    name: lambda some, peer=peer: peer("add_batch", user="many", texts=some)
                    for name, peer in peers.items()
                },
            },
            batches,
        )
        many = {name: BATCH / statistics.median(values) for name, values in times.items()}
    return {
        "search_p50_ms": search,
        "search_processor_p50_ms": processor,
        "adds_per_s": one,
        "batched_adds_per_s": many,
        "batch": BATCH,
    }


def _searches(
    memory: warpmem.Memory,
    given: warpmem.Memory,
    peers: dict[str, Peer],
    asked: Sequence[tuple[str, str]],
) -> tuple[dict[str, float], dict[str, float]]:
    """Medians in milliseconds, by the clock and of the processor: others' load lengthens the former, and that
    of a long call more than that of a short one."""
    seconds: dict[str, list[float]] = {name: [] for name in ("warpmem", GIVEN, *peers)}
    processor: dict[str, list[float]] = {name: [] for name in seconds}
    vectors = WordLlamaEmbedder().embed([query for _, query in asked], role="query")
    given.search(vector=vectors[0], user_id=asked[0][0])
    for (user, query), vector in zip(asked, vectors, strict=True):
        started, worked = time.perf_counter(), time.process_time()
        memory.search(query, user_id=user, mode="hybrid")
        seconds["warpmem"].append(time.perf_counter() - started)
        processor["warpmem"].append(time.process_time() - worked)
        started, worked = time.perf_counter(), time.process_time()
        given.search(vector=vector, user_id=user)
        seconds[GIVEN].append(time.perf_counter() - started)
        processor[GIVEN].append(time.process_time() - worked)
        for name, peer in peers.items():
            _, by_clock, of_processor = peer("search", user=user, query=query, k=10)
            seconds[name].append(by_clock)
            processor[name].append(of_processor)
    return _medians(seconds), _medians(processor)


def _medians(values: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(of_name) * 1e3 for name, of_name in values.items()}


def _put(text: str) -> Callable[[Transaction], None]:
    """A change that stores a text with a vector, without anything that decides."""
    item = MemoryItem(
        id="", scope=Scope(user_id="one"), kind="message", text=text, model_id="given", created_at=_NOW,
        touched_at=_NOW, recorded_at=_NOW, valid_from=_NOW,
    )  # fmt: skip

    def put(transaction: Transaction) -> None:
        transaction.add(transaction.owner(Owner("user", "one")), item, _VECTOR, duplicate=None, slot=None)

    return put


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _turns(calls: dict[str, Callable[[Any], float]], arguments: Sequence[Any]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    for argument in arguments:
        for name, call in calls.items():
            times[name].append(call(argument))
    return times
