"""What a search, a timeline and a listing refuse, by typed errors and with nothing changed, and what they
answer with nothing; and vectors of hits, whatever put these in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

import warpmem
from warpmem import Memory, NewItem, Ranking, Scope, ScopeWeight
from warpmem.errors import InputError, InvalidFilter, InvalidScope, InvalidText, InvalidTime

DIM = 6
THEN = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = np.random.default_rng(5).standard_normal((40, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def memory() -> Iterator[Memory]:
    with warpmem.open(dimension=DIM) as opened:
        opened.add_many(
            [
                NewItem(
                    text=f"tower {'red' if i % 3 else 'tea'} {i}",
                    kind="event",
                    scope=Scope(user_id="uv"[i % 2], run_id="r"),
                    entities=(("Nadia", "Otto")[i % 2],),
                    valid_from=THEN,
                    vector=row,
                )
                for i, row in enumerate(ROWS)
            ]
        )
        yield opened


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "sparse"}, {"mode": ""}, {"mode": 1}, {"mode": ["dense"]}, {"ranking": "recent"},
        {"ranking": {}},
        {"mode": "hybrid", "ranking": Ranking(lexical=1.0)}, {"min_similarity": "high"},
        {"min_similarity": 3},
        {"min_similarity": float("nan")}, {"kinds": []}, {"kinds": "fact"}, {"kinds": ["No"]}, {"k": 0},
        {"k": 4097}, {"explain": 1}, {"return_vectors": "torch"}, {"return_vectors": True}, {"rerank": 0},
        {"rerank": "yes"}, {"vector": [1, 2]}, {"vector": [0.0] * DIM}, {"vector": "v"}, {"deadline": -1},
        {"during": THEN}, {"during": (THEN,)}, {"during": (THEN, THEN)}, {"during": (None, None)},
        {"during": (THEN, THEN - timedelta(1))}, {"during": (THEN, "2027")},
        {"during": (THEN, None), "as_of": THEN}, {"as_of": "2026-01-01"}, {"known_at": 3},
        {"now": THEN.date()},
    ],
)  # fmt: skip
def test_refused_arguments(memory: Memory, options: dict[str, Any]) -> None:
    given = {"vector": ROWS[0]} | options
    for mode in (None, "hybrid"):
        if mode is None or not {"mode", "ranking"} & set(given):
            asked = given if mode is None else {**given, "mode": mode}
            with pytest.raises(InputError):
                memory.search("tower", user_id="u", **asked)


@pytest.mark.parametrize("mode", [None, "dense", "lexical"])
@pytest.mark.parametrize("query", [5, b"tower", ["tower"], True, "\ud800", "a" * ((1 << 20) + 1)])
def test_a_query_is_a_text_beside_a_vector_too(memory: Memory, query: Any, mode: Any) -> None:
    """It was looked at only where it was embedded, and what is none ended in an AttributeError."""
    with pytest.raises(InvalidText):
        memory.search(query, vector=ROWS[0], user_id="u", mode=mode)
    with pytest.raises(InvalidText):
        memory.search_many([query], vectors=ROWS[:1], scopes=[Scope(user_id="u")], mode=mode)
    with pytest.raises(InvalidText):
        memory.context(query, vector=ROWS[0], user_id="u", mode=mode)


@pytest.mark.parametrize("query", ["", " \n", 5, "a" * (1 << 21)])
def test_what_is_wrong_with_a_query_is_said_of_the_query(memory: Memory, query: Any) -> None:
    """Of a blank one it was said that there was nothing to remember, and of a long one to make several
    items of it."""
    words = r"^the query (is empty or only whitespace|must be a string, not int|is .* over the limit of \d+)$"
    for ask in (memory.search, memory.context):
        with pytest.raises(InvalidText, match=words):
            ask(query, user_id="u")


@pytest.mark.parametrize("query", ["", " \n"])
def test_a_blank_query_says_nothing_beside_a_vector(memory: Memory, query: str) -> None:
    by_vector = memory.search(vector=ROWS[0], user_id="u")
    assert [hit.item for hit in memory.search(query, vector=ROWS[0], user_id="u")] == list(by_vector.items)


@pytest.mark.parametrize("name", ["similarity", "lexical", "adjacent", "recency", "priority", "diversity"])
@pytest.mark.parametrize("weight", [-0.1, -1e-300, float("nan"), float("-inf"), 1e7, "1", False])
def test_weights_are_numbers_from_0_on(name: str, weight: Any) -> None:
    with pytest.raises(InputError, match=name):
        Ranking(**{name: weight})


@pytest.mark.parametrize("name", ["entities", "recency", "priority", "diversity"])
def test_weights_that_no_mode_sets_are_never_left_to_it(name: str) -> None:
    with pytest.raises(InputError, match=name):
        Ranking(**{name: None})  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [timedelta(0), -timedelta(days=1), 30, None])
def test_a_half_life_is_a_length_of_time(length: Any) -> None:
    with pytest.raises(InputError, match="half_life"):
        Ranking(half_life=length)


def test_times_without_a_zone_or_against_each_other(memory: Memory) -> None:
    naive = THEN.replace(tzinfo=None)
    for name in ("as_of", "known_at", "now"):
        with pytest.raises(InvalidTime):
            memory.search("tower", vector=ROWS[0], user_id="u", **{name: naive})  # type: ignore[arg-type]
    for name in ("since", "until"):
        with pytest.raises(InvalidTime, match=f"^{name} is a naive"):
            memory.timeline(user_id="u", **{name: naive})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="end after it begins"):
        memory.timeline(user_id="u", since=THEN, until=THEN - timedelta(1))
    for bounds in ({"during": [THEN, THEN]}, {"before": THEN, "after": THEN}):
        with pytest.raises(InvalidFilter):
            memory.search("tower", vector=ROWS[0], user_id="u", filters={"valid": bounds})


def test_times_in_which_nothing_was_true_are_an_empty_answer(memory: Memory) -> None:
    for options in (
        {"as_of": THEN - timedelta(1)},
        {"known_at": THEN},
        {"filters": {"valid": {"before": THEN}}},
    ):
        for mode in ("dense", "lexical", "hybrid"):
            found = memory.search("tower", vector=ROWS[0], user_id="u", mode=mode, **options)  # type: ignore[arg-type]
            assert len(found) == 0


def test_what_another_owner_has_is_an_empty_answer(memory: Memory) -> None:
    """His entities, and his items by their ids: as if there were none."""
    (other,) = memory.list(user_id="v", limit=1).items
    for filters in ({"entities": {"contains": "Otto"}}, {"id": other.id}, {"user_id": "v"}):
        for mode in ("dense", "lexical", "hybrid"):
            assert len(memory.search("tower", vector=ROWS[0], user_id="u", mode=mode, filters=filters)) == 0  # type: ignore[arg-type]
        assert memory.list(user_id="u", filters=filters).items == ()
        assert len(memory.search("tower", vector=ROWS[0], user_id="v", filters=filters)) >= 1
    assert memory.get_many([other.id], scope=Scope(user_id="u")) == (None,)


def test_scopes_are_a_list_of_scopes(memory: Memory) -> None:
    scope = Scope(user_id="u")
    for scopes in ((), scope, [None], ["u"], [{"user_id": "u"}], {scope: 2.0}):
        with pytest.raises(InvalidScope):
            memory.search("tower", vector=ROWS[0], scopes=scopes)  # type: ignore[arg-type]
    with pytest.raises(InvalidScope, match="not both"):
        memory.search("tower", vector=ROWS[0], user_id="u", scopes=[ScopeWeight(scope)])


class ByNumber:
    """Likes items with high numbers."""

    model_id = "test:by-number"

    def rerank(self, query: str, texts: Sequence[str]) -> Any:
        return [float(text.split()[-1]) for text in texts]


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
@pytest.mark.parametrize("rerank", [None, ByNumber(), 5], ids=["scan", "reranked", "five reranked"])
@pytest.mark.parametrize(
    "ranking",
    [None, Ranking(diversity=0.5), Ranking(priority=0.5, by_kind={"event": Ranking(recency=0.5)})],
    ids=["plain", "mmr", "by kind"],
)
@pytest.mark.parametrize("form", ["numpy", "dlpack"])
def test_vectors_belong_to_hits_in_their_order(
    memory: Memory, mode: Any, rerank: Any, ranking: Any, form: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What every item's row is, by the number in its text."""
    monkeypatch.setattr(memory._reranking, "_default", ByNumber)
    stored = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)
    shares = [ScopeWeight(Scope(user_id="u"), 2.0, 4), ScopeWeight(Scope(user_id="v"))]
    for scopes in ([Scope(user_id="u")], [Scope(user_id="u"), Scope(user_id="v")], shares):
        found = memory.search(
            "red tower", vector=ROWS[3], scopes=scopes, k=9, mode=mode, rerank=rerank, ranking=ranking,
            return_vectors=form,
        )  # fmt: skip
        rows = np.from_dlpack(found.vectors) if form == "dlpack" else found.vectors
        assert rows.dtype == np.float32 and rows.shape == (9, DIM)
        numbers = [int(hit.item.text.split()[-1]) for hit in found]
        assert len(set(numbers)) == 9
        assert np.allclose(rows, stored[numbers], atol=1e-6)
    (nobody,) = memory.search_many(
        ["red"],
        scopes=[Scope(user_id="nobody")],
        vectors=ROWS[:1],
        mode=mode,
        ranking=ranking,
        return_vectors=form,
    )
    assert nobody.vectors.shape == (0, DIM)
