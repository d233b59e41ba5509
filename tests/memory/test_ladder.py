"""Searches under load: what is left out is named, and what is left is exact."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

import warpmem
from warpmem import Memory, Ranking, Scope
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import DeadlineExceeded, ModelError, Overloaded
from warpmem.ops.cancel import Cancellation, current
from warpmem.policy import modes

_HYBRID = modes.PRESETS["hybrid"]
BOTH = Ranking(lexical=_HYBRID.lexical, adjacent=_HYBRID.adjacent)
WORDS = msgspec.structs.replace(BOTH, similarity=0.0)
QUESTION = "what does note 7 say of cellos"


class Strained:
    """The hashing embedder behind a gate; raises `fault` for queries while it has one."""

    model_id, dimension = "strained", 32

    def __init__(self) -> None:
        self._made = HashingEmbedder(32)
        self.gate = threading.Event()
        self.gate.set()
        self.inside = 0
        self.fault: Exception | None = None

    def embed(self, texts: Sequence[str], *, role: Literal["document", "query"]) -> NDArray[np.float32]:
        self.inside += 1
        try:
            assert self.gate.wait(10)
        finally:
            self.inside -= 1
        if self.fault is not None and role == "query":
            raise self.fault
        return self._made.embed(texts, role=role)


def filled(**options: Any) -> tuple[Memory, Strained]:
    model = Strained()
    memory = warpmem.open(None, embedder=model, embedding_cache_bytes=0, **options)
    memory.add_many([f"note {n} of {('cellos', 'harps')[n % 2]} and {n * n}" for n in range(40)], user_id="a")
    memory.add("a note of b on cellos", user_id="b")
    return memory, model


@contextmanager
def busy(memory: Memory, model: Strained) -> Iterator[None]:
    """The embedder is at work for somebody else, and will be for longer than anybody here waits."""
    model.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(memory.search, "somebody else's", user_id="b")
        while not model.inside:
            time.sleep(0.001)
        try:
            yield
        finally:
            model.gate.set()
        first.result()


def found(result: Any) -> list[tuple[str, float]]:
    return [(hit.item.text, hit.score) for hit in result]


def test_a_search_by_both_is_answered_by_words_when_the_embedder_does_not_answer_in_time() -> None:
    memory, model = filled()
    with memory:
        wanted = found(memory.search(QUESTION, user_id="a", ranking=WORDS))
        with busy(memory, model):
            began = time.monotonic()
            result = memory.search(QUESTION, user_id="a", mode="hybrid", deadline=0.5, explain=True)
            assert time.monotonic() - began < 0.5
            assert result.degraded == ("dense",)
            assert found(result) == wanted and wanted
            assert "similarity" not in result[0].parts
            assert result[0].parts["weight_similarity"] == 0.0
            for weights in ({"mode": "dense"}, {"ranking": Ranking(similarity=1.0)}):
                with pytest.raises((Overloaded, DeadlineExceeded)):
                    memory.search(QUESTION, user_id="a", deadline=0.2, **weights)  # type: ignore[arg-type]
            with pytest.raises((Overloaded, DeadlineExceeded)):
                memory.search(QUESTION, user_id="a", mode="hybrid", deadline=0.2, min_similarity=0.5)
            assert memory.search(QUESTION, user_id="a", mode="lexical", deadline=0.2).degraded == ()
        result = memory.search(QUESTION, user_id="a", mode="hybrid", deadline=5.0)
        assert result.degraded == ()
        assert found(result) == found(memory.search(QUESTION, user_id="a", ranking=BOTH))


def test_an_overloaded_embedder_is_done_without_whatever_the_deadline() -> None:
    memory, model = filled()
    with memory:
        wanted = found(memory.search(QUESTION, user_id="a", ranking=WORDS))
        model.fault = Overloaded("too much", 1.0)
        for deadline in (None, 1.0):
            result = memory.search(QUESTION, user_id="a", mode="hybrid", deadline=deadline)
            assert (result.degraded, found(result)) == (("dense",), wanted)
        scopes = [Scope(user_id="a"), Scope(user_id="b")]
        many = memory.search_many([QUESTION, "cellos"], scopes=scopes, mode="hybrid")
        assert [each.degraded for each in many] == [("dense",)] * 2
        assert found(many[0]) == wanted
        assert len(many[1]) == 1
        with pytest.raises(Overloaded):
            memory.search(QUESTION, user_id="a", mode="dense")
        model.fault = ModelError("broken")
        with pytest.raises(ModelError, match="broken"):
            memory.search(QUESTION, user_id="a", mode="hybrid")


def test_nothing_is_left_out_of_a_store_that_is_not_to() -> None:
    memory, model = filled(degrade=False)
    with memory:
        model.fault = Overloaded("too much", 1.0)
        with pytest.raises(Overloaded, match="too much"):
            memory.search(QUESTION, user_id="a", mode="hybrid")
        model.fault = None
        slow_words(memory, 0.05)
        for _ in range(4):
            memory.search(QUESTION, user_id="a", mode="hybrid")
        with pytest.raises(DeadlineExceeded):
            memory.search(QUESTION, user_id="a", mode="hybrid", deadline=0.03)
        with pytest.raises(Overloaded, match="full"):
            memory.search(QUESTION, user_id="a", rerank=Full())


class Full:
    model_id = "full"

    def rerank(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        raise Overloaded("full", 1.0)


def slow_words(memory: Memory, seconds: float) -> list[float]:
    """Searches by words take so long more; the number in the list may be changed."""
    index, delay = memory._current.now.index, [seconds]
    plain = index.search

    def search(requests: Any, k: int, params: Any) -> Any:
        if params.lexical:
            time.sleep(delay[0])
        return plain(requests, k, params)

    index.search = search  # type: ignore[method-assign]
    return delay


def test_words_are_left_out_where_they_would_be_too_late() -> None:
    memory, _ = filled()
    with memory:
        wanted = found(memory.search(QUESTION, user_id="a", mode="dense"))
        delay = slow_words(memory, 0.3)
        for _ in range(4):
            assert memory.search(QUESTION, user_id="a", mode="hybrid").degraded == ()
        result = memory.search(QUESTION, user_id="a", mode="hybrid", deadline=0.2, explain=True)
        assert (result.degraded, found(result)) == (("lexical",), wanted)
        assert result[0].parts["weight_lexical"] == 0.0
        assert "lexical" not in result[0].parts
        assert memory.search("cellos", user_id="b", mode="hybrid", deadline=0.6).degraded == (), "another's"
        delay[0] = 0.0
        outcomes = [
            memory.search(QUESTION, user_id="a", mode="hybrid", deadline=0.2).degraded for _ in range(20)
        ]
        assert outcomes[-1] == (), "that they became faster is found out"


def test_a_search_that_was_too_late_is_a_measurement_too() -> None:
    memory, _ = filled()
    with memory:
        slow_words(memory, 0.1)
        late = 0
        for _ in range(6):
            try:
                result = memory.search(QUESTION, user_id="a", mode="hybrid", deadline=0.05)
            except DeadlineExceeded:
                late += 1
        assert late < 6
        assert result.degraded == ("lexical",)


def test_who_gave_up_gets_no_other_answer() -> None:
    memory, model = filled()
    with memory, busy(memory, model), ThreadPoolExecutor(1) as pool:
        cancellation = Cancellation()

        def search() -> None:
            current.set(cancellation)
            memory.search(QUESTION, user_id="a", mode="hybrid", deadline=5.0)

        waiting = pool.submit(search)
        while not memory.stats().models["embedder"]["waiting"]["interactive"]:
            time.sleep(0.001)
        cancellation.cancel()
        with pytest.raises(DeadlineExceeded, match="gave up"):
            waiting.result(timeout=5)
