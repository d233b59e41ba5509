"""Faults of searches over several spaces that were found and mended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import pytest

import warpmem
from image_models import RED, ColourTextEmbedder, picture
from warpmem import Memory, Ranking, Scope
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import InputError


class Counting(HashingEmbedder):
    """Counts the queries that it embeds, in `seconds` each time."""

    queries = 0
    seconds = 0.0

    def embed(self, texts: Sequence[str], *, role: Literal["document", "query"]) -> Any:
        if role == "query":
            self.queries += len(texts)
            time.sleep(self.seconds)
        return super().embed(texts, role=role)


Counted = tuple[Memory, Counting, ColourTextEmbedder]


@pytest.fixture
def counted() -> Iterator[Counted]:
    texts, images = Counting(32), ColourTextEmbedder()
    with warpmem.open(embedder=texts, embedders={"image": images}, embedding_cache_bytes=0) as memory:
        memory.add_many([f"red note {n} of a bridge" for n in range(6)], user_id="u")
        memory.add("a sign", image=picture(RED), user_id="u")
        yield memory, texts, images


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": 0},
        {"filters": {"a": {"nope": 1}}},
        {"kinds": []},
        {"explain": 1},
        {"during": (None, None)},
        {"now": 3},
        {"min_similarity": 7.0},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_nothing_is_embedded_for_arguments_that_are_wrong(counted: Counted, wrong: dict[str, Any]) -> None:
    """The query was embedded first."""
    memory, texts, images = counted
    images.seen.clear()
    with pytest.raises(InputError):
        memory.search("red bridge", user_id="u", **wrong)
    with pytest.raises(InputError):
        memory.search(image=picture(RED), user_id="u", **wrong)
    assert texts.queries == len(images.seen) == 0


def test_timings_hold_the_time_of_the_embedders(counted: Counted) -> None:
    """It was in none of the stages of a search over several spaces."""
    memory, texts, _ = counted
    texts.seconds = 0.2
    began = time.perf_counter()
    results = memory.search_many(["red bridge", "a sign"], scopes=[Scope(user_id="u")] * 2)
    took = time.perf_counter() - began
    for result in results:
        assert 0.2 <= result.timings["prepare"] <= sum(result.timings.values()) <= took


def test_timings_hold_the_time_of_an_image(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was in none of the stages either."""
    memory, _, images = counted
    plain = images.embed_media

    def slow(*args: Any, **options: Any) -> Any:
        time.sleep(0.2)
        return plain(*args, **options)

    monkeypatch.setattr(images, "embed_media", slow)
    assert memory.search(image=picture(RED), user_id="u").timings["prepare"] >= 0.2


def test_scores_are_those_of_a_search_of_one_space(counted: Counted) -> None:
    """Query vectors were normalised twice, which is not always the same bits."""
    memory = counted[0]
    alone = Ranking(spaces={"image": 0.0})
    for n in range(100):
        query = f"query {n} bridge red {n * 7}"
        scores = {hit.item.id: hit.score for hit in memory.search(query, user_id="u", ranking=alone)}
        both = [hit for hit in memory.search(query, user_id="u", k=20) if hit.space == "text"]
        assert {hit.item.id: hit.score for hit in both} == scores
