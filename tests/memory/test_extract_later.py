"""add(infer="llm") without wait: the message is stored, the memories come later, whatever happens."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

import warpmem
from scripted_extraction import ReadingModel, Shown, memory
from warpmem import Memory
from warpmem.errors import InputError, ModelError, ModelUnavailable, Overloaded, StoreReadOnly
from warpmem.reason.fakes import ScriptedLanguageModel

SAID = {"role": "user", "content": "I live in Porto"}


def read(shown: Shown) -> Any:
    return {"memories": [memory(f"The user said: {one['text']}", one["number"]) for one in shown["messages"]]}


def opened(path: Path | None = None, model: Any = None, **options: Any) -> Memory:
    return warpmem.open(path, embedder="hashing", language_model=model, **options)


def facts(store: Memory, user: str = "u") -> list[str]:
    return [item.text for item in store.list(user_id=user, kinds=["fact"], limit=10_000)]


def until(done: Any) -> None:
    ends = time.monotonic() + 30
    while not done():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_memories_come_in_the_background(tmp_path: Path) -> None:
    with opened(tmp_path / "store", ReadingModel(read)) as store:
        store.add([SAID, {"role": "user", "content": "I like tea"}], user_id="u", infer="llm")
        assert store.search("Porto", user_id="u", kinds=["message"])[0].item.text == "I live in Porto"
        until(lambda: len(facts(store)) == 2)
        until(lambda: store.stats().pending["extract"].waiting == 0)
    assert warpmem.verify(tmp_path / "store").ok


def test_what_waits_is_read_after_a_restart(tmp_path: Path) -> None:
    path, model = tmp_path / "store", ReadingModel(read)
    with opened(path, model, background_work=False) as store:
        store.add(SAID, user_id="u", infer="llm", idempotency_key="k")
        store.add(SAID, user_id="u", infer="llm", idempotency_key="k")
        assert (facts(store), store.stats().pending["extract"].waiting) == ([], 1)
    assert not model.shown and warpmem.verify(path).ok
    with opened(path) as store, pytest.raises(InputError):  # without a model
        store.extract_pending()
    with opened(path, model, read_only=True) as store, pytest.raises(StoreReadOnly):
        store.extract_pending()
    warpmem.repair(path, tmp_path / "repaired")
    with opened(tmp_path / "repaired", model) as store:
        until(lambda: facts(store))
    with opened(path, model, background_work=False) as store:
        assert store.extract_pending() == 1 and store.extract_pending() == 0
        assert facts(store) == ["The user said: I live in Porto"]
    assert warpmem.verify(path).ok


def test_a_model_that_is_away_is_asked_again(tmp_path: Path) -> None:
    model = ScriptedLanguageModel([ModelUnavailable("gone"), '{"memories": []}'])
    with opened(tmp_path / "store", model) as store:
        store.add(SAID, user_id="u", infer="llm")
        until(lambda: store.stats().pending["extract"].failure == "ModelUnavailable" or len(model.calls) > 1)
        until(lambda: store.stats().pending["extract"].waiting == 0)
        assert len(model.calls) == 2


def test_a_bad_answer_is_noted_and_the_message_waits_for_another_model(tmp_path: Path) -> None:
    path, bad = tmp_path / "store", ReadingModel(lambda shown: "no JSON")
    with opened(path, bad) as store:
        store.add(SAID, user_id="u", infer="llm")
        until(lambda: store.stats().pending["extract"].refused == 1)
        assert len(bad.shown) == 2 and store.stats().pending["extract"].failure is None
        with pytest.raises(ModelError):
            store.add(SAID, user_id="v", infer="llm", wait=True)
        assert store.extract_pending() == 0
    good = ReadingModel(read)
    good.model_id = "another"
    with opened(path, good) as store:
        until(lambda: facts(store) and facts(store, "v"))


def test_erasing_and_deleting_take_what_waits(tmp_path: Path) -> None:
    with opened(tmp_path / "store", ReadingModel(read), background_work=False) as store:
        first = store.add(SAID, user_id="u", infer="llm")
        store.add(SAID, user_id="v", infer="llm")
        third = store.add(SAID, user_id="w", infer="llm")
        assert isinstance(first, warpmem.AddResult) and isinstance(third, warpmem.AddResult)
        store.delete(first.id)
        store.erase(user_id="v")
        store.update(third.id, text="I live in Faro")
        assert store.stats().pending["extract"].waiting == 1
        assert store.extract_pending() == 1
        assert (facts(store), facts(store, "w")) == ([], ["The user said: I live in Faro"])
    assert warpmem.verify(tmp_path / "store").ok


def test_a_message_is_read_once_whoever_comes_first() -> None:
    model = ReadingModel(read)
    with opened(None, model) as store:
        threads = [
            threading.Thread(
                target=lambda n=n: store.add(
                    {"role": "user", "content": f"note {n}"}, user_id="u", infer="llm", wait=n % 2 == 0
                )
            )
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        store.extract_pending()
        until(lambda: store.stats().pending["extract"].waiting == 0)
        assert sorted(facts(store)) == [f"The user said: note {n}" for n in range(8)]
        assert sum(len(shown["messages"]) for shown in model.shown) == 8


def test_embedding_what_waits_reads_no_message() -> None:
    with opened(None, ReadingModel(read), background_work=False) as store:
        store.add(SAID, user_id="u", infer="llm", embed="later")
        assert store.embed_pending() == 1 and facts(store) == []
        assert store.extract_pending() == 1 and len(facts(store)) == 1


class AtATime:
    """Reads as `read` does, `parallel` at a time at most, and knows how many it had."""

    model_id = "at-a-time"

    def __init__(self, parallel: int | None, together: int) -> None:
        if parallel is not None:
            self.parallel = parallel
        self._reading = ReadingModel(read)
        self._together = threading.Barrier(together, timeout=20)
        self._lock = threading.Lock()
        self._inside = 0
        self.most = 0

    def complete(self, messages: Any, *, schema: Any = None, max_tokens: int = 1024) -> str:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)
        try:
            self._together.wait()
            return self._reading.complete(messages, schema=schema, max_tokens=max_tokens)
        finally:
            with self._lock:
                self._inside -= 1


def test_memories_of_many_owners_are_made_at_a_time_where_the_model_allows_it(tmp_path: Path) -> None:
    """Each call returned only when four were there; it was one owner after the other."""
    model = AtATime(4, 4)
    with opened(tmp_path / "store", model, background_work=False) as store:
        for n in range(8):
            store.add(SAID, user_id=f"u{n}", infer="llm")
        assert store.extract_pending() == 8
        assert all(facts(store, f"u{n}") == ["The user said: I live in Porto"] for n in range(8))
    assert model.most == 4
    assert warpmem.verify(tmp_path / "store").ok


def test_a_model_that_says_nothing_is_asked_once_at_a_time_and_so_is_one_owner(tmp_path: Path) -> None:
    for model, users in ((AtATime(None, 1), 6), (AtATime(4, 1), 1)):
        with opened(None, model, background_work=False) as store:
            for n in range(60):
                store.add({"role": "user", "content": f"I like {n}"}, user_id=f"u{n % users}", infer="llm")
            assert store.extract_pending() == 60
        assert model.most == 1


def test_a_failure_of_one_owner_s_leaves_the_others_and_is_made_good() -> None:
    failed: list[str] = []

    def sometimes(shown: Shown) -> Any:
        if shown["messages"][0]["text"] == "I am 3" and not failed:
            failed.append("once")
            raise ModelUnavailable("gone")
        return read(shown)

    model = ReadingModel(sometimes)
    model.parallel = 4  # type: ignore[attr-defined]
    with opened(None, model, background_work=False) as store:
        for n in range(12):
            store.add({"role": "user", "content": f"I am {n}"}, user_id=f"u{n}", infer="llm")
        with pytest.raises(ModelUnavailable):
            store.extract_pending()
        assert store.stats().pending["extract"].waiting == 1
        assert store.extract_pending() == 1
        assert all(facts(store, f"u{n}") == [f"The user said: I am {n}"] for n in range(12))


@pytest.mark.parametrize("parallel", [1, 8])
@pytest.mark.parametrize("error", [ModelUnavailable("gone"), Overloaded("too much", 0.01)])
def test_what_an_owner_said_is_read_in_its_order_also_after_a_failure(
    parallel: int, error: Exception
) -> None:
    """Batches behind the one that failed were read before it."""
    order: list[int] = []
    failed: list[str] = []

    def once(shown: Shown) -> Any:
        if not failed:
            failed.append("once")
            raise error
        order.extend(int(one["text"].split()[-1]) for one in shown["messages"])
        return read(shown)

    model = ReadingModel(once)
    model.parallel = parallel  # type: ignore[attr-defined]
    with opened(None, model, background_work=False) as store:
        for n in range(200):
            store.add({"role": "user", "content": f"I am {n}"}, user_id="u", infer="llm")
        with pytest.raises(type(error)):
            store.extract_pending()
        assert order == [] and len(model.shown) == 1
        assert store.extract_pending() == 200
    assert order == list(range(200))


def test_a_model_that_is_down_is_not_asked_for_everybody() -> None:
    def down(shown: Shown) -> Any:
        raise ModelUnavailable("gone")

    for parallel in (1, 4):
        model = ReadingModel(down)
        model.parallel = parallel  # type: ignore[attr-defined]
        with opened(None, model, background_work=False) as store:
            for n in range(40):
                store.add(SAID, user_id=f"u{n}", infer="llm")
            with pytest.raises(ModelUnavailable):
                store.extract_pending()
            assert store.stats().pending["extract"].waiting == 40
        assert parallel <= len(model.shown) < 3 * parallel


def test_closing_does_not_wait_for_a_model_that_hangs_and_loses_no_message(tmp_path: Path) -> None:
    path, hung = tmp_path / "store", threading.Event()

    def hang(shown: Shown) -> Any:
        assert hung.wait(60)
        return read(shown)

    model = ReadingModel(hang)
    model.parallel = 4  # type: ignore[attr-defined]
    store = opened(path, model)
    for n in range(6):
        store.add(SAID, user_id=f"u{n}", infer="llm")
    until(lambda: len(model.shown) == 4)
    began = time.monotonic()
    store.close()
    assert time.monotonic() - began < 30
    hung.set()
    with opened(path, ReadingModel(read)) as store:
        until(lambda: store.stats().pending["extract"].waiting == 0)
        assert all(facts(store, f"u{n}") == ["The user said: I live in Porto"] for n in range(6))
    assert warpmem.verify(path).ok
