"""What the scheduler costs where a model is idle, and what it gains where many threads want it."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stores import alternate, seconds

import warpmem
from warpmem.embed.hashing import HashingEmbedder
from warpmem.embed.onnx import OnnxEmbedder
from warpmem.embed.scheduled import ScheduledEmbedder
from warpmem.embed.wordllama import WordLlamaEmbedder
from warpmem.ops.scheduler import Scheduler

CALLERS = 64
TEXTS = [
    f"On day {i} we moved the meeting about budget item {i * 7} to the small room and ordered {i % 5} pizzas."
    for i in range(8_192)
]


def onnx_of_minilm_size(folder: Path) -> OnnxEmbedder:
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    import minilm_size

    return OnnxEmbedder(minilm_size.make(folder / "model"), threads=1)


MODELS: dict[str, Callable[[Path], Any]] = {
    "wordllama": lambda folder: WordLlamaEmbedder(),
    "hashing": lambda folder: HashingEmbedder(),
    "minilm-size": onnx_of_minilm_size,
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
def test_many_callers_against_the_models_own_batches(
    name: str, tmp_path: Path, report: Callable[[str], None]
) -> None:
    model = MODELS[name](tmp_path)
    model.embed(TEXTS[:1], role="query")
    scheduled = ScheduledEmbedder(model)
    large = name == "minilm-size"
    texts = [f"Text {i} of some thirty letters." for i in range(256)] if large else TEXTS[:4096]
    single = texts[:64] if large else texts

    def own_batches() -> None:
        for start in range(0, len(texts), CALLERS):
            model.embed(texts[start : start + CALLERS], role="query")

    def one_by_one() -> None:
        for text in single:
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

    calls: dict[str, tuple[int, Callable[[], None]]] = {
        "own batches": (len(texts), own_batches),
        "one by one": (len(single), one_by_one),
        "callers": (
            len(texts),
            lambda: callers(lambda text: scheduled.embed([text], "query", lane="interactive")),
        ),
        "callers without": (len(texts), lambda: callers(lambda text: model.embed([text], role="query"))),
    }
    rates: dict[str, list[float]] = {called: [] for called in calls}
    for _ in range(7):
        for called, (count, call) in calls.items():
            rates[called].append(count / seconds(call))
    medians = {called: statistics.median(measured) for called, measured in rates.items()}
    stats = scheduled.stats()
    report(
        f"{name}, texts/s: {', '.join(f'{called} {rate:,.0f}' for called, rate in medians.items())}; "
        f"{medians['callers'] / medians['own batches']:.2f} of its own batches, "
        f"{sum(stats['served'].values()) / stats['batches']:.1f} texts a batch"
    )
    if large:
        assert medians["callers"] >= 0.95 * medians["own batches"]
