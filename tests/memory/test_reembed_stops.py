"""A change of the embedding model that stops, fails, or is refused."""

from __future__ import annotations

import os
import random
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpmem
from reembedding import Hooked, answers, change, check_vectors, hits
from warpmem import Memory, NewItem
from warpmem.errors import (
    Conflict,
    DiskFull,
    EmbeddingError,
    InputError,
    ModelMismatch,
    StoreError,
    StoreReadOnly,
)
from warpmem.memory.reembed import Reembedding
from warpmem.ops.clock import FixedClock
from warpmem.storage.directory import INDEX_NAME
from warpmem.storage.vector_build import BuildTransaction, VectorBuild

START = datetime(2026, 1, 1, tzinfo=UTC)
OLD, NEW = 16, 24


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(START)


@pytest.fixture
def memory(tmp_path: Path, clock: FixedClock) -> Any:
    with warpmem.open(tmp_path / "store", embedder=Hooked(OLD), durability="os", clock=clock) as opened:
        yield opened


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


def test_a_switch_that_is_not_durable_leaves_the_old_model_answering(monkeypatch: pytest.MonkeyPatch) -> None:
    with warpmem.open(None, embedder=Hooked(OLD)) as memory:
        memory.add_many([NewItem(text=f"item {n}") for n in range(20)], user_id="ann")
        before = hits(memory, "item 7", "ann")
        log: Any = memory._log
        switch = VectorBuild.switch

        def fail(self: VectorBuild, *arguments: Any) -> Any:
            log._engine.fail_sync(StoreError("broken"))
            return switch(self, *arguments)

        monkeypatch.setattr(VectorBuild, "switch", fail)
        with pytest.raises(StoreReadOnly, match="broken"):
            memory.reembed(Hooked(NEW))
        assert memory.stats().dimension == OLD
        assert hits(memory, "item 7", "ann") == before
        with pytest.raises(StoreReadOnly):
            memory.add("more", user_id="ann")


def test_the_space_of_the_old_vectors_is_given_back(tmp_path: Path) -> None:
    with warpmem.open(tmp_path / "store", dimension=500, durability="os") as memory:
        rows = np.random.default_rng(1).standard_normal((1000, 500), np.float32)
        items = [NewItem(text=f"item {n}") for n in range(1000)]
        memory.add_many(items, user_id="ann", vectors=rows)
        memory.reembed(Hooked(4))
        storage = memory.stats().storage
        assert storage["tables"] + storage["wal"] < rows.nbytes // 4


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


def test_a_call_that_failed_after_the_switch_is_finished_by_the_next(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It said that the store had this model already, and the old vectors stayed until the next opening."""
    memory.add("one", user_id="ann")
    finish = VectorBuild.finish

    def fail(self: VectorBuild) -> None:
        monkeypatch.setattr(VectorBuild, "finish", finish)
        raise DiskFull("no room")

    monkeypatch.setattr(VectorBuild, "finish", fail)
    with pytest.raises(DiskFull):
        memory.reembed(Hooked(NEW))
    status = memory.stats().reembed
    assert status is not None and status.switched and memory.stats().dimension == NEW
    assert memory.reembed(Hooked(NEW)) == 1
    assert memory.stats().reembed is None
    with pytest.raises(InputError, match="already"):
        memory.reembed(Hooked(NEW))
    check_vectors(memory)


def test_an_interrupt_right_after_the_switch_does_not_forget_who_still_reads(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old vectors could then go while a search was still reading them."""
    memory.add("one", user_id="ann")
    switch = Reembedding._switch

    def interrupted(*arguments: Any) -> None:
        switch(*arguments)
        raise KeyboardInterrupt

    with memory._current.use() as reading:
        monkeypatch.setattr(Reembedding, "_switch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            memory.reembed(Hooked(NEW))
        monkeypatch.undo()
        again = threading.Thread(target=memory.reembed, args=(Hooked(NEW),))
        again.start()
        again.join(0.3)
        assert again.is_alive(), "it did not wait for a search in the old model"
        assert reading.vectors.dimension == OLD
    again.join(10)
    assert not again.is_alive() and memory.stats().reembed is None


def test_an_index_file_that_cannot_be_removed_is_a_typed_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warpmem.open(tmp_path / "store", embedder=Hooked(OLD)) as memory:
        memory.add("one", user_id="ann")
        memory.search("one", user_id="ann")
        assert memory.checkpoint()
        unlink = os.unlink

        def refuse(path: Any, *others: Any, **named: Any) -> None:
            if str(path).endswith(INDEX_NAME):
                raise PermissionError(13, "Permission denied")
            unlink(path, *others, **named)

        monkeypatch.setattr(os, "unlink", refuse)
        with pytest.raises(StoreError, match=r"cannot delete .*Permission denied"):
            memory.reembed(Hooked(NEW))
        assert memory.stats().dimension == OLD and len(hits(memory, "one", "ann")) == 1
        monkeypatch.undo()
        assert memory.reembed(Hooked(NEW)) == 1
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


def test_a_family_that_was_emptied_belongs_to_no_job(
    memory: Memory, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vectors of a job were dropped for another model's, whose job could then not be written: the first
    job stood there still, and would have gone on without its first vectors."""
    change(memory, clock, random.Random(4), 100)
    with pytest.raises(EmbeddingError):
        memory.reembed(failing(NEW, 32), batch=8)
    real = BuildTransaction.put_job

    def put_job(self: BuildTransaction, job: Any) -> None:
        if job is not None:
            raise StoreError("no room")
        real(self, job)

    with monkeypatch.context() as patch:
        patch.setattr(BuildTransaction, "put_job", put_job)
        with pytest.raises(StoreError, match="no room"):
            memory.reembed(Hooked(NEW + 8), batch=8)
    memory.reembed(Hooked(NEW), batch=8)
    check_vectors(memory)
