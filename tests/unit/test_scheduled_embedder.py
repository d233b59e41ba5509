"""Embedders behind their scheduler: what goes together, in which order, and whose the errors are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

import warpmem
from warpmem import Scope
from warpmem.embed.callable import CallableEmbedder
from warpmem.embed.given import GivenVectors
from warpmem.embed.hashing import HashingEmbedder
from warpmem.embed.scheduled import ScheduledEmbedder
from warpmem.embed.wordllama import WordLlamaEmbedder
from warpmem.errors import (
    DeadlineExceeded,
    EmbeddingError,
    InputError,
    InvalidText,
    ModelUnavailable,
    Overloaded,
)
from warpmem.memory.vectors import background


class Gated:
    """The hashing embedder behind a gate; notes its batches and how many it serves at a time."""

    model_id, dimension = "gated", 32

    def __init__(self) -> None:
        self._made = HashingEmbedder(32)
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[tuple[str, list[str]]] = []
        self.inside = self.most = 0
        self.fault: Exception | None = None
        self.seconds_a_token = 0.0
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str], *, role: Literal["document", "query"]) -> NDArray[np.float32]:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.batches.append((role, list(texts)))
        try:
            assert self.gate.wait(10)
            if self.seconds_a_token:
                time.sleep(self.seconds_a_token * sum(len(text) // 4 for text in texts))
            if self.fault is not None:
                raise self.fault
            return self._made.embed(texts, role=role)
        finally:
            with self._lock:
                self.inside -= 1


def until(true: Callable[[], bool]) -> None:
    for _ in range(2000):
        if true():
            return
        time.sleep(0.002)
    raise AssertionError("it never came to that")


@contextmanager
def busy(model: Gated, scheduled: ScheduledEmbedder) -> Iterator[ThreadPoolExecutor]:
    """The model is busy with a text of its own until the gate is opened."""
    model.gate.clear()
    with ThreadPoolExecutor(40) as pool:
        first = pool.submit(scheduled.embed, ["first " * 1000], "query", lane="interactive")
        until(lambda: model.inside == 1)
        try:
            yield pool
        finally:
            model.gate.set()
        first.exception()


def waiting(scheduled: ScheduledEmbedder, count: int) -> Callable[[], bool]:
    return lambda: sum(scheduled.stats()["waiting"].values()) == count


@pytest.mark.parametrize("make", [HashingEmbedder, WordLlamaEmbedder])
def test_vectors_are_those_of_the_embedder_however_a_list_is_cut(make: Callable[[], Any]) -> None:
    model = make()
    texts = [f"note {i} " + "about that " * (i * 37 % 90) for i in range(700)]
    scheduled = ScheduledEmbedder(model)
    for lane in ("interactive", "ingest", "background"):
        found = scheduled.embed(texts, "document", lane=lane)
        assert found.tobytes() == model.embed(texts, role="document").tobytes()
    assert scheduled.embed([], "query", lane="interactive").shape == (0, model.dimension)
    assert scheduled.stats()["batches"] > 10, "it was never cut"


def test_texts_of_many_threads_go_together_by_role_and_by_length() -> None:
    model = Gated()
    scheduled = ScheduledEmbedder(model)
    texts = [f"text of the length {'x' * (n * 13 % 17)}" for n in range(30)]
    with busy(model, scheduled) as pool:
        found = [
            pool.submit(scheduled.embed, [text], ("query", "document")[n % 2], lane="interactive", owner=n)
            for n, text in enumerate(texts)
        ]
        until(waiting(scheduled, 30))
        model.gate.set()
        for text, future in zip(texts, found, strict=True):
            np.testing.assert_array_equal(future.result(), HashingEmbedder(32).embed([text], role="query"))
    assert model.most == 1
    assert len(model.batches) == 3
    for role, batch in model.batches[1:]:
        assert len(batch) == 15
        assert [len(text) for text in batch] == sorted(len(text) for text in batch), role


def test_a_text_without_a_token_is_its_callers_error_at_its_place() -> None:
    model = Gated()
    scheduled = ScheduledEmbedder(model)
    with pytest.raises(InvalidText, match=r"text 3 of 4 holds"):
        scheduled.embed(["one longer", "two", " ", "four"], "document", lane="ingest")
    many = ["some text of some length"] * 3000
    many[2900] = ""
    with pytest.raises(
        InvalidText, match=r"text \d+ of \d+ holds .*, counted from text \d+ of 3000"
    ) as caught:
        scheduled.embed(many, "document", lane="ingest")
    words = str(caught.value).split()
    assert int(words[1]) + int(words[-3]) - 1 == 2901
    with busy(model, scheduled) as pool:
        good = [pool.submit(scheduled.embed, [f"good {n}"], "query", lane="interactive") for n in range(5)]
        bad = pool.submit(scheduled.embed, [" "], "query", lane="interactive")
        until(waiting(scheduled, 6))
        model.gate.set()
        assert all(future.result().shape == (1, 32) for future in good)
        with pytest.raises(InvalidText, match="text 1 of 1"):
            bad.result()


def test_a_list_of_any_length_finds_room() -> None:
    """A single call of more than may wait at a time was refused for ever."""
    scheduled = ScheduledEmbedder(HashingEmbedder(4))
    assert scheduled._scheduler is not None
    scheduled._scheduler._queue.max_tokens = 100_000
    texts = ["w" * 20_000] * 30
    assert scheduled.embed(texts, "document", lane="ingest").shape == (30, 4)


def test_background_work_is_cut_small_and_lets_searches_through() -> None:
    model = Gated()
    model.seconds_a_token = 2e-5
    scheduled = ScheduledEmbedder(model)
    scheduled.embed(["a first text, which shows how fast it is " * 4], "query", lane="interactive")
    with ThreadPoolExecutor(2) as pool:
        bulk = pool.submit(scheduled.embed, ["a text of forty letters, more or less ok"] * 4000, "document",
                           lane="background")  # fmt: skip
        until(lambda: scheduled.stats()["served"]["background"] > 3)
        waits = []
        for _ in range(5):
            began = time.monotonic()
            scheduled.embed(["sought"], "query", lane="interactive")
            waits.append(time.monotonic() - began)
        assert not bulk.done()
        assert bulk.result().shape == (4000, 32)
    lengths = sorted(
        sum(len(text) // 4 for text in batch) for role, batch in model.batches if role == "document"
    )
    assert lengths[len(lengths) // 2] * model.seconds_a_token < 0.04, lengths
    assert sorted(waits)[2] < 0.2, waits


def test_one_embedder_has_one_scheduler_and_so_has_one_place() -> None:
    model, other = Gated(), Gated()
    assert ScheduledEmbedder(model)._scheduler is not ScheduledEmbedder(other)._scheduler
    kept = ScheduledEmbedder(model)
    assert ScheduledEmbedder(model)._scheduler is kept._scheduler
    model.place = other.place = "cuda:0"  # type: ignore[attr-defined]
    shared = ScheduledEmbedder(model)
    assert ScheduledEmbedder(other)._scheduler is shared._scheduler is not kept._scheduler
    with busy(model, shared) as pool:
        found = pool.submit(ScheduledEmbedder(other).embed, ["x"], "query", lane="interactive")
        until(waiting(shared, 1))
        assert other.batches == []
        model.gate.set()
        assert found.result().shape == (1, 32)


def test_a_fork_does_not_wait_for_threads_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Gated()
    kept = ScheduledEmbedder(model)
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert ScheduledEmbedder(model)._scheduler is not kept._scheduler


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_function_is_called_by_as_many_threads_as_it_says(parallel: int) -> None:
    model = Gated()
    function = CallableEmbedder(lambda texts: model.embed(texts, role="query"), "f", 32, parallel=parallel)
    scheduled = ScheduledEmbedder(function)
    with ThreadPoolExecutor(9) as pool:
        model.gate.clear()
        found = [pool.submit(scheduled.embed, ["x"], "query", lane="interactive") for _ in range(parallel)]
        until(lambda: model.inside == parallel)
        found.append(pool.submit(scheduled.embed, ["x"], "query", lane="interactive"))
        until(waiting(scheduled, 1))
        model.gate.set()
        for future in found:
            future.result()
    assert model.most == parallel


@pytest.mark.parametrize("parallel", [0, True, "2"])
def test_parallel_is_a_count(parallel: Any) -> None:
    with pytest.raises(InputError, match="parallel must be an integer of at least 1"):
        CallableEmbedder(len, "f", 3, parallel=parallel)


def test_several_at_a_time_where_the_embedder_says_so() -> None:
    model = Gated()
    model.parallel = 3  # type: ignore[attr-defined]
    scheduled = ScheduledEmbedder(model)
    with busy(model, scheduled) as pool:
        found = [
            pool.submit(scheduled.embed, ["x" * (1 << 16)], "query", lane="interactive") for _ in range(9)
        ]
        until(lambda: model.inside == 3)
        model.gate.set()
        for future in found:
            future.result()
    assert model.most == 3


def test_costs_are_the_embedders_own_where_it_knows_them() -> None:
    model = Gated()
    model.token_costs = lambda texts: [7 for _ in texts]  # type: ignore[attr-defined]
    scheduled = ScheduledEmbedder(model)
    scheduled.embed(["a", "b" * 400], "query", lane="interactive")
    assert scheduled.stats()["tokens"]["interactive"] == 14
    plain = ScheduledEmbedder(Gated())
    plain.embed(["a", "b" * 400, "\u00e4" * 400], "query", lane="interactive")
    assert plain.stats()["tokens"]["interactive"] == 1 + 100 + 200


def test_a_batch_of_the_wrong_shape() -> None:
    model = Gated()
    model.dimension = 33
    with pytest.raises(EmbeddingError, match=r"expected float32 vectors of shape \(1, 33\)"):
        ScheduledEmbedder(model).embed(["a"], "query", lane="interactive")


def test_the_time_that_is_left_reaches_an_embedder_that_can_use_it() -> None:
    seen: list[float | None] = []

    class Timed(Gated):
        def embed(self, texts: Sequence[str], *, role: Any, timeout: float | None = None) -> Any:
            seen.append(timeout)
            return super().embed(texts, role=role)

    model = Timed()
    scheduled = ScheduledEmbedder(model)
    scheduled.embed(["a"], "query", lane="interactive", timeout=5.0)
    scheduled.embed(["a"], "query", lane="interactive")
    with busy(model, scheduled) as pool:
        texts = [
            pool.submit(scheduled.embed, ["b"], "query", lane="interactive", timeout=left)
            for left in (20.0, 50.0)
        ]
        until(waiting(scheduled, 2))
        model.gate.set()
        for future in texts:
            future.result()
    assert seen[1:3] == [None, None]
    assert 4 < (seen[0] or 0) <= 5
    assert 40 < (seen[3] or 0) <= 50, "those who have longer are not given up for those who have not"


def test_a_text_without_a_deadline_takes_nobodys_away() -> None:
    """One search without a deadline in a batch, and the embedder was given no time at all for any of it."""
    seen: list[tuple[list[str], float | None]] = []

    class Timed(Gated):
        def embed(self, texts: Sequence[str], *, role: Any, timeout: float | None = None) -> Any:
            seen.append((sorted(texts), timeout))
            return super().embed(texts, role=role)

    model = Timed()
    scheduled = ScheduledEmbedder(model)
    with busy(model, scheduled) as pool:
        found = [
            pool.submit(scheduled.embed, [text], "query", lane="interactive", timeout=left)
            for text, left in (("a", 20.0), ("b", None), ("c", 20.0), ("d", None))
        ]
        until(waiting(scheduled, 4))
        model.gate.set()
        for future in found:
            future.result()
    assert sorted((texts, timeout is None) for texts, timeout in seen[1:]) == [
        (["a", "c"], False),
        (["b", "d"], True),
    ]


def test_no_scheduler_where_nothing_is_embedded() -> None:
    scheduled = ScheduledEmbedder(GivenVectors(3))
    assert scheduled.stats() == {}
    with pytest.raises(InputError, match="has no embedder"):
        scheduled.embed(["a"], "query", lane="interactive")


# ------------------------------------------------------------------------------------- through Memory


def test_a_search_that_waits_too_long_is_told_and_an_add_stores_nothing_by_halves() -> None:
    model = Gated()
    with warpmem.open(None, embedder=model) as memory:
        scheduled = memory._current.now.vectors._embedder
        memory.add("kept", user_id="u")
        with busy(model, scheduled) as pool:
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                memory.search("sought", user_id="u", deadline=0.05, mode="dense")
            assert time.monotonic() - began < 5
            until(waiting(scheduled, 0))
            adding = pool.submit(memory.add_many, ["one", "two", "three"], user_id="u")
            until(waiting(scheduled, 1))
            model.fault = ModelUnavailable("gone")
            model.gate.set()
            with pytest.raises(ModelUnavailable):
                adding.result()
        model.fault = None
        assert [item.text for item in memory.list(user_id="u")] == ["kept"]


def test_searches_with_a_deadline_are_tried_after_a_slow_beginning() -> None:
    """A model that was slow once, while it was loaded, was refused to every `search_many` with a deadline."""
    model = Gated()
    with warpmem.open(None, embedder=model) as memory:
        model.seconds_a_token = 0.15
        memory.add("a text almost as long as each of them", user_id="u")
        model.seconds_a_token = 0.0
        for n in range(5):
            queries = [
                f"what is sought in the round {n} of all these",
                f"and what besides in the round {n} of these",
            ]
            assert len(memory.search_many(queries, scopes=[Scope(user_id="u")] * 2, deadline=1)) == 2


def test_no_room_reaches_the_caller() -> None:
    model = Gated()
    with warpmem.open(None, embedder=model) as memory:
        scheduled = memory._current.now.vectors._embedder
        assert scheduled._scheduler is not None
        scheduled._scheduler._queue.max_tokens = 10
        with busy(model, scheduled) as pool:
            before = pool.submit(memory.search, "x" * 36, user_id="u")
            until(waiting(scheduled, 1))
            with pytest.raises(Overloaded) as caught:
                memory.add("y" * 36, user_id="u")
            assert caught.value.retry_after >= 0
            model.gate.set()
            before.result()
        assert memory.count(user_id="u") == 0


def test_lanes_by_what_is_asked_for(tmp_path: Any) -> None:
    file = tmp_path / "lines"
    file.write_text('{"text": "imported", "user_id": "u"}\n')
    with warpmem.open(None, embedder="hashing") as memory:
        (added,) = memory.add(["added"], user_id="u")
        memory.update(added.id, text="updated")
        memory.search("one", user_id="u")
        memory.search_many(["two", "three"], scopes=[Scope(user_id="u"), Scope(user_id="v")])
        memory.import_(file)
        assert memory._current.now.vectors._embedder.stats()["served"] == {
            "interactive": 2, "ingest": 2, "background": 1,
        }  # fmt: skip
        memory.reembed(HashingEmbedder(24))
        served = memory._current.now.vectors._embedder.stats()["served"]
        assert (served["ingest"], served["interactive"]) == (0, 0)
        assert served["background"] > 0


def test_background_ends_with_its_block() -> None:
    with warpmem.open(None, embedder="hashing") as memory:
        with background("other"):
            memory.add("one", user_id="u")
        memory.add("two", user_id="u")
        served = memory._current.now.vectors._embedder.stats()["served"]
        assert (served["ingest"], served["background"]) == (1, 1)
