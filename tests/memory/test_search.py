"""search, search_many, context: scopes, ranking, filters, time, vectors out; equality over backends and
reopening."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

import warpmem
from warpmem import Memory, NewItem, Ranking, Scope, SearchResult
from warpmem.errors import DeadlineExceeded, InputError, InvalidScope
from warpmem.ops.clock import FixedClock, to_datetime

DAY = timedelta(days=1)


def texts(result: SearchResult) -> list[str]:
    return [hit.item.text for hit in result]


def test_a_user_sees_only_their_own(memory: Memory) -> None:
    for user in ("ann", "bob"):
        memory.add(f"{user} owns a grey cat", user_id=user)
    assert texts(memory.search("grey cat", user_id="ann")) == ["ann owns a grey cat"]
    assert texts(memory.search("grey cat", user_id="nobody")) == []
    assert texts(memory.search("grey cat", agent_id="ann")) == []


def test_attributes_narrow_and_unset_means_any(memory: Memory) -> None:
    memory.add("note one", user_id="u")
    memory.add("note two", user_id="u", agent_id="a")
    memory.add("note three", user_id="u", agent_id="a", run_id="r")
    memory.add("note four", user_id="u", agent_id="b", run_id="r")

    def seen(**scope: str) -> set[str]:
        return {text.split()[1] for text in texts(memory.search("note", user_id="u", **scope))}  # type: ignore[arg-type]

    assert seen() == {"one", "two", "three", "four"}
    assert seen(agent_id="a") == {"two", "three"}
    assert seen(run_id="r") == {"three", "four"}
    assert seen(agent_id="a", run_id="r") == {"three"}
    assert seen(agent_id="zzz") == set()


def test_several_scopes_are_searched_together(memory: Memory) -> None:
    memory.add("the plan", user_id="u")
    memory.add("the plan", corpus_id="handbook")
    memory.add("the plan", agent_id="a")
    scopes = [Scope(corpus_id="handbook"), Scope(user_id="u")]
    owners = [hit.item.scope for hit in memory.search("the plan", scopes=scopes)]
    assert owners == scopes, "ties follow the order of the scopes"
    assert [hit.item.scope for hit in memory.search("the plan", scopes=scopes[::-1])] == scopes[::-1]


def test_overlapping_scopes_of_one_owner_give_each_item_once(memory: Memory) -> None:
    ids = {
        memory.add(f"note {i}", user_id="u", agent_id="a" if i % 2 else "b", run_id="r" if i % 3 else "s").id
        for i in range(12)
    }
    scopes = [Scope(user_id="u", agent_id="a"), Scope(user_id="u", run_id="r"), Scope(user_id="u")]
    result = memory.search("note", scopes=scopes, k=50)
    assert len(result) == 12 and {hit.item.id for hit in result} == ids
    scores = [hit.score for hit in result]
    assert scores == sorted(scores, reverse=True)
    assert len(memory.search("note", scopes=scopes[:2], k=50)) == 10


def test_fewer_than_k_only_when_fewer_match(memory: Memory) -> None:
    memory.add_many(
        [NewItem(text=f"number {i} of the list", metadata={"i": i}) for i in range(300)], user_id="u"
    )
    for k in (1, 10, 100, 299, 300, 301, 4096):
        assert len(memory.search("number", user_id="u", k=k)) == min(k, 300)
    assert len(memory.search("number", user_id="u", k=10, filters={"metadata.i": {"gte": 290}})) == 10
    assert len(memory.search("number", user_id="u", k=20, filters={"metadata.i": {"gte": 290}})) == 10


def test_ranking_weighs_recency_and_priority_into_the_exact_order(memory: Memory, clock: FixedClock) -> None:
    now = to_datetime(clock.now())
    for age, priority in ((0, 0.0), (10, 1.0), (40, 0.2), (90, 0.9)):
        memory.add("same words", user_id="u", kind="event", priority=priority, valid_from=now - age * DAY)
    ranking = Ranking(similarity=0.5, recency=1.0, priority=0.25, half_life=10 * DAY)
    result = memory.search("same words", user_id="u", ranking=ranking, explain=True)
    for hit in result:
        parts = hit.parts
        total = sum(parts[name] * parts[f"weight_{name}"] for name in ("similarity", "recency", "priority"))
        assert hit.score == pytest.approx(total, rel=1e-6)
    assert [(now - hit.item.valid_from).days for hit in result] == [0, 10, 90, 40]
    plain = memory.search("same words", user_id="u")
    assert [(now - hit.item.valid_from).days for hit in plain] == [0, 10, 40, 90], "ties: earlier added first"


def test_kinds_and_filters_combine(memory: Memory) -> None:
    memory.add("tea is green", user_id="u", kind="fact", metadata={"drink": "tea", "n": 1})
    memory.add("tea is black", user_id="u", kind="preference", metadata={"drink": "tea", "n": 2})
    memory.add("mate is green", user_id="u", kind="fact", metadata={"drink": "mate", "n": 3})
    assert texts(memory.search("tea", user_id="u", kinds=["preference"])) == ["tea is black"]
    assert texts(memory.search("tea", user_id="u", kinds=["recipe"])) == []
    both = {"metadata.drink": {"eq": "tea"}, "metadata.n": {"gt": 1}}
    assert texts(memory.search("tea", user_id="u", filters=both)) == ["tea is black"]
    nested = {
        "or": [{"metadata.n": {"in": [3]}}, {"and": [{"kind": "fact"}, {"not": {"metadata.n": {"gte": 2}}}]}]
    }
    assert sorted(texts(memory.search("tea", user_id="u", filters=nested))) == [
        "mate is green",
        "tea is green",
    ]


def test_a_filter_sees_items_added_after_its_mask_was_made(memory: Memory) -> None:
    filters = {"metadata.n": {"gte": 1}}
    for n in range(5):
        memory.add(f"item {n}", user_id="u", metadata={"n": n})
        assert len(memory.search("item", user_id="u", filters=filters)) == n


def test_min_similarity_cuts(memory: Memory) -> None:
    memory.add_many(["alpha beta", "gamma delta"], user_id="u")
    assert len(memory.search("alpha beta", user_id="u")) == 2
    assert texts(memory.search("alpha beta", user_id="u", min_similarity=0.99)) == ["alpha beta"]


def test_search_many_equals_single_searches(memory: Memory) -> None:
    for user in range(5):
        memory.add_many([f"user {user} note {i} of many" for i in range(30)], user_id=f"u{user}")
    queries = [f"note {i}" for i in range(5)] * 2
    scopes = [Scope(user_id=f"u{i % 5}") for i in range(10)]
    together = memory.search_many(queries, scopes=scopes, k=7)
    alone = [memory.search(query, scope=scope, k=7) for query, scope in zip(queries, scopes, strict=True)]
    assert [list(result) for result in together] == [list(result) for result in alone]
    assert memory.search_many([], scopes=[]) == ()
    with pytest.raises(InputError, match="2 queries, 1 scopes"):
        memory.search_many(["a", "b"], scopes=scopes[:1])


def test_vectors_come_out_as_stored(memory: Memory) -> None:
    rows = np.random.default_rng(0).normal(size=(20, 256)).astype(np.float32)
    memory.add([f"row {i}" for i in range(20)], user_id="u", vector=rows)
    result = memory.search(vector=rows[3], user_id="u", k=5, return_vectors="dlpack")
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = np.stack([unit[int(hit.item.text.split()[1])] for hit in result])
    assert np.from_dlpack(result.vectors).dtype == np.float32
    np.testing.assert_allclose(result.vectors, expected, rtol=1e-6)


def test_context_keeps_its_budget_and_its_order(memory: Memory, clock: FixedClock) -> None:
    for i in range(30):
        memory.add(f"The {i}th fact about tea houses in Porto", user_id="u")
    memory.add("Home is Porto", user_id="u", key="home")
    clock.advance(DAY)
    memory.add("Home is Lisbon", user_id="u", key="home")
    hits = memory.search("tea houses in Porto", user_id="u", k=50)
    for budget in (1, 20, 50, 200, 1000):
        block = memory.context("tea houses in Porto", user_id="u", max_tokens=budget)
        assert block.tokens <= budget and block.max_tokens == budget
        assert len(block.citations) + block.omitted == len(hits)
    order = [hit.item.id for hit in hits]
    assert sorted(block.citations, key=order.index) == list(block.citations)
    past = memory.context("home", user_id="u", max_tokens=500, as_of=to_datetime(clock.now()) - DAY)
    assert "Home is Porto" in past.text and "Lisbon" not in past.text


def test_a_deadline_that_has_passed_is_an_error(memory: Memory) -> None:
    memory.add("a note", user_id="u")
    with pytest.raises(DeadlineExceeded):
        memory.search("note", user_id="u", deadline=1e-9)
    assert len(memory.search("note", user_id="u", deadline=60)) == 1
    with pytest.raises(InputError):
        memory.search("note", user_id="u", deadline=0)


def test_scope_and_ids_together_are_refused(memory: Memory) -> None:
    with pytest.raises(InvalidScope, match="not both"):
        memory.search("x", user_id="u", scope=Scope(user_id="u"))
    with pytest.raises(InvalidScope, match="not both"):
        memory.search("x", user_id="u", scopes=[Scope(user_id="u")])
    for scopes in ([], [Scope(user_id="u"), "v"], Scope(user_id="u")):
        with pytest.raises(InvalidScope):
            memory.search("x", scopes=scopes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("backend", "isa"), [("numpy", "auto"), ("cpu", "serial"), ("cpu", "auto")])
def test_every_backend_gives_the_same_hits_and_bits_after_reopening(
    backend: str, isa: str, tmp_path: Path
) -> None:
    clock = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
    rng = np.random.default_rng(7)
    rows = rng.normal(size=(500, 48)).astype(np.float32)
    rows[100:120] = rows[5]
    path = tmp_path / "store"
    options = {"dimension": 48, "clock": clock, "durability": "os"}

    def answers(memory: Memory) -> list[list[tuple[str, float, float]]]:
        ranking = Ranking(similarity=1.0, recency=0.3, priority=0.2, half_life=3 * DAY)
        return [
            [(hit.item.id, hit.score, hit.parts["similarity"]) for hit in result]
            for weights in (None, ranking)
            for result in memory.search_many(
                vectors=rows[:20], scopes=[Scope(user_id="u")] * 20, k=33, ranking=weights,
                filters={"metadata.m": {"lt": 7}},
            )
        ]  # fmt: skip

    with warpmem.open(path, backend="numpy", **options) as memory:
        for i in range(0, 500, 100):
            clock.advance(DAY)
            memory.add_many(
                [
                    NewItem(text=f"row {j}", metadata={"m": j % 10}, priority=j % 5 / 4, vector=rows[j])
                    for j in range(i, i + 100)
                ],
                user_id="u",
            )
        reference = answers(memory)
        assert all(len(hits) == 33 for hits in reference)
    with warpmem.open(path, backend=backend, isa=isa, **options) as memory:
        assert memory.stats().backend == backend
        assert answers(memory) == reference


def test_searches_beside_writes_never_miss_what_was_there(memory: Memory) -> None:
    ids = [memory.add(f"steady {i}", user_id="u", metadata={"steady": True}).id for i in range(20)]
    stop = threading.Event()
    errors: list[BaseException] = []

    def churn() -> None:
        n = 0
        while not stop.is_set():
            memory.update(ids[n % 20], priority=(n % 10) / 10)
            if n % 3 == 0:
                memory.delete(memory.add(f"passing {n}", user_id="u").id)
            n += 1

    def look() -> None:
        try:
            for _ in range(60):
                for filters in (None, {"metadata.steady": True}):
                    seen = {
                        hit.item.id for hit in memory.search("steady", user_id="u", k=100, filters=filters)
                    }
                    assert set(ids) <= seen
        except BaseException as error:  # noqa: BLE001  handed to the main thread
            errors.append(error)

    writer = threading.Thread(target=churn)
    readers = [threading.Thread(target=look) for _ in range(2)]
    writer.start()
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    stop.set()
    writer.join()
    assert not errors, errors[0]
