"""An add of a message whose memories are made in the background, over one fsync and one embedding (gated).

Both take turns, so that a slow moment of the machine hits both; the fsync is made by a thread that is waited
for, as the store's is, so that waiting for a core counts on both sides. The language model answers after a
while without using the processor, as one behind a server does, and finds something in each message; so
windows are read, embedded and stored all the time while messages are added.

WARPMEM_BENCH_ROUNDS (1,500): adds at each size.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from stores import fill, seconds, unit_rows

import warpmem
from warpmem import Message
from warpmem.embed.wordllama import WordLlamaEmbedder

SIZES = (1_000, 10_000, 100_000)
ROUNDS = int(os.environ.get("WARPMEM_BENCH_ROUNDS", "1500"))
MAX_MORE, MAX_GROWTH = 2e-3, 1.5
PAUSE, WARM_UP = 0.5, 50
RECORD = 1_500
"""Bytes of an fsync that is measured alone; an add writes about as many."""
_THINGS = ("harbour", "library", "bread", "train", "letter", "garden", "invoice", "violin", "doctor", "snow")


class AnsweringModel:
    """Takes PAUSE seconds for a window and makes one memory of each message."""

    model_id = "answering"

    def __init__(self) -> None:
        self.windows = 0

    def complete(
        self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None, max_tokens: int = 1024
    ) -> str:
        shown = msgspec.json.decode(messages[1].content)["messages"]
        time.sleep(PAUSE)
        self.windows += 1
        made = [
            {"text": f"They said: {one['text']}", "kind": "fact", "message": one["number"]} for one in shown
        ]
        return msgspec.json.encode({"memories": made}).decode()


def said(rng: random.Random) -> str:
    """A message of about fifteen words."""
    return f"On day {rng.randrange(10**6)} " + " and ".join(f"the {rng.choice(_THINGS)}" for _ in range(5))


class Times(NamedTuple):
    """Seconds of adds, and of an fsync and an embedding together; `windows` that were read meanwhile."""

    adds: list[float]
    least: list[float]
    windows: int

    def bound(self) -> float:
        return p99(self.least) + MAX_MORE

    def relative(self) -> float:
        """A usual add over a usual fsync and embedding."""
        return float(np.median(self.adds) / np.median(self.least))


def p99(times: Sequence[float]) -> float:
    return float(np.percentile(times, 99))


def measured(path: Path, size: int) -> Times:
    """One owner has all items, the hardest case."""
    rng, embedder, model = random.Random(size), WordLlamaEmbedder(), AnsweringModel()
    found = Times([], [], 0)
    with (
        warpmem.open(path, language_model=model) as memory,
        path.with_suffix(".probe").open("wb", buffering=0) as probe,
        ThreadPoolExecutor(1) as thread,
    ):
        rows = unit_rows(size)
        fill(memory, ["one"] * size, rows)
        assert len(memory.search(vector=rows[0], user_id="one", k=10)) == 10

        def sync() -> None:
            probe.write(bytes(RECORD))
            os.fdatasync(probe.fileno())

        def add(text: str) -> None:
            memory.add({"role": "user", "content": text}, user_id="one", infer="llm")

        def least(text: str) -> None:
            embedder.embed([text], role="document")
            thread.submit(sync).result()

        for number in range(WARM_UP + ROUNDS):
            took = seconds(partial(add, said(rng))), seconds(partial(least, said(rng)))
            if number >= WARM_UP:
                found.adds.append(took[0])
                found.least.append(took[1])
        assert memory.count(user_id="one", kinds=["fact"]) > 0, "nothing was read in the background"
    return found._replace(windows=model.windows)


def test_an_add_is_an_fsync_and_an_embedding(tmp_path: Path, report: Callable[[str], None]) -> None:
    found = {size: measured(tmp_path / str(size), size) for size in SIZES}
    for size, times in found.items():
        report(
            f"add at {size:,}: p50 {np.median(times.adds) * 1e3:.2f} ms, p99 {p99(times.adds) * 1e3:.2f} ms; "
            f"fsync and embedding p50 {np.median(times.least) * 1e3:.2f} ms, p99 "
            f"{p99(times.least) * 1e3:.2f} ms (gate {times.bound() * 1e3:.2f}); {times.windows} windows read"
        )
    largest = found[SIZES[-1]]
    reached, bound = p99(largest.adds), largest.bound()
    assert reached <= bound
    growth = largest.relative() / found[SIZES[0]].relative()
    assert growth <= MAX_GROWTH, f"at {SIZES[-1]:,} items an add takes {growth:.2f} times as long"
