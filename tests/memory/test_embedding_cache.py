"""Vectors that are kept: whose, of what, for how long, and when they are gone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

import warpmem
from warpmem import Memory, Scope
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import InputError, InvalidText
from warpmem.memory.embedding_cache import EmbeddingCache, key
from warpmem.types import Owner

ANN, BOB = Owner("user", "ann"), Owner("user", "bob")


class Counting:
    """The hashing embedder; notes what it is asked for."""

    model_id, dimension = "counting", 16

    def __init__(self) -> None:
        self._made = HashingEmbedder(16)
        self.asked: list[tuple[str, str]] = []

    def embed(self, texts: Sequence[str], *, role: Literal["document", "query"]) -> NDArray[np.float32]:
        self.asked += [(role, text) for text in texts]
        return self._made.embed(texts, role=role)


def cached(memory: Memory) -> dict[str, int]:
    return memory.stats().models["cache"]


def test_a_text_is_embedded_once_for_each_owner_and_role() -> None:
    model = Counting()
    with warpmem.open(None, embedder=model) as memory:
        memory.add("cat", user_id="ann")
        first = [memory.search("cat", user_id="ann")[0].score for _ in range(3)]
        memory.add(["cat", "dog", "cat"], user_id="ann")
        assert model.asked == [("document", "cat"), ("query", "cat"), ("document", "dog")]
        memory.search("cat", user_id="bob")
        assert model.asked[3:] == [("query", "cat")], "another owner's is never used"
        assert len(set(first)) == 1
        assert (cached(memory)["hits"], cached(memory)["misses"]) == (4, 4)
        by_vector = memory.search(vector=HashingEmbedder(16).embed(["cat"], role="query")[0], user_id="ann")
        by_text = memory.search("cat", user_id="ann", mode="dense")
        assert [hit.score for hit in by_text] == [hit.score for hit in by_vector]


def test_many_texts_of_which_some_are_known() -> None:
    model = Counting()
    texts = [f"note {n}" for n in range(50)]
    scopes = [Scope(user_id=f"u{n % 3}") for n in range(50)]
    with warpmem.open(None, embedder=model) as memory:
        memory.search_many(texts[::2], scopes=scopes[::2])
        del model.asked[:]
        found = memory._current.now.vectors.embed(texts, "query", [(scope.owner,) for scope in scopes])
        assert sorted(text for _, text in model.asked) == sorted(texts[1::2])
        assert found.tobytes() == HashingEmbedder(16).embed(texts, role="query").tobytes()
        found[:] = 0
        again = memory._current.now.vectors.embed(texts, "query", [(scope.owner,) for scope in scopes])
        assert again.any(axis=1).all(), "a caller who changes his copy changes nobody else's"


def test_a_position_counts_texts_that_are_known_too() -> None:
    with warpmem.open(None, embedder=Counting()) as memory:
        vectors = memory._current.now.vectors
        vectors.embed(["a", "b"], "query", [(ANN,)] * 2)
        with pytest.raises(InvalidText, match="text 3 of 3"):
            vectors.embed(["a", "b", ""], "query", [(ANN,)] * 3)


def test_it_keeps_to_its_bytes_and_what_is_used_stays() -> None:
    row = np.ones((1, 128), np.float32)
    cache = EmbeddingCache(10 * (512 + row.nbytes))
    keys = [key((ANN,), "m", "query", str(n)) for n in range(100)]
    for name in keys:
        cache.get([keys[0]])
        cache.put([name], row, cache.get([name])[1])
        assert cache.stats()["bytes"] <= cache.stats()["capacity"]
    assert cache.stats()["vectors"] == 10
    found, _ = cache.get([keys[0], *keys[91:]])
    assert all(vector is not None for vector in found)
    cache.put(keys[99:], row, cache.get(keys[99:])[1])
    assert cache.stats()["vectors"] == 10, "the same key again is one entry"


def test_whatever_tells_texts_apart_tells_keys_apart() -> None:
    texts = (("m", "query", "x"), ("mq", "uery", "x"), ("m", "query", ""), ("m", "document", "x"))
    keys = [
        key(whose, model, role, text)
        for whose in ((ANN,), (BOB,), (ANN, BOB), (BOB, ANN), (Owner("agent", "ann"),))
        for model, role, text in texts
    ]
    assert len({name.digest for name in keys}) == len(keys)


def test_off() -> None:
    model = Counting()
    with warpmem.open(None, embedder=model, embedding_cache_bytes=0) as memory:
        for _ in range(3):
            memory.search("cat", user_id="ann")
        assert len(model.asked) == 3
        assert cached(memory) == {}
    with pytest.raises(InputError, match="embedding_cache_bytes"):
        warpmem.open(None, embedding_cache_bytes=-1)


def test_background_work_neither_uses_nor_fills_it(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_text("\n".join(f'{{"text": "line {n}", "user_id": "ann"}}' for n in range(20)))
    with warpmem.open(None, embedder="hashing") as memory:
        memory.import_(file)
        memory.reembed(HashingEmbedder(24))
        assert cached(memory)["vectors"] == cached(memory)["misses"] == 0


def owners(memory: Memory) -> set[str]:
    return {owner.id for whose, _ in memory._embeddings._vectors.values() for owner in whose}


def test_an_erasure_drops_its_owners_entries_and_no_others() -> None:
    with warpmem.open(None, embedder="hashing") as memory:
        for user in ("ann", "bob"):
            memory.add("cat", user_id=user)
            memory.search("pets", user_id=user)
        memory.search("pets", scopes=[Scope(user_id="bob"), Scope(user_id="ann")])
        memory.erase(user_id="ann")
        assert owners(memory) == {"bob"}
        assert cached(memory)["vectors"] == 2
        memory.search("pets", user_id="bob")
        assert cached(memory)["hits"] == 1


def test_erasing_one_item_drops_what_its_owner_asked_and_what_was_derived() -> None:
    with warpmem.open(None, embedder="hashing") as memory:
        (source,) = memory.add(["cat"], user_id="ann")
        memory.add(warpmem.NewItem(text="likes cats", sources=(source.id,)), user_id="bob")
        memory.add("dog", user_id="eve")
        memory.erase([source.id])
        assert owners(memory) == {"eve"}


def test_who_only_searched_can_be_erased_too() -> None:
    with warpmem.open(None, embedder="hashing") as memory:
        memory.search("a secret", user_id="ann")
        memory.add("dog", user_id="bob")
        memory.erase(user_id="ann")
        assert owners(memory) == {"bob"}


def test_what_is_being_embedded_during_an_erasure_is_not_kept() -> None:
    gate, begun = threading.Event(), threading.Event()

    def embed(texts: Sequence[str]) -> Any:
        if texts == ["slow"]:
            begun.set()
            assert gate.wait(10)
        return np.ones((len(texts), 2))

    with (
        warpmem.open(None, embedder=embed, dimension=2, model_id="gated") as memory,
        ThreadPoolExecutor(1) as pool,
    ):
        memory.add("kept", user_id="ann")
        searching = pool.submit(memory.search, "slow", user_id="ann")
        assert begun.wait(10)
        memory.erase(user_id="ann")
        gate.set()
        searching.result()
        assert cached(memory)["vectors"] == 0


def test_a_process_that_follows_forgets_when_it_hears_of_it(tmp_path: Path) -> None:
    with warpmem.open(tmp_path / "store", embedder="hashing") as memory:
        memory.add("cat", user_id="ann")
        with warpmem.open(tmp_path / "store", embedder="hashing", follow=True, follow_ms=0) as follower:
            follower.search("pets", user_id="ann")
            assert owners(follower) == {"ann"}
            memory.erase(user_id="ann")
            follower.refresh()
            assert owners(follower) == set()


def test_stats_tell_of_models() -> None:
    with warpmem.open(None, embedder="hashing") as memory:
        memory.add("cat", user_id="ann")
        memory.search("pets", user_id="ann")
        models = memory.stats().models
        assert set(models) == {"embedder", "cache"}
        assert models["embedder"]["served"] == {"interactive": 1, "ingest": 1, "background": 0}
        assert models["embedder"]["batches"] == 2
        assert {"waiting", "tokens", "rate", "refused", "dropped", "busy_seconds"} < set(models["embedder"])
        assert models["cache"]["vectors"] == 2
    with warpmem.open(None, dimension=3) as memory:
        assert memory.stats().models["embedder"] == {}
