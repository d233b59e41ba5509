"""Working off what waits to be embedded: by hand, under another model, after a restart."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path

import pytest

import warpmem
from queued import DIMENSION, QUIET, START, Moody, dense, later, waiting, worded
from reembedding import USERS, Hooked, change, check_vectors, hits
from warpmem import Memory
from warpmem.errors import (
    InputError,
    ModelUnavailable,
)
from warpmem.ops.clock import FixedClock


@pytest.fixture
def memory(queueing: Memory) -> Memory:
    return queueing


def test_what_waited_is_as_if_it_had_not(memory: Memory, clock: FixedClock) -> None:
    with warpmem.open(embedder=Moody(), clock=clock) as other:
        for n in range(150):
            clock.advance(timedelta(seconds=1))
            later(memory, f"item {n} of value {n % 7}")
            other.add(f"item {n} of value {n % 7}", user_id="ann")
        assert memory.embed_pending() == 150 == check_vectors(memory)
        assert waiting(memory) == 0 and memory.embed_pending() == 0
        assert [hit[2] for hit in hits(memory, "value 3", "ann")] == [
            hit[2] for hit in hits(other, "value 3", "ann")
        ]
    operations = [change.operation for change in memory.changes(limit=1000)]
    assert operations == ["add"] * 150 + ["embed"] * 150


@pytest.mark.parametrize("seed", range(6))
def test_changes_while_items_wait_end_as_changes_of_items_that_do_not(
    tmp_path: Path, clock: FixedClock, seed: int
) -> None:
    """The same changes to a store that embeds later, now and then in between, and to one that embeds now."""
    stores = [
        warpmem.open(tmp_path / when, embedder=Hooked(DIMENSION), clock=clock, embed=when, **QUIET)
        for when in ("later", "now")
    ]
    found = []
    then = START + timedelta(seconds=45)
    for memory in stores:
        clock.set(START)
        rng = random.Random(seed)
        for _ in range(6):
            change(memory, clock, rng, 15)
            if memory is stores[0] and seed % 2:
                memory.search("item", user_id="ann")  # so that the index takes the changes in one by one
                memory.embed_pending()
        memory.embed_pending()
        check_vectors(memory)
        found.append(
            [
                [name[1:] for name in hits(memory, "item value 7", user, **options)]
                for user in USERS
                for options in ({}, {"as_of": then}, {"known_at": then}, {"mode": "hybrid"})
            ]
        )
        memory.close()
        assert warpmem.verify(memory._config.path or "").ok
    assert found[0] == found[1]


def test_an_embedder_that_is_down_leaves_what_waits(memory: Memory, embedder: Moody) -> None:
    later(memory, ["one", "two"])
    embedder.error = ModelUnavailable("down")
    with pytest.raises(ModelUnavailable):
        memory.embed_pending()
    assert waiting(memory) == 2
    embedder.error = None
    assert memory.embed_pending() == 2


def test_what_was_done_before_a_failure_is_kept(memory: Memory, embedder: Moody) -> None:
    later(memory, [f"text {n}" for n in range(100)])
    embedder.hook = lambda texts: embedder._mood(texts) if embedder.embedded else None
    embedder.error = ModelUnavailable("down")
    with pytest.raises(ModelUnavailable):
        memory.embed_pending()
    assert 0 < waiting(memory) < 100
    embedder.error = None
    left = waiting(memory)
    assert memory.embed_pending() == left and check_vectors(memory) == 100


def test_a_text_that_the_model_refuses_stops_no_other(memory: Memory, embedder: Moody) -> None:
    embedder.refuses = "mute"
    later(memory, ["one", "a mute one", "two"])
    assert memory.embed_pending() == 2
    status = memory.stats().pending["embed"]
    assert (status.waiting, status.refused) == (1, 1)
    assert worded(memory, "mute") == ["a mute one"] and len(dense(memory)) == 2
    embedder.refuses = None
    assert memory.embed_pending() == 1 and waiting(memory) == 0


def test_stats_tell_how_many_wait_and_how_long(memory: Memory, clock: FixedClock) -> None:
    assert memory.stats().pending["embed"] == warpmem.PendingWork(0, 0, 0.0, None)
    later(memory, "one")
    clock.advance(timedelta(seconds=30))
    memory.add("two", user_id="bob", embed="later")
    clock.advance(timedelta(seconds=12))
    assert memory.stats().pending["embed"] == warpmem.PendingWork(2, 0, 42.0, None)


# --------------------------------------------------------------------------------------------- models


def test_another_model_takes_over_while_items_wait(memory: Memory) -> None:
    memory.add("old", user_id="ann")
    queued = later(memory, "waits")
    memory.update(queued.id, metadata={"n": 1})
    assert memory.reembed(Hooked(24)) == 1
    assert waiting(memory) == 2 and worded(memory, "waits") == ["waits"]
    assert memory.embed_pending() == 2 and check_vectors(memory) == 3


@pytest.mark.parametrize("when", range(1, 5))
def test_items_are_queued_and_embedded_while_another_model_takes_over(memory: Memory, when: int) -> None:
    later(memory, [f"waits {n}" for n in range(5)])
    memory.add_many([f"ready {n}" for n in range(5)], user_id="ann")
    calls = 0

    def between(done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == when:
            assert memory.embed_pending() == 5
        if calls == when + 1:
            later(memory, "late")

    memory.reembed(Hooked(24), batch=2, progress=between)
    assert waiting(memory) == (calls > when)
    memory.embed_pending()
    check_vectors(memory)


def test_items_are_embedded_between_a_look_at_them_and_the_new_models_step(memory: Memory) -> None:
    """The step knew of no vector to make for them, and then they had one."""
    later(memory, [f"waits {n}" for n in range(5)])
    memory.add_many([f"ready {n}" for n in range(5)], user_id="ann")
    memory.reembed(Hooked(24, lambda texts: memory.embed_pending()))
    assert waiting(memory) == 0
    check_vectors(memory)


def test_a_model_that_takes_over_while_a_batch_is_embedded(memory: Memory, embedder: Moody) -> None:
    later(memory, ["one", "two"])
    new = Hooked(24)
    embedder.hook = lambda texts: memory.reembed(new) if memory.stats().dimension == DIMENSION else None
    assert memory.embed_pending() == 2
    assert memory.stats().dimension == 24
    check_vectors(memory)


def test_what_one_model_refused_another_is_asked(tmp_path: Path) -> None:
    embedder = Moody()
    with warpmem.open(tmp_path / "store", embedder=embedder, durability="os") as memory:
        embedder.refuses = "mute"
        later(memory, "a mute one")
        assert memory._pending.wait(10) and memory.stats().pending["embed"].refused == 1
        memory.reembed(Hooked(24))  # which wakes the thread
        assert memory._pending.wait(10) and waiting(memory) == 0
        later(memory, "another")
        assert memory._pending.wait(10) and waiting(memory) == 0
        check_vectors(memory)


def test_a_store_whose_vectors_come_from_the_caller_has_nobody_to_embed_later(tmp_path: Path) -> None:
    with warpmem.open(dimension=DIMENSION) as memory, pytest.raises(InputError, match="no embedder"):
        later(memory, "x")
    with warpmem.open(tmp_path / "store", embedder=Moody(), **QUIET) as memory:
        later(memory, "waits")
    name = f"hashing-{DIMENSION}-v1"
    with warpmem.open(tmp_path / "store", dimension=DIMENSION, model_id=name, durability="os") as memory:
        assert memory._pending.wait(10) and waiting(memory) == 1
        assert memory.stats().pending["embed"].refused == 0
        with pytest.raises(InputError, match="no embedder"):
            memory.embed_pending()
