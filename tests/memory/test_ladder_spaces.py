"""Searches of several spaces under load: scores that are compared are made of the same parts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import pytest

import warpmem
from image_models import BLUE, RED, ColourEmbedder, ColourTextEmbedder, picture
from warpmem import Memory
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import Overloaded
from warpmem.policy import modes

WORDS = modes.replaced(modes.PRESETS["hybrid"], similarity=0.0)


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
        memory.search("red bridge", user_id="u")
    strained.full = False
    result = memory.search("red bridge", user_id="u", mode="hybrid")
    assert result.degraded == ()
    assert all("similarity" in hit.parts for hit in result)


def slow_words(memory: Memory, space: str) -> None:
    other = memory._spaces.of(space)
    index = memory._current.now.index if other is None else other.index
    plain = index.search

    def search(requests: Any, k: int, params: Any) -> Any:
        if params.lexical:
            time.sleep(0.3)
        return plain(requests, k, params)

    index.search = search  # type: ignore[method-assign]


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
