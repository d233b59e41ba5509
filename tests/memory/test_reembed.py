"""Changing the embedding model of a store that is in use."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpmem
from reembedding import Hooked, check_vectors, hits
from warpmem import Memory, NewItem
from warpmem.errors import (
    Conflict,
    EmbeddingError,
    InputError,
    ModelMismatch,
    StoreReadOnly,
)
from warpmem.memory import reembed
from warpmem.ops.clock import FixedClock
from warpmem.storage.directory import INDEX_NAME
from warpmem.storage.vector_build import VectorBuild

START = datetime(2026, 1, 1, tzinfo=UTC)
OLD, NEW = 16, 24
USERS = ("ann", "bob", "eve")

Opener = Callable[..., Memory]


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(START)


@pytest.fixture
def memory(tmp_path: Path, clock: FixedClock) -> Any:
    with warpmem.open(tmp_path / "store", embedder=Hooked(OLD), durability="os", clock=clock) as opened:
        yield opened


def change(memory: Memory, clock: FixedClock, rng: random.Random, count: int) -> None:
    """Random adds, keyed adds, updates with and without a new text, repetitions and deletions."""
    for _ in range(count):
        clock.advance(timedelta(seconds=1))
        user, seed = rng.choice(USERS), rng.randrange(1 << 30)
        items = memory.list(user_id=user, limit=1000, include_past=True).items
        action = rng.choice(("add", "add", "key", "text", "metadata", "repeat", "delete"))
        if action == "add" or not items:
            memory.add(f"item {seed}", user_id=user, metadata={"n": seed % 5})
        elif action == "key":
            memory.add(f"value {seed}", user_id=user, key=f"k{seed % 3}")
        elif action == "text":
            memory.update(rng.choice(items).id, text=f"new {seed}")
        elif action == "metadata":
            memory.update(rng.choice(items).id, metadata={"n": seed % 5})
        elif action == "repeat":
            memory.add(rng.choice(items).text, user_id=user)
        else:
            memory.delete(rng.choice(items).id)


def answers(memory: Memory) -> list[Any]:
    moments = [change.at for change in memory.changes(limit=10_000)]
    then = moments[len(moments) // 2]
    options: tuple[dict[str, Any], ...] = (
        {}, {"as_of": then}, {"known_at": then}, {"filters": {"metadata.n": {"gte": 2}}},
    )  # fmt: skip
    return [hits(memory, "item value 7", user, **chosen) for user in USERS for chosen in options]


def built_anew(memory: Memory) -> list[Any]:
    """What the store answers with an index that was made from nothing."""
    parts: Any = memory._parts
    current: Any = memory._current
    fresh = Memory.__new__(Memory)
    fresh.__dict__.update(memory.__dict__)
    serving = memory._serve(memory._log.identity, current.now.vectors._embedder)
    assert parts is memory._parts
    fresh._current = type(current)(memory._log, serving)
    return answers(fresh)


def test_every_version_gets_a_vector_of_the_new_model(memory: Memory, clock: FixedClock) -> None:
    change(memory, clock, random.Random(1), 200)
    before = answers(memory)
    told: list[tuple[int, int]] = []
    made = memory.reembed(Hooked(NEW), progress=lambda *done: told.append(done))
    assert made == check_vectors(memory) > 100
    assert told[0][0] == 0 and told[-1] == (made, made) and told == sorted(told)
    assert (memory.stats().model_id, memory.stats().dimension) == (f"hashing-{NEW}-v1", NEW)
    assert memory.stats().reembed is None
    after = answers(memory)
    assert after == built_anew(memory)
    assert after != before and [sorted(name[:2] for name in one) for one in after] == [
        sorted(name[:2] for name in one) for one in before
    ]
    change(memory, clock, random.Random(2), 50)
    check_vectors(memory)
    memory.reembed(Hooked(OLD))
    check_vectors(memory)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_changes_made_meanwhile_are_followed(memory: Memory, clock: FixedClock, batch: int) -> None:
    rng = random.Random(batch)
    change(memory, clock, rng, 100)
    left = [25]

    def progress(done: int, total: int) -> None:
        if left[0]:
            left[0] -= 1
            change(memory, clock, rng, 4)

    memory.reembed(Hooked(NEW), progress=progress, batch=batch)
    assert left == [0] or batch > 1
    assert check_vectors(memory) > 50
    assert answers(memory) == built_anew(memory)


@pytest.mark.parametrize("tail", [0, 256])
def test_changes_made_just_before_the_switch_are_in_it(
    memory: Memory, clock: FixedClock, monkeypatch: pytest.MonkeyPatch, tail: int
) -> None:
    """The last ones are embedded outside, and in the end inside the change that switches."""
    rng = random.Random(3)
    change(memory, clock, rng, 40)
    monkeypatch.setattr(reembed, "_TAIL", tail)
    switch, tries = VectorBuild.switch, []

    def late(self: VectorBuild, *arguments: Any) -> Any:
        change(memory, clock, rng, 6)
        tries.append(arguments[1])
        return switch(self, *arguments)

    monkeypatch.setattr(VectorBuild, "switch", late)
    memory.reembed(Hooked(NEW))
    assert len(tries) == reembed._TRIES, "the writer was never too fast"
    check_vectors(memory)
    assert answers(memory) == built_anew(memory)


def test_searches_and_writes_go_on_and_each_search_is_of_one_model(tmp_path: Path) -> None:
    """Every result about a user who does not change is, bit for bit, that of the old or that of the new
    model; results about one who does hold only what was there, with scores of one model."""
    with warpmem.open(tmp_path / "store", embedder=Hooked(OLD), durability="os") as memory:
        memory.add_many([NewItem(text=f"still life {n}") for n in range(60)], user_id="still")
        allowed = [hits(memory, "life 7", "still")]
        stop, failed = threading.Event(), []
        written: dict[str, str] = {}

        def guard(work: Callable[[int], None]) -> Callable[[], None]:
            def run() -> None:
                n = 0
                try:
                    while not stop.is_set():
                        work(n)
                        n += 1
                except BaseException as error:  # noqa: BLE001  shown by the test
                    failed.append(error)

            return run

        seen: list[list[tuple[str, int, str]]] = []

        def search(n: int) -> None:
            seen.append(hits(memory, "life 7", "still"))

        def lively(n: int) -> None:
            known = dict(written)
            found = hits(memory, "run 3", "lively", k=4096)
            assert len({name[0] for name in found}) == len(found), "something was found twice"
            missing = (known.keys() & written.keys()) - {name[0] for name in found}
            assert not missing, "something was not found"

        def write(n: int) -> None:
            result: Any = memory.add(f"run {n}", user_id="lively")
            written[result.id] = f"run {n}"
            if n % 3 == 0:
                memory.update(result.id, text=f"run {n} again")
            if n % 7 == 0:
                del written[result.id]
                memory.delete(result.id)

        threads = [threading.Thread(target=guard(work)) for work in (search, lively, write)]
        for thread in threads:
            thread.start()
        try:
            for dimension in (NEW, OLD, NEW):
                memory.reembed(Hooked(dimension), batch=16)
                allowed.append(hits(memory, "life 7", "still"))
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert not failed, failed
        assert len(seen) > 10 and len(written) > 10
        assert allowed[0] == allowed[2] != allowed[1] == allowed[3]
        assert all(result in allowed for result in seen), "a result mixes models, or misses something"
        check_vectors(memory)


def test_a_write_that_was_embedded_before_the_switch_is_embedded_again(tmp_path: Path) -> None:
    for what in ("add", "update", "given"):
        old = Hooked(OLD)
        with warpmem.open(tmp_path / what, embedder=old, durability="os") as memory:
            known: Any = memory.add("known", user_id="ann")
            entered, go_on, outcome = threading.Event(), threading.Event(), []

            def wait(texts: Any, entered: Any = entered, go_on: Any = go_on) -> None:
                entered.set()
                assert go_on.wait(30)

            def write(what: str = what, memory: Memory = memory, known: Any = known) -> None:
                try:
                    if what == "update":
                        memory.update(known.id, text="late")
                    elif what == "add":
                        memory.add("late", user_id="ann")
                    else:
                        new = NewItem(text="late", vector=[1.0] * OLD)
                        memory.add_many([new, NewItem(text="later")], user_id="ann")
                except ModelMismatch as error:
                    outcome.append(error)  # noqa: B023  joined before the next round

            old.hook = wait
            thread = threading.Thread(target=write)
            thread.start()
            assert entered.wait(30)
            memory.reembed(Hooked(NEW))
            go_on.set()
            thread.join()
            texts = [item.text for item in memory.list(user_id="ann")]
            assert ("late" in texts) == (what != "given")
            assert len(outcome) == (what == "given")
            check_vectors(memory)
            for item in memory.list(user_id="ann"):
                assert memory.search(item.text, user_id="ann", k=1)[0].item == item


def test_a_search_that_began_before_the_switch_ends_in_the_old_model(memory: Memory) -> None:
    memory.add_many([NewItem(text=f"item {n}") for n in range(20)], user_id="ann")
    memory.add_many([NewItem(text=f"item {n}") for n in range(20)], user_id="bob")
    expected = hits(memory, "item 7", "ann")
    index: Any = memory._current.now.index
    search, entered, go_on = index.search, threading.Event(), threading.Event()
    index._drop(1, index._partitions[1])  # it has to load the owner in the middle of all this

    def slow(*arguments: Any) -> Any:
        entered.set()
        assert go_on.wait(30)
        return search(*arguments)

    index.search = slow
    found: list[Any] = []

    def late() -> None:
        result = memory.search("item 7", user_id="ann", k=1000, return_vectors="numpy")
        assert result.vectors.shape == (20, OLD)
        found.append([(hit.item.id, hit.item.version, hit.score.hex()) for hit in result])

    thread = threading.Thread(target=late)
    thread.start()
    assert entered.wait(30)
    job = threading.Thread(target=memory.reembed, args=(Hooked(NEW),))
    job.start()
    while memory.stats().dimension == OLD:
        pass
    assert hits(memory, "item 7", "ann") != expected
    job.join(0.2)
    assert job.is_alive(), "the old vectors went while a search was using them"
    status = memory.stats().reembed
    assert status is not None and status.switched and status.running
    go_on.set()
    thread.join()
    job.join()
    assert found == [expected]
    assert memory.stats().reembed is None
    check_vectors(memory)


# ------------------------------------------------------------------------------------------ resuming


def failing(dimension: int, after: int) -> Hooked:
    """A model that fails once `after` texts were embedded."""

    def hook(texts: Any) -> None:
        if len(made.embedded) >= after:
            raise EmbeddingError("out of order")

    made = Hooked(dimension, hook)
    return made


def test_it_goes_on_where_it_stopped_also_after_reopening(tmp_path: Path, clock: FixedClock) -> None:
    path = tmp_path / "store"
    with warpmem.open(path, embedder=Hooked(OLD), clock=clock) as memory:
        change(memory, clock, random.Random(4), 150)
        before = answers(memory)
        with pytest.raises(EmbeddingError, match="out of order"):
            memory.reembed(failing(NEW, 32), batch=8)
        status = memory.stats().reembed
        assert status is not None
        assert (status.model_id, status.vectors, status.running, status.switched) == (
            f"hashing-{NEW}-v1", 32, False, False,
        )  # fmt: skip
        assert answers(memory) == before
        change(memory, clock, random.Random(5), 20)
        with pytest.raises(EmbeddingError, match="out of order"):
            memory.reembed(failing(NEW, 16), batch=8)
        assert memory.stats().reembed.vectors == 48  # type: ignore[union-attr]
    with pytest.raises(ModelMismatch, match="reembed"):
        warpmem.open(path, embedder=Hooked(NEW))
    with warpmem.open(path, embedder=Hooked(OLD), clock=clock) as memory:
        change(memory, clock, random.Random(6), 20)
        new = Hooked(NEW)
        assert memory.reembed(new, batch=8) == 48 + len(new.embedded)
        check_vectors(memory)
        after = answers(memory)
    with pytest.raises(ModelMismatch):
        warpmem.open(path, embedder=Hooked(OLD))
    with warpmem.open(path, embedder=Hooked(NEW), clock=clock) as memory:
        assert answers(memory) == after


def test_another_model_starts_over(memory: Memory, clock: FixedClock) -> None:
    change(memory, clock, random.Random(7), 100)
    with pytest.raises(EmbeddingError):
        memory.reembed(failing(NEW, 32), batch=8)
    other = Hooked(40)
    assert memory.reembed(other) == len(other.embedded) == check_vectors(memory)


def test_old_vectors_that_a_stopped_process_left_go_at_the_next_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store"

    def stop(self: VectorBuild) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(VectorBuild, "finish", stop)
    with warpmem.open(path, embedder=Hooked(OLD)) as memory:
        memory.add("something", user_id="ann")
        with pytest.raises(KeyboardInterrupt):
            memory.reembed(Hooked(NEW))
        status = memory.stats().reembed
        assert status is not None and status.switched and not status.running
    with warpmem.open(path, embedder=Hooked(NEW), read_only=True) as memory:
        assert memory.stats().reembed == status
    with warpmem.open(path, embedder=Hooked(NEW)) as memory:
        assert memory.stats().reembed is None
        assert check_vectors(memory) == 1


@pytest.mark.parametrize("when", ["before", "while it waits"])
def test_an_index_saved_for_the_old_model_is_never_believed(tmp_path: Path, when: str) -> None:
    path = tmp_path / "store"
    with warpmem.open(path, embedder=Hooked(OLD), checkpoint_rows=0) as memory:
        memory.add_many([NewItem(text=f"item {n}") for n in range(20)], user_id="ann")
        first = hits(memory, "item 7", "ann")
        old = memory._current.now.index
        assert memory.checkpoint()
        kept = (path / INDEX_NAME).read_bytes()
        memory.reembed(Hooked(NEW))
        assert not (path / INDEX_NAME).exists(), "the old model's index was left"
        if when == "while it waits":
            assert old.checkpoint() is False and not (path / INDEX_NAME).exists()
        second = hits(memory, "item 7", "ann")
    (path / INDEX_NAME).write_bytes(kept)
    with warpmem.open(path, embedder=Hooked(NEW), checkpoint_rows=0) as memory:
        assert hits(memory, "item 7", "ann") == second != first
        assert memory.checkpoint()
    with warpmem.open(path, embedder=Hooked(NEW), checkpoint_rows=0) as memory:
        assert "owners from the checkpoint" in memory._current.now.index.restored  # type: ignore[attr-defined]
        assert hits(memory, "item 7", "ann") == second


# ------------------------------------------------------------------------------------ what is refused


def test_items_without_a_text_that_embeds(memory: Memory) -> None:
    memory.add("plain words", user_id="ann")
    new = Hooked(NEW, lambda texts: _refuse(texts, "picture"))
    memory.add("picture 1", user_id="ann", vector=[1.0] * OLD)
    memory.add("picture 2", user_id="ann", vector=[-1.0] * OLD)
    with pytest.raises(InputError, match=r"version 1 of item \w{32} has no text .* given="):
        memory.reembed(new)
    assert memory.stats().dimension == OLD
    asked: list[str] = []

    def given(items: Any) -> Any:
        asked.extend(item.text for item in items)
        return [[2.0 if item.text.endswith("1") else -2.0] * NEW for item in items]

    assert memory.reembed(new, given=given) == 3
    assert sorted(asked) == ["picture 1", "picture 2"]
    unit = np.full(NEW, 1 / np.sqrt(NEW), np.float32)
    assert check_vectors(memory, {"picture 1": unit, "picture 2": -unit}) == 3


def _refuse(texts: Any, word: str) -> None:
    if any(word in text for text in texts):
        raise InputError("this text cannot be embedded")


def test_to_vectors_of_the_callers_own(memory: Memory) -> None:
    memory.add("one", user_id="ann")
    with pytest.raises(InputError, match="given="):
        memory.reembed(None, dimension=3)
    assert memory.reembed(None, dimension=3, given=lambda items: [[0.0, 3.0, 4.0]] * len(items)) == 1
    assert memory.search(vector=[0.0, 3.0, 4.0], user_id="ann")[0].score == pytest.approx(1.0)
    assert memory.stats().model_id == "given-3"


def test_bad_arguments_change_nothing(memory: Memory) -> None:
    memory.add("one", user_id="ann")
    with pytest.raises(InputError, match="already"):
        memory.reembed(Hooked(OLD))
    bad: tuple[dict[str, Any], ...] = (
        {"embedder": None}, {"embedder": "other"}, {"embedder": 7}, {"embedder": len},
        {"embedder": Hooked(NEW), "dimension": 3}, {"embedder": Hooked(NEW), "given": "drop"},
        {"embedder": Hooked(NEW), "progress": 1}, {"embedder": Hooked(NEW), "batch": 0},
        {"embedder": Hooked(NEW), "batch": True},
    )  # fmt: skip
    for arguments in bad:
        with pytest.raises(InputError):
            memory.reembed(**arguments)
    assert memory.stats().reembed is None and memory.stats().dimension == OLD
    check_vectors(memory)


def test_one_at_a_time(memory: Memory) -> None:
    memory.add("one", user_id="ann")
    refused: list[Exception] = []

    def again(texts: Any) -> None:
        try:
            memory.reembed(Hooked(40))
        except Conflict as error:
            refused.append(error)

    memory.reembed(Hooked(NEW, again))
    assert len(refused) == 1 and memory.stats().dimension == NEW


def test_read_only_stores_refuse(tmp_path: Path) -> None:
    warpmem.open(tmp_path, embedder=Hooked(OLD)).close()
    with (
        warpmem.open(tmp_path, embedder=Hooked(OLD), read_only=True) as memory,
        pytest.raises(StoreReadOnly),
    ):
        memory.reembed(Hooked(NEW))


def test_an_empty_store(tmp_path: Path) -> None:
    with warpmem.open(None, embedder=Hooked(OLD)) as memory:
        assert memory.reembed("hashing", progress=lambda done, total: None) == 0
        assert memory.stats().dimension == 256
