"""Items that are stored before they are embedded."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import warpmem
from queued import EVERYTHING, START, Moody, dense, later, waiting, worded
from reembedding import check_vectors
from warpmem import Memory, NewItem
from warpmem.config import Config
from warpmem.errors import (
    EmbeddingError,
    InputError,
    ModelMismatch,
    ModelUnavailable,
    Overloaded,
    WarpmemError,
)
from warpmem.ops.clock import FixedClock
from warpmem.storage import codec


@pytest.fixture
def memory(queueing: Memory) -> Memory:
    return queueing


@pytest.mark.parametrize(
    "error", [ModelUnavailable("down"), Overloaded("much", 2.0), EmbeddingError("NaN")], ids=lambda e: str(e)
)
def test_an_embedder_that_fails_is_an_error_or_a_queued_item(
    memory: Memory, embedder: Moody, error: WarpmemError
) -> None:
    embedder.error = error
    with pytest.raises(type(error)):
        memory.add("nothing of this", user_id="ann")
    assert memory.stats().items == memory.stats().sequence == waiting(memory) == 0
    result = memory.add("all of this", user_id="ann", embed="auto")
    assert result.action == "queued" and result.replaced is None
    assert memory.get(result.id).text == "all of this" and waiting(memory) == 1
    embedder.error = None
    assert memory.add("this too", user_id="ann", embed="auto").action == "added"


@pytest.mark.parametrize("error", [InputError("bad"), ModelMismatch("other weights")], ids=["input", "model"])
def test_what_another_try_would_not_mend_is_not_queued(
    memory: Memory, embedder: Moody, error: WarpmemError
) -> None:
    embedder.error = error
    with pytest.raises(type(error)):
        memory.add("never", user_id="ann", embed="auto")
    assert memory.stats().sequence == 0


def test_later_does_not_ask_the_embedder(memory: Memory, embedder: Moody) -> None:
    results = memory.add_many(["one", "two"], user_id="ann", embed="later")
    assert [result.action for result in results] == ["queued"] * 2 and embedder.asked == 0


def test_the_configuration_says_when(tmp_path: Path) -> None:
    embedder = Moody()
    with warpmem.open(embedder=embedder, embed="auto", background_work=False) as memory:
        added = memory.add("spoken", user_id="ann")
        embedder.error = ModelUnavailable("down")
        assert memory.add("unspoken", user_id="ann").action == "queued"
        assert memory.update(added.id, text="spoken anew").version == 2
        assert waiting(memory) == 2
        with pytest.raises(ModelUnavailable):
            memory.add("now", user_id="ann", embed="now")
        embedder.error = None
        assert memory.embed_pending() == 2
        check_vectors(memory)
    assert Config().embed == "now"
    for wrong in ("soon", 1, ["later"]):
        with pytest.raises(InputError), warpmem.open(embed=wrong):  # type: ignore[arg-type]
            pass


@pytest.mark.parametrize("wrong", ["soon", 1, True, ["later"]])
def test_embed_is_one_of_three_words(memory: Memory, wrong: Any) -> None:
    with pytest.raises(InputError, match="embed must be"):
        memory.add("x", user_id="ann", embed=wrong)


def test_a_queued_item_is_there_for_everything_but_similarity(
    memory: Memory, embedder: Moody, tmp_path: Path
) -> None:
    memory.add("the cat sleeps", user_id="ann")
    queued = later(memory, "the dog barks", metadata={"n": 1})
    assert [item.text for item in memory.list(user_id="ann")] == ["the cat sleeps", "the dog barks"]
    assert memory.count(user_id="ann") == 2 and memory.get(queued.id).metadata == {"n": 1}
    assert [version.operation for version in memory.history(queued.id)] == ["add"]
    assert [change.operation for change in memory.changes()] == ["add", "add"]
    assert dense(memory) == ["the cat sleeps"]
    assert worded(memory, "dog") == ["the dog barks"]
    assert worded(memory, "dog", "hybrid")[0] == "the dog barks"
    assert worded(memory, "cat", "hybrid") == ["the cat sleeps"]
    assert worded(memory, "dog", filters={"metadata.n": 1}) == ["the dog barks"]
    assert worded(memory, "dog", filters={"metadata.n": 2}) == []
    (hit, *_) = memory.search("dog", user_id="ann", mode="hybrid", return_vectors="numpy")
    assert hit.parts["similarity"] == 0.0
    memory.export(tmp_path / "out.jsonl", vectors=True)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert ["vector" in line for line in lines] == [True, False, False]


def test_the_next_search_by_words_sees_it_whether_the_owner_was_loaded_or_not(memory: Memory) -> None:
    memory.add("first here", user_id="ann")
    later(memory, "second here")
    assert worded(memory, "here") == ["first here", "second here"]
    later(memory, "third here")
    assert sorted(worded(memory, "here")) == ["first here", "second here", "third here"]


def test_items_with_vectors_of_their_own_do_not_wait(memory: Memory) -> None:
    results = later(memory, [NewItem(text="given", vector=EVERYTHING), NewItem(text="not given")])
    assert [result.action for result in results] == ["added", "queued"]
    assert dense(memory) == ["given"] and waiting(memory) == 1


def test_many_that_wait_hide_none_that_do_not(memory: Memory) -> None:
    """Rows without a vector score by recency alone, and may be more than a search asks the scan for."""
    memory.add_many([f"old cat {n}" for n in range(30)], user_id="ann")
    memory.add_many([f"young dog {n}" for n in range(300)], user_id="ann", embed="later")
    ranking = warpmem.Ranking(similarity=1.0, recency=0.5, lexical=0.5)
    found = memory.search("cat", user_id="ann", k=20, ranking=ranking)
    assert len(found) == 20 and all("cat" in hit.item.text for hit in found)
    found = memory.search("dog", user_id="ann", k=330, ranking=ranking)
    assert sum("dog" in hit.item.text for hit in found) == 300 and len(found) == 330


@pytest.mark.parametrize("adds", [True, False], ids=["added in the scan", "blended"])
@pytest.mark.parametrize(
    "weights",
    [
        {},
        {"similarity": 0.0},
        {"lexical": 1.0},
        {"similarity": 0.0, "lexical": 1.0, "adjacent": 0.5},
        {"by_kind": {"note": warpmem.Ranking(entities=2.0)}},
    ],
    ids=["similarity", "entities alone", "both", "words", "by kind"],
)
def test_what_it_names_finds_it(
    memory: Memory, weights: dict[str, Any], adds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only words did, so an item was not found by a question for what it is about until it was embedded."""
    if not adds:
        backend = memory._current.now.index._backend
        monkeypatch.setattr(type(backend), "capabilities", backend.capabilities - {"added"})
    memory.add_many([f"young cat {n}" for n in range(60)], user_id="ann")
    memory.add("a fair", user_id="ann", entities=["Ada"])
    ranking = warpmem.Ranking(entities=2.0, **weights)
    for number in range(2):  # the second one comes to an owner who is loaded
        named = later(memory, f"met {number} at the mill", entities=["Ada Lovelace", "Ada"])
        later(memory, f"nothing {number} of the kind", entities=["Bob"])
        result = memory.search("Where is Ada?", user_id="ann", ranking=ranking, k=100)
        (hit,) = (hit for hit in result if hit.item.id == named.id)
        assert hit.score == 2.0 and hit.parts["entities"] == 1.0 and not hit.parts.get("similarity")
        assert hit.item.id in [hit.item.id for hit in result[: number + 2]]
        assert not any("nothing" in hit.item.text for hit in result)
    where: dict[str, Any] = {"kinds": ["message"]}
    assert not memory.search("Where is Ada?", user_id="ann", ranking=ranking, **where)


# ---------------------------------------------------------------------------------- changes meanwhile


def test_deleted_while_it_waits(memory: Memory) -> None:
    queued = later(memory, "gone soon")
    memory.update(queued.id, metadata={"n": 1})
    assert waiting(memory) == 2
    memory.delete(queued.id)
    assert waiting(memory) == memory.embed_pending() == 0 and worded(memory, "gone") == []


@pytest.mark.parametrize("whole", [True, False])
def test_erased_while_it_waits(memory: Memory, whole: bool) -> None:
    queued = later(memory, "never said")
    memory.update(queued.id, priority=0.9)
    later(memory, "kept") if not whole else memory.add("other", user_id="bob", embed="later")
    memory.erase(user_id="ann") if whole else memory.erase([queued.id])
    assert waiting(memory) == 1 and worded(memory, "said") == []
    log: Any = memory._log
    owner = codec.read_work_key(next(iter(log._engine.scan("jobs", b"", codec.KEYS_END)))[0])[0]
    assert queued.id not in warpmem.ops.ids.format_id(owner)
    assert memory.embed_pending() == 1


def test_expired_while_it_waits(memory: Memory, clock: FixedClock) -> None:
    later(memory, "for a minute", expires_at=START + timedelta(minutes=1))
    clock.advance(timedelta(hours=1))
    assert worded(memory, "minute") == []
    assert memory.embed_pending() == 1
    assert dense(memory) == [] and dense(memory, as_of=START) == ["for a minute"]


def test_a_key_is_superseded_by_what_waits_and_while_it_waits(memory: Memory, clock: FixedClock) -> None:
    first = memory.add("lives in Lisbon", user_id="ann", key="home")
    clock.advance(timedelta(days=1))
    second = later(memory, "lives in Porto", key="home")
    assert (second.action, second.replaced) == ("queued", first.id)
    then = START + timedelta(days=1)
    clock.advance(timedelta(days=1))
    third = memory.add("lives in Faro", user_id="ann", key="home")
    assert (third.action, third.replaced) == ("superseded", second.id)
    assert worded(memory, "lives") == ["lives in Faro"] == dense(memory)
    assert worded(memory, "lives", as_of=then) == ["lives in Porto"] and dense(memory, as_of=then) == []
    assert memory.embed_pending() == 2  # as it was known at first, and as it ended
    assert dense(memory, as_of=then) == ["lives in Porto"]
    assert dense(memory, known_at=then) == ["lives in Porto"]


def test_a_repetition_touches_what_waits(memory: Memory) -> None:
    queued = later(memory, "said twice")
    for when in ("later", "now"):
        again = memory.add("Said  twice", user_id="ann", embed=when)  # type: ignore[arg-type]
        assert (again.id, again.action) == (queued.id, "touched")
    assert waiting(memory) == 1


def test_a_call_that_was_queued_is_remembered_so(memory: Memory, embedder: Moody) -> None:
    queued = later(memory, "once", idempotency_key="k")
    memory.embed_pending()
    assert memory.add("once", user_id="ann", idempotency_key="k") == queued
    assert memory.stats().items == 1


def test_a_new_text_is_embedded_and_the_old_one_still_waits(memory: Memory) -> None:
    queued = later(memory, "an old text")
    memory.update(queued.id, text="a new text")
    assert dense(memory) == ["a new text"] and waiting(memory) == 1
    assert memory.embed_pending() == 1
    check_vectors(memory)


def test_deleted_while_it_is_being_embedded(memory: Memory, embedder: Moody) -> None:
    queued, kept = later(memory, ["going", "staying"])
    embedder.hook = lambda texts: memory.delete(queued.id) if "going" in texts else None
    assert memory.embed_pending() == 1
    assert memory.get_many([queued.id]) == (None,) and dense(memory) == ["staying"]
    assert memory.get(kept.id).text == "staying"
