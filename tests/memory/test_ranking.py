"""Rankings by kind, scopes with weights and quotas, hits unlike each other: against what searches of the
parts give, put together in plain Python."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import warpmem
from warpmem import Hit, Memory, NewItem, Ranking, Scope, ScopeWeight
from warpmem.errors import InputError, InvalidScope, ModelError
from warpmem.index import searched_partitions
from warpmem.ops.clock import FixedClock

START = datetime(2026, 1, 1, tzinfo=UTC)
DIM = 8
KINDS = ("fact", "message", "event", "note")
WORDS = ["red", "tower", "tea", "cafe", "x7"]
ALL = 1000
QUERY = "red tower x7"
VECTOR = np.eye(DIM, dtype=np.float32)[0]


def fill(memory: Memory, clock: FixedClock, n: int, seed: int) -> None:
    """Items of three owners, many of them alike."""
    rng = random.Random(seed)
    for i in range(n):
        memory.add_many(
            [
                NewItem(
                    text=" ".join(rng.choices(WORDS, k=3)) + ("" if i % 3 else f" {i}"),
                    kind=rng.choice(KINDS),
                    scope=Scope(user_id=rng.choice("uv"), run_id=rng.choice([None, "a", "b"])),
                    priority=rng.choice([0.0, 0.5, 1.0]),
                    metadata={"n": rng.randrange(4)},
                )
            ],
            vectors=np.array([[rng.choice([0.0, 1.0, 2.0]) for _ in range(DIM - 1)] + [1.0]], np.float32),
        )
        clock.advance(timedelta(hours=1))


@pytest.fixture(scope="module", params=["cpu", "numpy"])
def memory(request: pytest.FixtureRequest) -> Iterator[Memory]:
    clock = FixedClock(START)
    with warpmem.open(dimension=DIM, clock=clock, backend=request.param) as opened:
        fill(opened, clock, 150, 3)
        yield opened


def names(hits: Sequence[Hit]) -> list[Any]:
    return [(hit.item.id, hit.score) for hit in hits]


def parts(hits: Sequence[Hit]) -> Sequence[Hit]:
    """As one scan orders them: by score, then earlier added first. Of one owner."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.item.id))


# --------------------------------------------------------------------------------------- by kind

PROFILES: tuple[dict[str, Ranking], ...] = (
    {"message": Ranking(recency=2.0, half_life=timedelta(hours=20))},
    {"message": Ranking(lexical=3.0), "event": Ranking(lexical=3.0), "note": Ranking(priority=1.0)},
    {kind: Ranking(similarity=i / 2, lexical=1.0, adjacent=0.5) for i, kind in enumerate(KINDS)},
    {"never": Ranking(priority=5.0)},
)


@pytest.mark.parametrize("by_kind", PROFILES)
@pytest.mark.parametrize("kinds", [None, ["message", "fact"], ["event"], ["never"]])
@pytest.mark.parametrize("filters", [None, {"metadata.n": {"in": [1, 2]}}])
def test_the_best_of_kinds_that_are_weighed_differently(
    memory: Memory, by_kind: dict[str, Ranking], kinds: list[str] | None, filters: Any
) -> None:
    ranking = Ranking(priority=0.5, by_kind=by_kind)
    rest = Ranking(priority=0.5)
    if any(own.similarity is not None or own.lexical is not None for own in by_kind.values()):
        # One names a weight that modes have: then none is the mode's.
        rest, *others = (
            own if own.similarity is not None else msgspec.structs.replace(own, similarity=1.0)
            for own in (rest, *by_kind.values())
        )
        by_kind = dict(zip(by_kind, others, strict=True))
    options: dict[str, Any] = {"vector": VECTOR, "user_id": "u", "filters": filters}
    every: list[Hit] = []
    for kind in KINDS if kinds is None else kinds:
        own = by_kind.get(kind, rest)
        every += memory.search(QUERY, **options, kinds=[kind], ranking=own, k=ALL)
    for k in (1, 7, ALL):
        hits = memory.search(QUERY, **options, kinds=kinds, ranking=ranking, k=k)
        assert names(hits) == names(parts(every)[:k])


@pytest.mark.parametrize("mode", ["lexical", "hybrid"])
def test_a_mode_sets_its_weights_for_every_kind(memory: Memory, mode: Any) -> None:
    ranking = Ranking(priority=0.1, by_kind={"message": Ranking(recency=1.0), "note": Ranking(priority=2.0)})
    options: dict[str, Any] = {"vector": VECTOR, "user_id": "u", "mode": mode}
    every: list[Hit] = []
    for kind in KINDS:
        own = ranking.by_kind.get(kind, Ranking(priority=0.1))
        every += memory.search(QUERY, **options, kinds=[kind], ranking=own, k=ALL)
    hits = memory.search(QUERY, **options, ranking=ranking, k=20)
    assert names(hits) == names(parts(every)[:20])
    with pytest.raises(InputError, match="sets the weights"):
        memory.search("x", user_id="u", mode=mode, ranking=Ranking(by_kind={"note": Ranking(lexical=1.0)}))


def test_a_change_between_the_scans_of_two_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """An item that turns from one kind into another meanwhile is found once."""
    with warpmem.open(dimension=DIM) as memory:
        old: dict[str, Any] = {
            "user_id": "u",
            "vector": VECTOR,
            "valid_from": datetime(2020, 1, 1, tzinfo=UTC),
        }
        first = memory.add("red", kind="fact", **old)
        memory.add("blue", kind="note", **old)
        search, left = searched_partitions.SearchedPartitions._search, [1]

        def before_a_change(self: Any, *arguments: Any) -> Any:
            found = search(self, *arguments)
            if left:
                left.clear()
                memory.delete(first.id)
                memory.add("red", kind="note", **old)
            return found

        monkeypatch.setattr(searched_partitions.SearchedPartitions, "_search", before_a_change)
        ranking = Ranking(by_kind={"fact": Ranking(priority=1.0)})
        hits = memory.search("red", user_id="u", vector=VECTOR, ranking=ranking)
        assert sorted(hit.item.text for hit in hits) == ["blue", "red"]
        assert {hit.item.kind for hit in hits} == {"note"}


def test_many_queries_with_rankings_by_kind(memory: Memory) -> None:
    ranking = Ranking(by_kind={"message": Ranking(lexical=1.0), "event": Ranking(priority=2.0)})
    queries, scopes = ["tea", "red", "none"], [Scope(user_id=user) for user in ("u", "v", "nobody")]
    vectors = np.eye(DIM, dtype=np.float32)[:3]
    together = memory.search_many(queries, scopes=scopes, vectors=vectors, ranking=ranking, k=9)
    for i, found in enumerate(together):
        alone = memory.search(queries[i], scope=scopes[i], vector=vectors[i], ranking=ranking, k=9)
        assert names(found) == names(alone)


# --------------------------------------------------------------------------------------- scopes

SCOPES = (
    Scope(user_id="u"),
    Scope(user_id="v"),
    Scope(user_id="u", run_id="a"),
    Scope(user_id="v", run_id="b"),
    Scope(user_id="nobody"),
)
SHARES = st.lists(
    st.tuples(
        st.sampled_from(SCOPES),
        st.sampled_from([0.25, 0.5, 1.0, 1.5, 4.0]),
        st.one_of(st.none(), st.integers(1, 6)),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda share: share[0],
).map(lambda shares: [ScopeWeight(*share) for share in shares])


def greedy(memory: Memory, shares: Sequence[ScopeWeight], k: int, **options: Any) -> list[tuple[str, float]]:
    """Best first, each item once, no scope more than its quota: over every item of every scope."""
    every = []
    for place, share in enumerate(shares):
        for rank, hit in enumerate(memory.search(QUERY, scope=share.scope, k=ALL, **options)):
            every.append((-share.weight * hit.score, place, rank, hit.item.id))
    left = [k if share.quota is None else share.quota for share in shares]
    taken: dict[str, float] = {}
    for score, place, _, item in sorted(every):
        if item not in taken and left[place] and len(taken) < k:
            taken[item] = -score
            left[place] -= 1
    return list(taken.items())


@settings(max_examples=120, deadline=None)
@given(SHARES, st.sampled_from([1, 3, 8, 40]), st.integers(0, 3))
def test_the_best_under_weights_and_quotas(shares: list[ScopeWeight], k: int, way: int) -> None:
    memory = _STORE[0]
    options: dict[str, Any] = (
        {"vector": VECTOR},
        {"vector": VECTOR, "mode": "hybrid"},
        {"vector": -VECTOR, "filters": {"metadata.n": {"gte": 1}}},
        {
            "vector": VECTOR,
            "ranking": Ranking(by_kind={"message": Ranking(lexical=2.0)}),
            "kinds": ["message", "fact"],
        },
    )[way]
    hits = memory.search(QUERY, scopes=shares, k=k, **options)
    assert names(hits) == greedy(memory, shares, k, **options)


_STORE: list[Memory] = []


@pytest.fixture(scope="module", autouse=True)
def store() -> Iterator[None]:
    """For what hypothesis runs."""
    clock = FixedClock(START)
    with warpmem.open(dimension=DIM, clock=clock) as opened:
        fill(opened, clock, 80, 5)
        _STORE.append(opened)
        yield
        _STORE.clear()


def test_weights_of_one_change_nothing(memory: Memory) -> None:
    plain = memory.search(QUERY, vector=VECTOR, scopes=SCOPES, k=30)
    weighted = memory.search(QUERY, vector=VECTOR, scopes=[ScopeWeight(scope) for scope in SCOPES], k=30)
    mixed = memory.search(QUERY, vector=VECTOR, scopes=[ScopeWeight(SCOPES[0]), *SCOPES[1:]], k=30)
    assert names(plain) == names(weighted) == names(mixed)


@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_many_searches_have_scopes_and_weights_of_their_own(memory: Memory, mode: Any) -> None:
    scopes: list[Any] = [
        SCOPES[0],
        ScopeWeight(SCOPES[1], 0.5, 4),
        SCOPES,
        [ScopeWeight(SCOPES[0], 2.0, 3), *SCOPES[1:]],
        (ScopeWeight(SCOPES[2], 3.0),),
        SCOPES[:1] * 2,
    ]
    for ranking in (None, Ranking(by_kind={"message": Ranking(priority=1.0)}), Ranking(diversity=0.5)):
        options: dict[str, Any] = {"k": 12, "mode": mode, "ranking": ranking}
        if ranking is not None and ranking.by_kind:
            options["mode"] = None
        many = memory.search_many([QUERY] * 6, vectors=np.stack([VECTOR] * 6), scopes=scopes, **options)
        for whose, found in zip(scopes, many, strict=True):
            each = whose if isinstance(whose, (list, tuple)) else [whose]
            one = memory.search(QUERY, vector=VECTOR, scopes=each, **options)
            assert names(found) == names(one) and len(found) > 0
        assert len(many[1]) <= 4 < len(many[0]) == len(many[5])


def test_refused_scopes(memory: Memory) -> None:
    scope = SCOPES[0]
    for weight in (0.0, -1.0, float("nan"), float("inf"), "1", True, None):
        with pytest.raises(InputError, match="weight"):
            ScopeWeight(scope, weight)  # type: ignore[arg-type]
    for quota in (0, -1, 1.5, True, "1"):
        with pytest.raises(InputError, match="quota"):
            ScopeWeight(scope, quota=quota)  # type: ignore[arg-type]
    with pytest.raises(InvalidScope):
        ScopeWeight("u")  # type: ignore[arg-type]
    for scopes in (
        [ScopeWeight(scope), scope],
        [ScopeWeight(scope), "v"],
        [ScopeWeight(scope), ScopeWeight(scope, 2)],
    ):
        with pytest.raises(InvalidScope):
            memory.search("x", scopes=scopes)  # type: ignore[arg-type]
        with pytest.raises(InvalidScope):
            memory.search_many(["x"], scopes=[scopes])  # type: ignore[list-item]
    for empty in ([], (), "u", None):
        with pytest.raises(InvalidScope):
            memory.search_many(["x"], scopes=[empty])  # type: ignore[list-item]


# --------------------------------------------------------------------------------------- diversity


def different(candidates: Sequence[Hit], rows: Any, k: int, diversity: float) -> list[int]:
    """Maximal marginal relevance in float64, with products that are not the canonical ones."""
    chosen: list[int] = []
    while len(chosen) < min(k, len(candidates)):
        values = {
            i: (1 - diversity) * hit.score
            - diversity
            * max(
                (float(rows[i].astype(np.float64) @ rows[j].astype(np.float64)) for j in chosen), default=0.0
            )
            for i, hit in enumerate(candidates)
            if i not in chosen
        }
        best = max(values.values())
        chosen.append(min(i for i, value in values.items() if value > best - 1e-9))
    return chosen


@pytest.mark.parametrize("diversity", [0.2, 0.7, 1.0])
@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize("mode", [None, "lexical", "hybrid"])
def test_hits_unlike_each_other(memory: Memory, diversity: float, k: int, mode: Any) -> None:
    options: dict[str, Any] = {"vector": VECTOR, "user_id": "u", "mode": mode, "return_vectors": "numpy"}
    candidates = memory.search(QUERY, **options, k=max(4 * k, 50))
    hits = memory.search(QUERY, **options, k=k, ranking=Ranking(diversity=diversity), explain=True)
    order = different(candidates, candidates.vectors, k, diversity)
    if diversity == 1.0:  # the first is the most relevant, whatever the weight of that
        order = different(candidates, candidates.vectors, k, 1.0 - 1e-12)
    assert names(hits) == [names(candidates)[i] for i in order]
    assert hits.vectors.tobytes() == candidates.vectors[order].tobytes()
    for n, hit in enumerate(hits):
        nearest = max((float(hits.vectors[n] @ hits.vectors[j]) for j in range(n)), default=0.0)
        assert hit.parts["weight_diversity"] == diversity
        assert hit.parts["diversity"] == pytest.approx(nearest, abs=1e-5)
        assert hit.parts["mmr"] == pytest.approx((1 - diversity) * hit.score - diversity * nearest, abs=1e-5)
    again = memory.search(QUERY, **options, k=k, ranking=Ranking(diversity=diversity), explain=True)
    assert again == hits


class Backwards:
    """Likes those most that come last."""

    model_id = "test:backwards"

    def rerank(self, query: str, texts: Sequence[str]) -> Any:
        return [float(i) for i in range(len(texts))]


def test_a_reranker_orders_what_diversity_chose(memory: Memory) -> None:
    options: dict[str, Any] = {"vector": VECTOR, "user_id": "u", "k": 6, "ranking": Ranking(diversity=0.5)}
    chosen = memory.search(QUERY, **options, return_vectors="numpy")
    hits = memory.search(QUERY, **options, rerank=Backwards(), return_vectors="numpy")
    assert names(hits) == names(chosen)[::-1]
    assert hits.vectors.tobytes() == chosen.vectors[::-1].tobytes()


def test_diversity_keeps_quotas_and_kinds(memory: Memory) -> None:
    ranking = Ranking(diversity=0.6, by_kind={"message": Ranking(priority=1.0)})
    shares = [ScopeWeight(Scope(user_id="u"), 3.0, 2), ScopeWeight(Scope(user_id="v"))]
    hits = memory.search(QUERY, vector=VECTOR, scopes=shares, ranking=ranking, k=10, explain=True)
    assert len(hits) == 10 and sum(hit.item.scope.user_id == "u" for hit in hits) <= 2


def test_diversity_has_bounds(memory: Memory) -> None:
    for value in (-0.1, 1.1, float("nan"), "1", True):
        with pytest.raises(InputError, match="diversity"):
            Ranking(diversity=value)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="1024, not 1025"):
        memory.search("x", user_id="u", k=1025, ranking=Ranking(diversity=0.5))
    assert len(memory.search("x", user_id="nobody", vector=VECTOR, ranking=Ranking(diversity=0.5))) == 0


# --------------------------------------------------------------------------------------- explain


@pytest.mark.parametrize("mode", [None, "lexical", "hybrid"])
def test_the_parts_of_a_score_add_up(memory: Memory, mode: Any) -> None:
    ranking = Ranking(recency=0.3, priority=0.2, by_kind={"message": Ranking(recency=2.0), "note": Ranking()})
    shares = [ScopeWeight(Scope(user_id="u"), 0.5), ScopeWeight(Scope(user_id="v"), 2.0)]
    hits = memory.search(QUERY, vector=VECTOR, scopes=shares, ranking=ranking, mode=mode, k=ALL, explain=True)
    assert {hit.item.kind for hit in hits} == set(KINDS)
    for hit in hits:
        weights = {
            name.removeprefix("weight_"): value for name, value in hit.parts.items() if "weight_" in name
        }
        share = weights.pop("scope")
        assert share == {"u": 0.5, "v": 2.0}[hit.item.scope.user_id or ""]
        total = sum(weight * hit.parts.get(name, 0.0) for name, weight in weights.items())
        assert hit.score == pytest.approx(share * total, rel=1e-5)
        assert weights["recency"] == {"message": 2.0, "note": 0.0}.get(hit.item.kind, 0.3)


def test_refused_rankings(memory: Memory) -> None:
    good = Ranking()
    refused: list[Any] = [[("fact", good)], {"fact": 1.0}, {1: good}, {"fact": Ranking(by_kind={"x": good})}]
    for by_kind in [*refused, {"fact": Ranking(diversity=0.5)}, {"fact": Ranking(spaces={"image": 2.0})}]:
        with pytest.raises(InputError, match="by_kind"):
            Ranking(by_kind=by_kind)
    for name in ("similarity", "lexical", "adjacent", "recency", "priority"):
        for weight in (-0.5, float("inf"), "1"):
            with pytest.raises(InputError, match=name):
                Ranking(by_kind={"fact": Ranking(**{name: weight})})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a kind is"):
        memory.search("x", user_id="u", ranking=Ranking(by_kind={"No Kind": good}))
    with pytest.raises(InputError, match="query text"):
        memory.search(vector=VECTOR, user_id="u", ranking=Ranking(by_kind={"fact": Ranking(lexical=1.0)}))


def test_a_model_that_fails_costs_no_hits_of_others(memory: Memory) -> None:
    """The reranker sees what diversity chose, and its faults are errors as ever."""

    class Broken(Backwards):
        def rerank(self, query: str, texts: Sequence[str]) -> Any:
            return []

    with pytest.raises(ModelError):
        memory.search("x", vector=VECTOR, user_id="u", ranking=Ranking(diversity=0.5), rerank=Broken())
