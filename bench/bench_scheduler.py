"""What the scheduler costs where a model is idle, and what it gains where many threads want it."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from stores import alternate, seconds

import warpmem
from warpmem.embed.hashing import HashingEmbedder
from warpmem.embed.scheduled import ScheduledEmbedder
from warpmem.embed.wordllama import WordLlamaEmbedder
from warpmem.ops.scheduler import Scheduler

CALLERS = 64
TEXTS = [
    f"On day {i} we moved the meeting about budget item {i * 7} to the small room and ordered {i % 5} pizzas."
    for i in range(8_192)
]


class LikeMiniLM:
    """As long as a model of MiniLM's size takes on a few cores: 1 ms a batch and 2 ms a text of 30 tokens, 32
    texts a batch. It sleeps, so the interpreter is free meanwhile, as it is beside ONNX Runtime and torch."""

    model_id, dimension = "like-minilm", 384

    def __init__(self) -> None:
        self._rows = np.ones((len(TEXTS), 384), np.float32)

    def embed(self, texts: Sequence[str], *, role: Literal["document", "query"]) -> NDArray[np.float32]:
        for start in range(0, len(texts), 32):
            time.sleep(1e-3 + 2e-3 * len(texts[start : start + 32]))
        return self._rows[: len(texts)]


MODELS: dict[str, Callable[[], Any]] = {
    "wordllama": WordLlamaEmbedder,
    "hashing": HashingEmbedder,
    "like-minilm": LikeMiniLM,
}


def test_a_single_search_over_the_bare_embedder(report: Callable[[str], None]) -> None:
    model = WordLlamaEmbedder()
    scheduled = ScheduledEmbedder(model)
    with warpmem.open(None, embedder=model, embedding_cache_bytes=0) as memory:
        memory.add_many(TEXTS[:100], user_id="u")
        bare, through, both, searched = alternate(
            [
                lambda i: model.embed([TEXTS[i]], role="query"),
                lambda i: scheduled.embed([TEXTS[2048 + i]], "query", lane="interactive"),
                lambda i: memory.search(vector=model.embed([TEXTS[4096 + i]], role="query")[0], user_id="u"),
                lambda i: memory.search(TEXTS[6144 + i], user_id="u"),
            ],
            2000,
        )
    report(
        f"embedding {bare * 1e6:.1f} us, scheduled {through * 1e6:.1f} ({through / bare:.2f} times); "
        f"search by vector {both * 1e6:.1f} us, by text {searched * 1e6:.1f} ({searched / both:.2f} times)"
    )
    assert through <= 1.3 * bare
    assert searched <= 1.3 * both


def test_the_decision_of_one_request(report: Callable[[str], None]) -> None:
    """An idle model that takes no time: all that is left is the scheduler."""
    scheduler = Scheduler(lambda kind, works: works)
    nothing, at_once, queued = alternate(
        [
            lambda i: None,
            lambda i: scheduler.submit((i,), (10,), owner=i % 9, timeout=1.0),
            lambda i: scheduler.submit(range(64), [10] * 64, owner=i % 9, timeout=1.0),
        ],
        2000,
    )
    each = (queued - nothing) / 64
    report(f"idle {(at_once - nothing) * 1e6:.1f} us, queued {each * 1e6:.1f} us a request")
    assert at_once - nothing <= 20e-6
    assert each <= 20e-6


@pytest.mark.parametrize("name", MODELS)
def test_many_callers_against_the_models_own_batches(name: str, report: Callable[[str], None]) -> None:
    model = MODELS[name]()
    model.embed(TEXTS[:1], role="query")
    scheduled = ScheduledEmbedder(model)
    texts = TEXTS[: 512 if name == "like-minilm" else 4096]

    def own_batches() -> None:
        for start in range(0, len(texts), CALLERS):
            model.embed(texts[start : start + CALLERS], role="query")

    def one_by_one() -> None:
        for text in texts:
            model.embed([text], role="query")

    def callers(embed: Callable[[str], object]) -> None:
        def work(number: int) -> None:
            for text in texts[number::CALLERS]:
                embed(text)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    calls: dict[str, Callable[[], None]] = {
        "own batches": own_batches,
        "one by one": one_by_one,
        "callers": lambda: callers(lambda text: scheduled.embed([text], "query", lane="interactive")),
        "callers without": lambda: callers(lambda text: model.embed([text], role="query")),
    }
    rounds: dict[str, list[float]] = {called: [] for called in calls}
    for _ in range(3 if name == "like-minilm" else 7):
        for called, call in calls.items():
            rounds[called].append(seconds(call))
    rates = {called: len(texts) / statistics.median(measured) for called, measured in rounds.items()}
    stats = scheduled.stats()
    shown = ", ".join(f"{called} {rate:,.0f}" for called, rate in rates.items())
    report(
        f"{name}, texts/s: {shown}; {rates['callers'] / rates['own batches']:.2f} of its own batches, "
        f"{sum(stats['served'].values()) / stats['batches']:.1f} texts a batch"
    )
    if name == "like-minilm":
        assert rates["callers"] >= 0.95 * rates["own batches"]
