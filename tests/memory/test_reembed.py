"""Changing the embedding model of a store that is in use."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpmem
from reembedding import Hooked, answers, change, check_vectors, hits, vector_of
from warpmem import Memory, NewItem
from warpmem.errors import EmbeddingError, ModelMismatch, StoreClosed
from warpmem.index.read_ahead import Unread
from warpmem.memory import reembed
from warpmem.ops.clock import FixedClock
from warpmem.ops.ids import parse_id
from warpmem.storage.vector_build import JOB_KEY, VectorBuild

START = datetime(2026, 1, 1, tzinfo=UTC)
OLD, NEW = 16, 24

Opener = Callable[..., Memory]


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(START)


@pytest.fixture
def memory(tmp_path: Path, clock: FixedClock) -> Any:
    with warpmem.open(tmp_path / "store", embedder=Hooked(OLD), durability="os", clock=clock) as opened:
        yield opened


def built_anew(memory: Memory) -> list[Any]:
    """What the store answers with an index that was made from nothing."""
    parts: Any = memory._parts
    current: Any = memory._current
    fresh = Memory.__new__(Memory)
    fresh.__dict__.update(memory.__dict__)
    serving = memory._serve(memory._log.identity, current.now.embedder)
    assert parts is memory._parts
    fresh._current = type(current)(memory._log, serving, memory._spaces)
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


def test_what_is_erased_meanwhile_is_in_neither_place(memory: Memory, clock: FixedClock) -> None:
    change(memory, clock, random.Random(9), 60)
    stages = []

    def progress(done: int, total: int) -> None:
        if done % 16 == 0 and len(stages) < 3:
            stages.append(done)
            for user in ("ann", "bob"):
                memory.erase([memory.list(user_id=user, include_past=True).items[0].id])
            change(memory, clock, random.Random(done), 3)
            if len(stages) == 3:
                memory.erase(user_id="eve")

    memory.reembed(Hooked(NEW), progress=progress, batch=8)
    assert len(stages) == 3
    assert check_vectors(memory) > 10
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
    index.vector = lambda match: None  # as for a row that left the index: the log is asked
    found: list[Any] = []

    def late() -> None:
        result = memory.search("item 7", user_id="ann", k=1000, return_vectors="numpy")
        wanted = [vector_of(hit.item.text, OLD) for hit in result]
        np.testing.assert_allclose(result.vectors, wanted, rtol=0, atol=2e-7)
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


@pytest.mark.parametrize("moment", ["between two steps", "during a step"])
def test_a_job_names_nothing_that_is_erased(memory: Memory, moment: str) -> None:
    """Its state has the key of the row that it has come to, and nobody told it that this was erased."""
    items = memory.add_many([NewItem(text=f"item {n}") for n in range(12)], user_id="ann")
    engine: Any = memory._log._engine
    new = Hooked(NEW)

    def stop(texts: Any) -> None:
        if len(new.embedded) == 4 and moment == "during a step":
            memory.erase([item.id for item in items[6:8]])
        if len(new.embedded) == 8:
            raise EmbeddingError("stopped")

    new.hook = stop
    with pytest.raises(EmbeddingError, match="stopped"):
        memory.reembed(new, batch=4)
    last = parse_id(items[7].id)
    if moment == "between two steps":
        assert last in engine.get("jobs", JOB_KEY)
        memory.erase([item.id for item in items[6:8]])
    job = memory._log.job()
    assert job is not None and job.position[:20] == parse_id(items[5].id)
    assert last not in engine.get("jobs", JOB_KEY)
    memory.reembed(Hooked(NEW), batch=4)
    assert check_vectors(memory) == 10


def test_nothing_is_read_any_more_for_an_index_that_is_out_of_use(memory: Memory) -> None:
    memory.add("a note", user_id="ann")
    begun, gate = threading.Event(), threading.Event()
    ahead: Any = memory._index._ahead  # type: ignore[attr-defined]
    ended: list[BaseException | None] = []

    def read(owner: int, what: str) -> None:
        begun.set()
        assert gate.wait(60)
        try:
            ahead.check()
        except StoreClosed as error:
            ended.append(error)
            raise
        ended.append(None)

    ahead._read = read
    assert not ahead.within([Unread(1, "rows", 10**12)], -1.0, patient=True)
    thread = ahead._thread
    assert begun.wait(60)
    memory.reembed(Hooked(NEW))
    gate.set()
    thread.join(60)
    assert not thread.is_alive()
    assert [type(error) for error in ended] == [StoreClosed]
    assert memory.search("a note", user_id="ann", deadline=60.0)[0].item.text == "a note"
