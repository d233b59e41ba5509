"""search(rerank=...): the order is the reranker's, and what happens where it fails or takes too long."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import local_servers
import warpmem
from warpmem import Memory, Scope, SearchResult
from warpmem.errors import (
    DeadlineExceeded,
    InputError,
    InvalidText,
    MissingDependency,
    ModelError,
    ModelUnavailable,
    Overloaded,
)

TEXTS = [f"note {i} about the harbour" for i in range(80)]


class ByNumber:
    """Larger numbers in the text first; remembers what it was asked."""

    model_id = "by-number"

    def __init__(self, score: Callable[[int], float] = float) -> None:
        self.score = score
        self.asked: list[tuple[str, list[str]]] = []

    def rerank(self, query: str, texts: Sequence[str]) -> Any:
        self.asked.append((query, list(texts)))
        return np.array([self.score(int(text.split()[1])) for text in texts], np.float32)


class Failing:
    model_id = "failing"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def rerank(self, query: str, texts: Sequence[str]) -> Any:
        raise self.error


class Slow(ByNumber):
    """Answers once `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def rerank(self, query: str, texts: Sequence[str]) -> Any:
        assert self.go.wait(20)
        return super().rerank(query, texts)


@pytest.fixture
def notes(memory: Memory) -> Memory:
    memory.add_many(TEXTS, user_id="u")
    return memory


def texts(result: SearchResult) -> list[str]:
    return [item.text for item in result.items]


def search(memory: Memory, **options: Any) -> SearchResult:
    return memory.search("the harbour", user_id="u", **options)


def test_the_best_of_the_scan_are_put_in_order(notes: Memory) -> None:
    plain = search(notes, k=50)
    reranker = ByNumber()
    result = search(notes, k=5, rerank=reranker)
    ((query, asked),) = reranker.asked
    assert query == "the harbour" and asked == texts(plain)
    best = sorted(plain, key=lambda hit: -int(hit.item.text.split()[1]))[:5]
    assert list(result) == best  # scores and parts are the scan's
    assert result.degraded == () and result.timings["rerank"] > 0
    assert "rerank" not in plain.timings


def test_how_many_are_read_is_a_number(notes: Memory) -> None:
    plain = texts(search(notes, k=80))
    reranker = ByNumber()
    few = texts(search(notes, k=10, rerank=reranker))
    with warpmem.open(embedder="hashing", reranker=reranker) as other:
        other.add_many(TEXTS, user_id="u")
        result = texts(search(other, k=10, rerank=4))
        assert len(reranker.asked[-1][1]) == 4
        assert sorted(result[:4]) == sorted(plain[:4]) and result[4:] == plain[4:10]
        assert result[:4] == sorted(plain[:4], key=lambda text: -int(text.split()[1]))
        assert texts(search(other, k=10, rerank=True)) == few
        assert len(search(other, k=3, rerank=1000)) == 3
        assert len(reranker.asked[-1][1]) == 80
        assert len(search(other, k=70, rerank=2)) == 70


def test_equals_keep_the_order_of_the_scan(notes: Memory) -> None:
    plain = texts(search(notes, k=50))
    even = texts(search(notes, k=50, rerank=ByNumber(lambda number: float(number % 2 == 0))))
    expected = [t for t in plain if int(t.split()[1]) % 2 == 0] + [t for t in plain if int(t.split()[1]) % 2]
    assert even == expected
    assert texts(search(notes, k=50, rerank=ByNumber(lambda number: 0.5))) == plain


def test_explain_has_the_score_of_the_reranker(notes: Memory) -> None:
    result = search(notes, k=60, rerank=ByNumber(), explain=True)
    assert [hit.parts["rerank"] for hit in result[:50]] == [
        float(hit.item.text.split()[1]) for hit in result[:50]
    ]
    assert len(result) == 60 and not any("rerank" in hit.parts for hit in result[50:])
    assert all("weight_similarity" in hit.parts for hit in result)


def test_vectors_follow_their_hits(notes: Memory) -> None:
    plain = search(notes, k=50, return_vectors="numpy")
    result = search(notes, k=7, rerank=ByNumber(), return_vectors="numpy")
    rows = {hit.item.id: plain.vectors[i] for i, hit in enumerate(plain)}
    assert result.vectors.shape == (7, 256)
    for hit, row in zip(result, result.vectors, strict=True):
        np.testing.assert_array_equal(row, rows[hit.item.id])


def test_nothing_found_asks_nothing(memory: Memory) -> None:
    reranker = ByNumber()
    assert len(search(memory, rerank=reranker)) == 0
    assert reranker.asked == []


def test_many_queries_each_by_itself_and_context(notes: Memory) -> None:
    notes.add("note 99 about the harbour", user_id="v")
    reranker = ByNumber()
    scopes = [Scope(user_id="u"), Scope(user_id="v"), Scope(user_id="nobody")]
    results = notes.search_many(["one", "two", "three"], scopes=scopes, k=2, rerank=reranker)
    assert [query for query, _ in reranker.asked] == ["one", "two"]
    assert [len(result) for result in results] == [2, 1, 0]
    block = notes.context("the harbour", user_id="u", max_tokens=200, k=10, rerank=reranker)
    assert block.citations[0] == search(notes, k=1, rerank=reranker)[0].item.id


def test_a_vector_needs_its_text_beside_it(notes: Memory) -> None:
    vector = np.ones(256, np.float32)
    with pytest.raises(InputError, match="text beside the vector"):
        notes.search(vector=vector, user_id="u", rerank=ByNumber())
    for query in (3, "", "lone \ud800"):
        with pytest.raises(InvalidText):
            notes.search(query, vector=vector, user_id="u", rerank=ByNumber())  # type: ignore[arg-type]
    reranker = ByNumber()
    notes.search("asked", vector=vector, user_id="u", rerank=reranker)
    assert reranker.asked[0][0] == "asked"


@pytest.mark.parametrize("rerank", [0, -1, 1001, 1.5, "overlap", object(), ByNumber, [], np.ones(2)])
def test_what_is_no_rerank(notes: Memory, rerank: Any) -> None:
    with pytest.raises(InputError, match="rerank"):
        search(notes, rerank=rerank)


def test_without_a_reranker_of_its_own(notes: Memory) -> None:
    for rerank in (True, 5):
        with pytest.raises(InputError, match="no reranker: pass reranker="):
            search(notes, rerank=rerank)
    assert texts(search(notes, rerank=False)) == texts(search(notes))


@pytest.mark.parametrize(
    "error", [ModelError("down"), ModelUnavailable("down"), InvalidText("odd"), MissingDependency("none")]
)
@pytest.mark.parametrize("deadline", [None, 20])
def test_a_reranker_that_fails_raises(notes: Memory, error: Exception, deadline: float | None) -> None:
    with pytest.raises(type(error)) as caught:
        search(notes, rerank=Failing(error), deadline=deadline)
    assert caught.value is error


@pytest.mark.parametrize("error", [Overloaded("busy", 2.0), DeadlineExceeded("slow")])
@pytest.mark.parametrize("deadline", [None, 20])
def test_one_that_is_overloaded_leaves_the_order_of_the_scan(
    notes: Memory, error: Exception, deadline: float | None
) -> None:
    result = search(notes, k=7, rerank=Failing(error), deadline=deadline, explain=True)
    assert result.degraded == ("rerank",)
    assert texts(result) == texts(search(notes, k=7))
    assert not any("rerank" in hit.parts for hit in result)


@pytest.mark.parametrize(
    "given",
    [np.ones(3, np.float32), np.full(50, np.nan, np.float32), np.ones((50, 1)), None, "x", [[]], ["a"] * 50],
)
def test_wrong_scores_are_a_model_error(notes: Memory, given: Any) -> None:
    class Wrong(ByNumber):
        def rerank(self, query: str, texts: Sequence[str]) -> Any:
            return given

    with pytest.raises(ModelError, match="by-number"):
        search(notes, rerank=Wrong())


def test_a_slow_reranker_keeps_the_deadline(notes: Memory) -> None:
    reranker = Slow()
    search(notes)  # loads the owner
    started = time.monotonic()
    result = search(notes, k=7, rerank=reranker, deadline=0.4)
    assert 0.2 < time.monotonic() - started < 5
    assert result.degraded == ("rerank",) and texts(result) == texts(search(notes, k=7))
    reranker.go.set()
    assert texts(search(notes, k=7, rerank=reranker, deadline=20)) == texts(
        search(notes, k=7, rerank=ByNumber())
    )


def test_making_the_reranker_is_within_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was made before the scan, however long that took, and the search raised DeadlineExceeded."""
    go, made = threading.Event(), ByNumber()

    def load(*_: Any) -> ByNumber:
        assert go.wait(20)
        return made

    monkeypatch.setattr("warpmem.compose.make_reranker", load)
    with warpmem.open(embedder="hashing", reranker="judge") as memory:
        memory.add_many(TEXTS, user_id="u")
        plain = texts(search(memory, k=7))
        started = time.monotonic()
        result = search(memory, k=7, rerank=True, deadline=0.4)
        assert 0.2 < time.monotonic() - started < 5
        assert result.degraded == ("rerank",) and texts(result) == plain
        go.set()
        result = search(memory, k=7, rerank=True, deadline=20)
        assert result.degraded == () and texts(result) == texts(search(memory, k=7, rerank=made))


def test_what_making_the_reranker_raises_is_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> ByNumber:
        raise MissingDependency("install it")

    monkeypatch.setattr("warpmem.compose.make_reranker", refuse)
    with warpmem.open(embedder="hashing", reranker="judge") as memory:
        with pytest.raises(MissingDependency):
            search(memory, rerank=True)  # nothing to put in order, but time to find out
        memory.add_many(TEXTS, user_id="u")
        for deadline in (None, 20):
            with pytest.raises(MissingDependency, match="install it"):
                search(memory, rerank=True, deadline=deadline)


def test_calls_that_were_given_up_hold_up_a_bounded_number_of_threads(notes: Memory) -> None:
    reranker = Slow()
    try:
        before = threading.active_count()
        for _ in range(40):
            assert search(notes, rerank=reranker, deadline=0.02).degraded == ("rerank",)
        assert threading.active_count() - before <= 32
        assert len(reranker.asked) == 0
    finally:
        reranker.go.set()
    assert search(notes, rerank=reranker, deadline=20).degraded == ()


def test_a_process_without_another_thread_leaves_the_order_of_the_scan(
    notes: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(40):
            assert search(notes, rerank=ByNumber(), deadline=20).degraded == ("rerank",)
    assert search(notes, rerank=ByNumber(), deadline=20).degraded == ()


def test_awaited(notes: Memory) -> None:
    async def scenario() -> SearchResult:
        return await warpmem.AsyncMemory(notes).search(
            "the harbour", user_id="u", rerank=ByNumber(), deadline=20
        )

    assert texts(asyncio.run(scenario())) == texts(search(notes, rerank=ByNumber()))


def test_a_deadline_that_passed_before_the_scan_is_an_error(notes: Memory) -> None:
    with pytest.raises(DeadlineExceeded):
        search(notes, rerank=ByNumber(), deadline=1e-9)
    with pytest.raises(InputError, match="deadline"):
        search(notes, rerank=ByNumber(), deadline=0)


def test_filters_and_several_scopes_are_searched_first(memory: Memory) -> None:
    memory.add_many(
        [warpmem.NewItem(text=text, metadata={"n": i}) for i, text in enumerate(TEXTS)], user_id="u"
    )
    memory.add("note 500 elsewhere", user_id="v")
    reranker = ByNumber()
    result = memory.search(
        "the harbour",
        scopes=[Scope(user_id="u"), Scope(user_id="v")],
        k=3,
        filters={"or": [{"metadata.n": {"lt": 10}}, {"metadata.n": {"exists": False}}]},
        rerank=reranker,
    )
    assert [text.split()[1] for text in texts(result)] == ["500", "9", "8"]
    assert len(reranker.asked[0][1]) == 11


def test_by_configuration_behind_a_server() -> None:
    with local_servers.serving(local_servers.tei_rerank) as server:
        options: dict[str, Any] = {"url": server.url, "timeout": 20.0}
        with warpmem.open(embedder="hashing", reranker="tei", reranker_options=options) as memory:
            memory.add_many(["a cat", "the harbour at night", "a harbour"], user_id="u")
            assert server.requests == []
            result = search(memory, rerank=True)
            assert texts(result) == ["the harbour at night", "a harbour", "a cat"]
            server.answer = lambda handler, payload: handler.reply(b"{}", 429)
            assert search(memory, rerank=True).degraded == ("rerank",)
            server.answer = lambda handler, payload: handler.reply(b"{}", 500)
            with pytest.raises(ModelUnavailable):
                search(memory, rerank=True)
