"""The k best by similarity and words: rounds that stop too soon, scopes that share an owner, changes that
come between the looks of one search; the rounds alone, against all rows at once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import warpmem
from pools import without_adding
from warpmem import Ranking, Scope
from warpmem.errors import InputError, StoreCorrupt
from warpmem.index import blend, searched_partitions
from warpmem.index.blend import Rows, Words
from warpmem.index.owner_words import OwnerWords
from warpmem.records import ScopePart, ScoreParams, SearchRequest

DIM = 4
LEVELS = st.sampled_from([0.0, 0.5, 1.0])
ROW = st.tuples(st.integers(0, 1), LEVELS, LEVELS, st.integers(0, 3), st.sampled_from([False, False, True]))
ROWS = st.lists(ROW, min_size=8, max_size=40)


class Fake:
    """Words of one owner whose totals are given. rows: (owner, score, total, ordinal, waits for its
    vector)."""

    def __init__(self, rows: Sequence[tuple[int, float, float, int, bool]], owner: int) -> None:
        self.rows = {i: row for i, row in enumerate(rows) if row[0] == owner}
        self.postings = self

    def ordinals(self, row_ids: Any) -> Any:
        return np.array([self.rows[i][3] for i in row_ids.tolist()], np.uint32)

    def score(self, text: str, w_lexical: float, w_adjacent: float, most: int, also: Any) -> tuple[Any, ...]:
        best = sorted((i for i, row in self.rows.items() if row[2] > 0), key=lambda i: (-self.rows[i][2], i))
        ids = np.array([*best[:most], *also.tolist()], np.int64)
        totals = np.array([self.rows[i][2] for i in ids.tolist()], np.float32)
        return len(best[:most]), len(best) <= most, ids, totals, totals, np.zeros_like(totals)


@settings(max_examples=1000, deadline=None)
@given(ROWS, st.integers(1, 3), st.booleans(), st.integers(1, 3), st.permutations(range(2)))
def test_rounds_end_with_what_all_rows_at_once_give(
    rows: Any, k: int, similar: bool, first: int, owners: list[int]
) -> None:
    request = SearchRequest(None, tuple(ScopePart(owner, None, None) for owner in owners), 0)
    group = {owner: place for place, owner in enumerate(owners)}

    def scan(requests: Sequence[SearchRequest], most: int, blank: bool) -> list[Rows]:
        answers = []
        for asked in requests:
            found = []
            for part in asked.parts:
                for i, (owner, score, _, ordinal, waits) in enumerate(rows):
                    word, bit = divmod(i, 64)
                    passes = part.bitmap is None or (
                        word < len(part.bitmap) and int(part.bitmap[word]) >> bit & 1
                    )
                    if owner == part.owner and passes and (blank or not waits):
                        found.append((-score, group[owner], ordinal, i, owner))
            found = sorted(found)[:most]
            scores = np.array([-row[0] for row in found], np.float32)
            ids = np.array([row[3] for row in found], np.int64)
            answers.append(Rows(scores, scores, np.array([row[4] for row in found], np.int64), ids))
        return answers

    def words(asked: SearchRequest) -> Any:
        return {
            owner: Words(Fake(rows, owner), len(rows), [group[owner]], any(row[4] for row in rows))  # type: ignore[arg-type]
            for owner in owners
        }

    params = ScoreParams(similarity=1.0 if similar else 0.0, recency=1.0, lexical=1.0)
    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        context.setattr(blend, "MOST", 12)
        context.setattr(blend, "_SCANNED", first)
        context.setattr(blend, "_WORDED", first)
        context.setattr(blend, "_GROWTH", 2)
        (found,) = blend.blend([request], k, params, scan, words)
    expected = sorted(
        (-(score + total), group[owner], ordinal, i)
        for i, (owner, score, total, ordinal, waits) in enumerate(rows)
        if total or (similar and not waits)
    )
    assert [(-hit.score, hit.row_id) for hit in found] == [(score, i) for score, _, _, i in expected[:k]]


def fill(memory: warpmem.Memory, texts: Sequence[str]) -> list[Any]:
    """Items that have been true for long, so that a search that has begun sees them too."""
    then = datetime(2020, 1, 1, tzinfo=UTC)
    vector = np.eye(DIM)[0]
    return [memory.add(text, user_id="u", vector=vector, kind="event", valid_from=then) for text in texts]


@pytest.fixture(params=["added", "blended"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the scan adds what words say, or finds its best apart from those by words."""
    if request.param == "blended":
        without_adding(monkeypatch)
    return str(request.param)


def test_scopes_that_share_an_owner_are_searched_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scan finds more than it is asked for then, and that is no sign that it found all."""
    monkeypatch.setattr(blend, "_SCANNED", 1)
    monkeypatch.setattr(blend, "_WORDED", 1)
    rng = random.Random(4)
    with warpmem.open(dimension=DIM) as memory:
        for i in range(200):
            words = " ".join(rng.choices(["tower", "red", "tea", "cafe"], k=4))
            vector = [1.0, rng.random(), 0, 0]
            memory.add(words, user_id="u", kind="event", run_id="ab"[i % 2], vector=vector)
        scopes = [Scope(user_id="u", run_id="a"), Scope(user_id="u", run_id="b")]
        for query in ("tower", "red tea", "cafe red tower"):
            for k in (1, 2, 5):
                for weight in (0.05, 0.3, 1.0):
                    options: dict[str, Any] = {
                        "vector": [1, 0.5, 0, 0],
                        "ranking": Ranking(lexical=weight),
                        "k": k,
                    }
                    apart = memory.search(query, scopes=scopes, **options)
                    whole = memory.search(query, user_id="u", **options)
                    assert [hit.score for hit in apart] == [hit.score for hit in whole]


def test_ties_go_by_the_scope_a_row_stands_in() -> None:
    """Where two scopes of one owner stand around another owner's."""
    with warpmem.open(dimension=DIM) as memory:
        for user, run in (("u", "late"), ("v", "mid"), ("u", "first")):
            memory.add("tower", user_id=user, run_id=run, kind="event", vector=np.eye(DIM)[0])
            memory.add("other", user_id=user, run_id=run, kind="event", vector=np.eye(DIM)[1])
        memory.add("other", user_id="v", kind="event", vector=np.eye(DIM)[1])
        memory.add("tower", user_id="v", kind="event", vector=np.eye(DIM)[1])
        memory.add("other", user_id="v", kind="event", vector=np.eye(DIM)[1])
        names = [("u", "first"), ("v", "mid"), ("u", "late")]
        scopes = [Scope(user_id=user, run_id=run) for user, run in names]
        for options in ({"mode": "dense"}, {"ranking": Ranking(lexical=1e-12)}, {"mode": "hybrid"}):
            hits = memory.search("tower", vector=np.eye(DIM)[0], scopes=scopes, k=3, **options)  # type: ignore[arg-type]
            assert [hit.item.scope.run_id for hit in hits] == ["first", "mid", "late"], options


def test_what_is_not_similar_enough_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows than a scan returns stand before those that are similar enough, by their priority."""
    monkeypatch.setattr(blend, "MOST", 16)
    with warpmem.open(dimension=DIM) as memory:
        for i in range(40):
            near = i % 10 == 0
            memory.add(
                "tower" if i == 39 else "tea",
                user_id="u",
                kind="event",
                vector=np.eye(DIM)[0 if near else 1],
                priority=0.0 if near else 1.0,
            )
        hits = memory.search(
            "tower",
            vector=np.eye(DIM)[0],
            user_id="u",
            k=4,
            min_similarity=0.5,
            ranking=Ranking(lexical=1.0, priority=2.0),
        )
        assert [hit.score for hit in hits] == [1.0] * 4


@pytest.mark.parametrize("forever", [False, True], ids=["once", "every time"])
def test_a_change_between_two_looks_shows_no_item_twice(
    forever: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warpmem.open(dimension=DIM) as memory:
        items = fill(memory, ["red tower", "red tea", "red"])
        name, left = "sums" if way == "added" else "score", [1]
        ask = getattr(OwnerWords, name)

        def after_a_change(self: OwnerWords, *arguments: Any) -> Any:
            if left or forever:
                left.clear()
                memory.update(items[0].id, text="red tower tower", vector=np.eye(DIM)[0])
            return ask(self, *arguments)

        memory.search("red tower", vector=np.eye(DIM)[0], user_id="u", mode="hybrid")
        monkeypatch.setattr(OwnerWords, name, after_a_change)
        hits = memory.search("red tower", vector=np.eye(DIM)[0], user_id="u", mode="hybrid")
        assert len({hit.item.id for hit in hits}) == len(hits) == 3
        if not forever:
            monkeypatch.setattr(OwnerWords, name, ask)
            again = memory.search("red tower", vector=np.eye(DIM)[0], user_id="u", mode="hybrid")
            assert [(hit.item, hit.score) for hit in hits] == [(hit.item, hit.score) for hit in again]


def test_many_searches_at_once_find_what_each_finds_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what words say is too much for one scan."""
    monkeypatch.setattr(searched_partitions, "_MOST_SUMS", 7)
    rng = random.Random(8)
    with warpmem.open(dimension=DIM) as memory:
        for user in ("u", "v"):
            for _ in range(5):
                memory.add(
                    " ".join(rng.choices(["tower", "red", "tea"], k=3)),
                    user_id=user,
                    kind="event",
                    vector=[1] * DIM,
                )
        queries = ["red", "tea tower", "none of them", "tower"]
        scopes = [Scope(user_id=user) for user in ("u", "v", "nobody", "u")]
        vectors = np.eye(DIM)[:4]
        for mode in ("lexical", "hybrid"):
            together = memory.search_many(queries, scopes=scopes, vectors=vectors, mode=mode, k=4)
            for i, found in enumerate(together):
                alone = memory.search(queries[i], scope=scopes[i], vector=vectors[i], mode=mode, k=4)
                assert [(hit.item.id, hit.score, hit.parts) for hit in found] == [
                    (hit.item.id, hit.score, hit.parts) for hit in alone
                ]


def test_words_that_cannot_be_read_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with warpmem.open(dimension=DIM) as memory:
        fill(memory, ["red tower", "red tea"])
        build = OwnerWords.build

        def fail(self: OwnerWords, *arguments: Any) -> None:
            raise StoreCorrupt("a block is damaged")

        monkeypatch.setattr(OwnerWords, "build", fail)
        with pytest.raises(StoreCorrupt):
            memory.search("tower", user_id="u", mode="lexical")
        monkeypatch.setattr(OwnerWords, "build", build)
        assert len(memory.search("tower", user_id="u", mode="lexical")) == 1


def test_a_change_whose_words_cannot_be_read_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    with warpmem.open(dimension=DIM) as memory:
        fill(memory, ["red tower"])
        memory.search("tower", user_id="u", mode="lexical")
        change = OwnerWords.change

        def fail(self: OwnerWords, *arguments: Any) -> None:
            raise StoreCorrupt("a block is damaged")

        monkeypatch.setattr(OwnerWords, "change", fail)
        fill(memory, ["blue tower"])
        monkeypatch.setattr(OwnerWords, "change", change)
        fill(memory, ["tower of tea"])
        assert len(memory.search("tower", user_id="u", mode="lexical")) == 3


def test_texts_come_while_words_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes during the first search by words: added, updated, deleted, erased."""
    with warpmem.open(dimension=DIM) as memory:
        items = fill(memory, [f"tower {i}" for i in range(5)])
        build = OwnerWords.build

        def beside_changes(self: OwnerWords, *arguments: Any) -> None:
            monkeypatch.setattr(OwnerWords, "build", build)
            fill(memory, ["tower new"])
            memory.update(items[0].id, text="house", vector=np.eye(DIM)[0])
            memory.delete(items[1].id)
            build(self, *arguments)

        monkeypatch.setattr(OwnerWords, "build", beside_changes)
        hits = memory.search("tower", user_id="u", mode="lexical")
        found = sorted(hit.item.text for hit in hits)
        assert found == ["tower 2", "tower 3", "tower 4", "tower new"]
        first = {hit.item.text: hit.score for hit in hits}
    with warpmem.open(dimension=DIM) as memory:
        items = fill(memory, [f"tower {i}" for i in range(5)])
        fill(memory, ["tower new"])
        memory.update(items[0].id, text="house", vector=np.eye(DIM)[0])
        memory.delete(items[1].id)
        hits = memory.search("tower", user_id="u", mode="lexical")
        assert {hit.item.text: hit.score for hit in hits} == first


def test_an_erasure_while_words_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with warpmem.open(dimension=DIM) as memory:
        items = fill(memory, [f"tower {i}" for i in range(5)])
        build = OwnerWords.build

        def beside_an_erasure(self: OwnerWords, *arguments: Any) -> None:
            monkeypatch.setattr(OwnerWords, "build", build)
            memory.erase([items[0].id])
            build(self, *arguments)

        monkeypatch.setattr(OwnerWords, "build", beside_an_erasure)
        hits = memory.search("tower 0", user_id="u", mode="lexical")
        assert sorted(hit.item.text for hit in hits) == [f"tower {i}" for i in range(1, 5)]


def test_too_many_hits_of_scopes_that_share_an_owner_are_refused() -> None:
    with warpmem.open(dimension=DIM) as memory:
        fill(memory, ["tower"])
        scopes = [Scope(user_id="u", run_id=str(i)) for i in range(5)]
        with pytest.raises(InputError, match="exceeds 4096"):
            memory.search("tower", scopes=scopes, mode="lexical", k=1000)
