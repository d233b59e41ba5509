"""The embedders: one text, and a batch. Informational."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from warpmem.embed.hashing import HashingEmbedder
from warpmem.embed.wordllama import WordLlamaEmbedder
from warpmem.protocols import Embedder

TEXTS = [
    f"On day {i} we moved the meeting about budget item {i * 7} to the small room and ordered {i % 5} pizzas."
    for i in range(1_000)
]


@pytest.fixture(scope="module", params=["wordllama", "hashing"])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    made: Embedder = WordLlamaEmbedder() if request.param == "wordllama" else HashingEmbedder()
    made.embed(TEXTS[:1], role="query")
    return made


def test_one_text(benchmark: BenchmarkFixture, embedder: Embedder) -> None:
    vectors = benchmark.pedantic(
        embedder.embed, (TEXTS[:1],), {"role": "query"}, rounds=500, warmup_rounds=20
    )
    assert vectors.shape == (1, embedder.dimension)


def test_1000_texts(benchmark: BenchmarkFixture, embedder: Embedder) -> None:
    vectors = benchmark.pedantic(embedder.embed, (TEXTS,), {"role": "document"}, rounds=5, warmup_rounds=1)
    assert vectors.shape == (1_000, embedder.dimension)
