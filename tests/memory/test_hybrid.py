"""Search by words: what each mode finds and asks for, what is refused; words of what is gone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpmem
from warpmem import Memory, Ranking, Scope
from warpmem.errors import InputError, InvalidText, InvalidVector
from warpmem.ops.clock import FixedClock, to_datetime

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DIM = 4
WORDS = ["alpha", "alphabet", "beta", "x7", "2024", "to", "tower", "towers", "cafe", "red"]


@pytest.fixture
def memory(clock: FixedClock) -> Iterator[Memory]:
    with warpmem.open(embedder="hashing", clock=clock) as opened:
        yield opened


NOTES = (
    "The red tower stands in Porto.",
    "It was painted last year.",
    "Nothing to see here.",
    "A cafe called Alphabet.",
    "Tea at four.",
    "Invoice INV-20931 is open.",
)


def texts(result: Any) -> list[str]:
    return [hit.item.text for hit in result]


def test_many_searches_are_as_one_by_one(memory: Memory) -> None:
    rng = random.Random(3)
    for user in "uvw":
        memory.add_many(
            [" ".join(rng.choices(WORDS, k=4)) for _ in range(60)], user_id=user, run_id="r", kind="event"
        )
    queries = [" ".join(rng.choices(WORDS, k=2)) for _ in range(12)]
    scopes = [Scope(user_id=rng.choice("uvwx")) for _ in queries]
    for mode in ("dense", "lexical", "hybrid"):
        many = memory.search_many(queries, scopes=scopes, k=7, mode=mode)
        for query, scope, result in zip(queries, scopes, many, strict=True):
            assert list(result) == list(memory.search(query, scope=scope, k=7, mode=mode))
    assert len(memory.search_many(["tower"], scopes=[Scope(user_id="nobody")], mode="hybrid")[0]) == 0


def test_lexical_finds_only_what_holds_a_word(memory: Memory) -> None:
    memory.add_many(NOTES, user_id="u", run_id="r", kind="message")
    assert texts(memory.search("inv-20931?", user_id="u", mode="lexical")) == [NOTES[5]]
    assert texts(memory.search("towers", user_id="u", mode="lexical")) == [NOTES[0]]
    assert texts(memory.search("unheard", user_id="u", mode="lexical")) == []
    assert texts(memory.search("?!", user_id="u", mode="lexical")) == []
    near = memory.search("tower", user_id="u", ranking=Ranking(similarity=0.0, lexical=1.0, adjacent=0.5))
    assert texts(near) == [NOTES[0], NOTES[1], NOTES[2]]
    assert [set(hit.parts) for hit in near] == [{"lexical", "adjacent"}] * 3
    first = near[0].parts["lexical"]
    assert [hit.parts["adjacent"] for hit in near] == [0.0, first, first / 2]


def test_adjacent_alone_goes_by_the_words_of_neighbours(memory: Memory) -> None:
    memory.add_many(NOTES, user_id="u", run_id="r", kind="message")
    hits = memory.search("alphabet", user_id="u", ranking=Ranking(similarity=0.0, adjacent=1.0))
    assert texts(hits) == [NOTES[2], NOTES[4], NOTES[1], NOTES[5]]
    with pytest.raises(InputError, match="query text"):
        memory.search(vector=np.ones(memory.stats().dimension), user_id="u", ranking=Ranking(adjacent=1.0))


@pytest.mark.parametrize("other", [{"run_id": "s"}, {"kind": "fact"}, {"agent_id": "a"}, {"user_id": "v"}])
def test_who_is_not_of_the_run_is_no_neighbour(memory: Memory, other: dict[str, Any]) -> None:
    base = {"user_id": "u", "run_id": "r", "kind": "message"}
    memory.add("tower", **base)
    memory.add("filler", **base | other)
    memory.add("sunset", **base)
    ranking = Ranking(similarity=0.0, lexical=1.0, adjacent=1.0)
    assert texts(memory.search("tower", user_id="u", ranking=ranking)) == ["tower", "sunset"]


def test_a_word_of_four_letters_meets_longer_ones(memory: Memory) -> None:
    memory.add_many(["Ada was playing.", "Ben plays chess.", "Play it again.", "A plan."], user_id="u")
    for query in ("play", "played"):
        found = texts(memory.search(query, user_id="u", mode="lexical"))
        assert sorted(found) == ["Ada was playing.", "Ben plays chess.", "Play it again."]


def test_a_name_does_not_outweigh_meaning_where_no_item_holds_the_other_words() -> None:
    with warpmem.open(dimension=DIM) as memory:
        for i in range(6):
            memory.add(f"Ada likes her garden, {i}.", user_id="u", run_id="r", vector=np.eye(DIM)[0])
        memory.add("There is a violin at home.", user_id="u", run_id="s", vector=np.eye(DIM)[1])
        asked = "Which instruments does Ada practise?"
        hits = memory.search(asked, vector=np.eye(DIM)[1], user_id="u", mode="hybrid")
        assert hits[0].item.text == "There is a violin at home."


def test_a_small_owner_is_not_outdone_for_being_small() -> None:
    """Words that none of his items holds weighed more the fewer he had, so what answered lost to any word."""
    with warpmem.open() as memory:
        memory.add("Nadia lives in Porto with her two cats", user_id="small")
        notes = [f"Omar bought {what} on day {day}" for day in range(300) for what in ("tea", "maps")]
        memory.add([*notes, "Tom asked where the cats are"], user_id="large")
        scopes = [Scope(user_id="small"), Scope(user_id="large")]
        hits = memory.search("where do the cats of Nadia live now", scopes=scopes, k=2, mode="hybrid")
        assert [hit.item.scope.user_id for hit in hits] == ["small", "large"]


def test_a_rare_word_outweighs_several_frequent_ones(memory: Memory) -> None:
    common = "so to the old ox by a red inn"
    for i in range(10):
        memory.add(f"{common} {i}", user_id="u")
        memory.add(f"nine lines of other words, {i}", user_id="u")
    rare = "heron in nine short words that all are new"
    memory.add(rare, user_id="u")
    assert memory.search(f"{common} heron", user_id="u", mode="lexical")[0].item.text == rare


def test_a_store_of_given_vectors_is_searched_by_words_without_one() -> None:
    with warpmem.open(dimension=DIM) as memory:
        for i, text in enumerate(NOTES):
            memory.add(text, user_id="u", vector=np.eye(DIM)[i % DIM])
        (hit,) = memory.search("alphabet", user_id="u", mode="lexical")
        assert hit.item.text == NOTES[3]
        assert set(hit.parts) == {"lexical"}
        assert hit.score == hit.parts["lexical"]
        (hit,) = memory.search("alphabet", vector=np.eye(DIM)[3], user_id="u", mode="lexical")
        assert hit.parts["similarity"] == 1.0
        with pytest.raises(InputError):
            memory.search(vector=np.eye(DIM)[0], user_id="u", mode="lexical")
        with pytest.raises(InputError):
            memory.search(user_id="u", mode="lexical")
        with pytest.raises(InputError):
            memory.search(vector=np.eye(DIM)[0], user_id="u", mode="hybrid")
        for broken in (np.full(DIM, np.nan), np.zeros(DIM), np.full(DIM, np.inf)):
            for mode in ("lexical", "hybrid"):
                with pytest.raises(InvalidVector):
                    memory.search("alphabet", vector=broken, user_id="u", mode=mode)


def test_recency_and_priority_alone_need_no_word(memory: Memory) -> None:
    for i, text in enumerate(NOTES):
        memory.add(text, user_id="u", priority=i / 10)
    for ranking in (Ranking(similarity=0.0, priority=1.0), Ranking(similarity=0.0, recency=1.0)):
        assert len(memory.search("unheard", user_id="u", ranking=ranking)) == len(NOTES)


def test_the_parts_explain_the_score(memory: Memory) -> None:
    memory.add_many(NOTES, user_id="u", run_id="r", kind="message")
    for hit in memory.search("red tower", user_id="u", mode="hybrid", explain=True):
        names = ("similarity", "lexical", "adjacent", "recency", "priority")
        total = sum(hit.parts[name] * hit.parts[f"weight_{name}"] for name in names)
        assert hit.score == pytest.approx(total, abs=1e-6)


@pytest.mark.parametrize("mode", ["Dense", "", "bm25", 1, ["hybrid"], b"hybrid"])
def test_unknown_modes(memory: Memory, mode: Any) -> None:
    with pytest.raises(InputError, match="mode"):
        memory.search("x", user_id="u", mode=mode)


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_a_mode_and_its_weights_beside_it(memory: Memory, mode: Any) -> None:
    for name in ("similarity", "lexical", "adjacent"):
        with pytest.raises(InputError, match="sets the weights"):
            memory.search("x", user_id="u", mode=mode, ranking=Ranking(**{name: 0.5}))
    ranking: Any = {"recency": 1.0}
    with pytest.raises(InputError, match=r"warpmem\.Ranking"):
        memory.search("x", user_id="u", mode=mode, ranking=ranking)
    memory.search("x", user_id="u", mode=mode, ranking=Ranking(recency=0.5))


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf"), "1", True])
def test_refused_weights(weight: Any) -> None:
    for name in ("lexical", "adjacent"):
        with pytest.raises(InputError, match=name):
            Ranking(**{name: weight})


def test_texts_that_are_none(memory: Memory) -> None:
    memory.add("tower", user_id="u")
    for mode in ("lexical", "hybrid"):
        for text in ("\ud800", "tower \udfff"):
            with pytest.raises(InvalidText):
                memory.search(text, user_id="u", mode=mode)
        query: Any = 3
        with pytest.raises(InputError):
            memory.search(query, user_id="u", mode=mode)


# --------------------------------------------------------------------------------------- what is gone


@pytest.mark.parametrize("how", ["delete", "erase", "delete_all", "erase_all"])
@pytest.mark.parametrize("loaded", [False, True], ids=["words read later", "words read before"])
def test_what_is_gone_leaves_nothing_in_the_scores(tmp_path: Path, how: str, loaded: bool) -> None:
    ranking = Ranking(lexical=4.0, adjacent=1.6)
    query = "red tower alphabet cafe to"
    answers = []
    for extra in (False, True):
        with warpmem.open(tmp_path / f"{extra}", embedder="hashing", clock=FixedClock(START)) as memory:
            gone: list[Any] = []
            for i, text in enumerate(NOTES):
                memory.add(text, user_id="u", run_id="r", kind="message")
                if extra:
                    words = f"red red red red red tower {i} zebra alphabet cafe"
                    gone.append(memory.add(words, user_id="u", run_id="r", agent_id="x", kind="message"))
            if loaded:
                memory.search(query, user_id="u", ranking=ranking)
            if extra:
                if how.endswith("all"):
                    getattr(memory, how.removesuffix("_all") + ("_all" if how == "delete_all" else ""))(
                        user_id="u", agent_id="x"
                    )
                elif how == "erase":
                    memory.erase([result.id for result in gone])
                else:
                    for result in gone:
                        memory.delete(result.id)
            hits = memory.search(f"{query} zebra", user_id="u", ranking=ranking, k=20)
            answers.append([(hit.item.text, hit.score, hit.parts) for hit in hits])
    assert answers[0] == answers[1]


def test_an_updated_text_is_found_by_its_new_words_and_its_old_ones_then(
    memory: Memory, clock: FixedClock
) -> None:
    item: Any = memory.add("the red tower", user_id="u", kind="event", valid_from=START - HOUR)
    assert texts(memory.search("tower", user_id="u", mode="lexical")) == ["the red tower"]
    then = to_datetime(clock.now())
    clock.advance(HOUR)
    memory.update(item.id, text="the blue house")
    assert texts(memory.search("tower", user_id="u", mode="lexical")) == []
    assert texts(memory.search("house", user_id="u", mode="lexical")) == ["the blue house"]
    past = memory.search("tower", user_id="u", mode="lexical", known_at=then)
    assert texts(past) == ["the red tower"]


def test_the_mode_of_the_configuration_is_that_of_plain_searches_by_text() -> None:
    with warpmem.open(embedder="hashing", mode="lexical") as memory:
        known = memory.add("the invoice INV-20931 is paid", user_id="u")
        memory.add("a walk in the park", user_id="u")
        found = memory.search("INV-20931", user_id="u")
        assert [hit.item.id for hit in found] == [known.id]
        assert [hit.item.id for hit in memory.search_many(["INV-20931"], scopes=[Scope(user_id="u")])[0]] == [
            known.id
        ]
        for options in ({"ranking": Ranking(priority=1.0)}, {"vector": [1.0] * 256}):
            assert len(memory.search("INV-20931", user_id="u", **options)) == 1  # type: ignore[arg-type]
        of_kind = Ranking(by_kind={"event": Ranking(adjacent=1.0)})
        for options in ({"mode": "dense"}, {"ranking": Ranking(similarity=1.0)}, {"ranking": of_kind}):
            assert len(memory.search("INV-20931", user_id="u", **options)) == 2  # type: ignore[arg-type]
        assert len(memory.search(vector=[1.0] * 256, user_id="u")) == 2
        assert known.id in memory.context("INV-20931", user_id="u").citations
    with pytest.raises(InputError, match="mode"):
        warpmem.open(mode="clever")


def test_a_search_goes_by_meaning_and_words_unless_it_is_told_otherwise() -> None:
    def found(**options: Any) -> list[tuple[str, dict[str, float]]]:
        hits = memory.search("which invoice was paid?", user_id="u", explain=True, now=now, **options)
        return [(hit.item.id, hit.parts) for hit in hits]

    now = datetime(2030, 1, 1, tzinfo=UTC)
    with warpmem.open(embedder="hashing") as memory:
        memory.add_many(["the invoice is paid", "a walk", "it was paid"], user_id="u", run_id="r")
        assert found() == found(mode="hybrid") != found(mode="dense")
        assert found(ranking=Ranking(recency=0.5)) == found(mode="hybrid", ranking=Ranking(recency=0.5))
        assert found(ranking=Ranking(similarity=1.0)) == found(mode="dense")
        assert found(ranking=Ranking(similarity=1.0, lexical=3.2, adjacent=1.8)) == found()


def test_what_is_corrected_often_or_not_believed_makes_no_word_common() -> None:
    """Each version counted: an item whose priority was set 400 times was found behind any other."""

    def scores(**options: Any) -> list[tuple[str, float]]:
        found = memory.search("what does the harbour cost?", user_id="u", **options)
        return [(hit.item.id, hit.score) for hit in found if hit.item.id in known]

    with warpmem.open(embedder="hashing") as memory:
        known = [memory.add(text, user_id="u").id for text in ("the harbour costs 5", "a cost", "tea")]
        for options in ({}, {"mode": "lexical"}):
            before = scores(**options)
            for n in range(40):
                memory.update(known[0], priority=n / 40)
                memory.add(f"harbour cost {n}", user_id="u", trust=0.1)
                memory.add(f"harbour at {n}", user_id="u", key="harbour")
            memory.delete(memory.value("harbour", user_id="u").id)  # type: ignore[union-attr]
            assert scores(**options) == before
