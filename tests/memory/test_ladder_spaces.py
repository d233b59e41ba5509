"""Searches of several spaces under load: scores that are compared are made of the same parts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec
import pytest

import warpmem
from image_models import BLUE, RED, ColourEmbedder, ColourTextEmbedder, picture
from warpmem import Memory, Ranking
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import Overloaded
from warpmem.policy import modes

_HYBRID = modes.PRESETS["hybrid"]
HYBRID = Ranking(lexical=_HYBRID.lexical, adjacent=_HYBRID.adjacent)
WORDS = msgspec.structs.replace(HYBRID, similarity=0.0)


class Filling:
    """An embedder that has too much to do for queries while it is `full`."""

    full = False

    def embed(self, texts: Sequence[str], *, role: Literal["document", "query"]) -> Any:
        if self.full and role == "query":
            raise Overloaded("too much", 1.0)
        return super().embed(texts, role=role)  # type: ignore[misc]


class Strained(Filling, HashingEmbedder):
    pass


class StrainedColours(Filling, ColourTextEmbedder):
    pass


def filled(texts: Any, images: Any) -> Memory:
    memory = warpmem.open(embedder=texts, embedders={"image": images}, embedding_cache_bytes=0)
    memory.add("the red bridge over the river", user_id="u")
    memory.add_many([f"red note {n}" for n in range(6)], user_id="u")
    memory.add("a sign", image=picture(RED), user_id="u")
    memory.add("red bridge", image=picture(BLUE), user_id="u")
    return memory


def found(result: Any) -> list[tuple[str, float, str]]:
    return [(hit.item.text, hit.score, hit.space) for hit in result]


@pytest.fixture
def models() -> Iterator[tuple[Memory, Strained, StrainedColours]]:
    texts, images = Strained(32), StrainedColours()
    with filled(texts, images) as memory:
        yield memory, texts, images


@pytest.mark.parametrize("which", [0, 1])
def test_words_answer_in_all_spaces_where_one_of_them_has_no_vector(models: Any, which: int) -> None:
    """The others kept their similarity, and so came before everything in that space."""
    memory, strained = models[0], models[1 + which]
    wanted = memory.search("red bridge", user_id="u", ranking=WORDS)
    assert {hit.space for hit in wanted} == {"text", "image"}
    strained.full = True
    result = memory.search("red bridge", user_id="u", mode="hybrid")
    assert result.degraded == ("dense",)
    assert found(result) == found(wanted)
    assert all("similarity" not in hit.parts for hit in result)
    with pytest.raises(Overloaded):
        memory.search("red bridge", user_id="u", mode="dense")
    strained.full = False
    result = memory.search("red bridge", user_id="u", mode="hybrid")
    assert result.degraded == ()
    assert all("similarity" in hit.parts for hit in result)


def slow_words(memory: Memory, space: str, words: float = 0.3, meaning: float = 0.0) -> list[bool]:
    """Scans of a space take so many seconds from now on. Of each scan, whether it is by words."""
    other = memory._spaces.of(space)
    index = memory._current.now.index if other is None else other.index
    plain, scans = index.search, []

    def search(requests: Any, k: int, params: Any) -> Any:
        scans.append(bool(params.lexical))
        time.sleep(words if params.lexical else meaning)
        return plain(requests, k, params)

    index.search = search  # type: ignore[method-assign]
    return scans


def believed(memory: Memory, **seconds: float) -> None:
    """Hybrid searches of these spaces are known to take so long."""
    memory.search("red bridge", user_id="u", mode="hybrid")
    for name, each in seconds.items():
        other = memory._spaces.of(name)
        reader = memory._current.now.reader if other is None else other.reader
        (pace,) = reader._ladder._paces.values()
        for _ in range(100):
            pace.seen(each)


@pytest.mark.parametrize("space", ["text", "image"])
def test_meaning_answers_in_all_spaces_where_words_are_too_late_in_one(models: Any, space: str) -> None:
    memory = models[0]
    wanted = found(memory.search("red bridge", user_id="u", mode="dense"))
    slow_words(memory, space)
    for _ in range(4):
        assert memory.search("red bridge", user_id="u", mode="hybrid").degraded == ()
    result = memory.search("red bridge", user_id="u", mode="hybrid", deadline=0.2)
    assert (result.degraded, found(result)) == (("lexical",), wanted)


def test_a_space_that_had_nothing_but_words_is_named() -> None:
    with filled(Strained(32), ColourEmbedder()) as memory:
        wanted = found(memory.search("red bridge", user_id="u", mode="dense"))
        slow_words(memory, "text")
        for _ in range(4):
            result = memory.search("red bridge", user_id="u", mode="hybrid")
            assert {hit.space for hit in result} == {"text", "image"}
        result = memory.search("red bridge", user_id="u", mode="hybrid", deadline=0.2)
        assert (result.degraded, found(result)) == (("lexical", "image"), wanted)


def test_words_that_are_too_late_in_all_spaces_together_are_left_out_before_the_first_scan(
    models: Any,
) -> None:
    """Each alone was in time, so the first was scanned by words, and for nothing; then it was too late."""
    memory = models[0]
    wanted = found(memory.search("red bridge", user_id="u", mode="dense"))
    believed(memory, text=0.6, image=0.6)
    scans = [slow_words(memory, space, 0.6, 0.3) for space in ("text", "image")]
    result = memory.search("red bridge", user_id="u", mode="hybrid", deadline=1.0)
    assert (result.degraded, found(result), scans) == (("lexical",), wanted, [[False], [False]])


@pytest.mark.parametrize("meaning", [0.0, 1.2])
def test_what_was_found_by_words_is_asked_for_again_where_there_is_time(models: Any, meaning: float) -> None:
    """It was thrown away first, and the search failed where there was none."""
    memory = models[0]
    wanted = memory.search("red bridge", user_id="u", mode="dense")
    hybrid = memory.search("red bridge", user_id="u", mode="hybrid")
    believed(memory, text=0.1, image=0.8)
    texts, images = slow_words(memory, "text", 0.5, meaning), slow_words(memory, "image")
    result = memory.search("red bridge", user_id="u", mode="hybrid", deadline=1.2)
    assert (result.degraded, texts, images) == (("lexical",), [True, False], [False])
    assert sum(result.timings.values()) >= 0.5 + meaning, "with what was thrown away"
    if not meaning:
        assert found(result) == found(wanted)
    else:
        of_words = [entry for entry in found(hybrid) if entry[2] == "text"]
        of_meaning = [entry for entry in found(wanted) if entry[2] == "image"]
        assert set(found(result)) == {*of_words, *of_meaning}


def test_what_was_found_by_words_stays_where_there_is_no_time(models: Any) -> None:
    memory = models[0]
    believed(memory, text=0.1, image=0.5)
    texts, images = slow_words(memory, "text", 0.6), slow_words(memory, "image")
    result = memory.search("red bridge", user_id="u", mode="hybrid", deadline=0.9)
    assert (result.degraded, texts, images) == (("lexical",), [True], [False])
    assert {("lexical" in hit.parts, hit.space) for hit in result} == {(True, "text"), (False, "image")}


OF_FACTS: dict[str, Any] = {"user_id": "u", "kinds": ["fact"]}
OTHERS_BY_WORDS = msgspec.structs.replace(WORDS, by_kind={"fact": HYBRID})


def test_words_are_too_late_for_the_kinds_that_are_asked_for(models: Any) -> None:
    """The weights of other kinds were looked at, by which no space could answer: IndexError."""
    memory = models[0]
    wanted = found(memory.search("red bridge", mode="dense", **OF_FACTS))
    believed(memory, text=0.5, image=0.5)
    result = memory.search("red bridge", ranking=OTHERS_BY_WORDS, deadline=0.4, **OF_FACTS)
    assert (result.degraded, found(result)) == (("lexical",), wanted)


@pytest.mark.parametrize("which", [0, 1])
def test_words_answer_for_the_kinds_that_are_asked_for(models: Any, which: int) -> None:
    """One space kept its similarity, and `degraded` was empty."""
    memory, strained = models[0], models[1 + which]
    wanted = found(memory.search("red bridge", ranking=WORDS, **OF_FACTS))
    strained.full = True
    result = memory.search("red bridge", ranking=OTHERS_BY_WORDS, **OF_FACTS)
    assert (result.degraded, found(result)) == (("dense",), wanted)


def test_kinds_that_are_asked_for_by_words_need_no_vector(models: Any) -> None:
    """Weights of other kinds asked the embedder, which had too much to do."""
    memory, *strained = models
    wanted = found(memory.search("red bridge", ranking=WORDS, **OF_FACTS))
    for embedder in strained:
        embedder.full = True
    result = memory.search("red bridge", ranking=Ranking(by_kind={"fact": WORDS}), **OF_FACTS)
    assert (result.degraded, found(result)) == ((), wanted)


def test_a_space_that_does_not_know_the_query_answers_kinds_by_words() -> None:
    """The weights of other kinds, which are not by words, kept it out."""
    with filled(Strained(32), ColourEmbedder()) as memory:
        wanted = memory.search("red bridge", ranking=WORDS, **OF_FACTS)
        assert {hit.space for hit in wanted} == {"text", "image"}
        result = memory.search("red bridge", ranking=Ranking(by_kind={"fact": WORDS}), **OF_FACTS)
        assert found(result) == found(wanted)
