"""What waits to be embedded after a restart and in copies; the thread that works it off."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import warpmem
from queued import QUIET, Moody, dense, later, waiting, worded
from reembedding import check_vectors
from warpmem import Memory
from warpmem.errors import (
    InvalidText,
    ModelUnavailable,
    Overloaded,
    StoreReadOnly,
)
from warpmem.storage import codec


@pytest.fixture
def memory(queueing: Memory) -> Memory:
    return queueing


def test_a_restart_goes_on(tmp_path: Path) -> None:
    with warpmem.open(tmp_path / "store", embedder=Moody(), **QUIET) as memory:
        later(memory, ["one", "two"])
    with warpmem.open(tmp_path / "store", embedder=Moody(), read_only=True) as reader:
        assert waiting(reader) == 2 and worded(reader, "one") == ["one"]
        with pytest.raises(StoreReadOnly):
            reader.embed_pending()
    with warpmem.open(tmp_path / "store", embedder=Moody(), durability="os") as memory:
        assert memory._pending.wait(10) and waiting(memory) == 0
        assert dense(memory) == ["one", "two"]
        check_vectors(memory)


@pytest.mark.parametrize("when", ["waiting", "embedded"])
def test_the_saved_index_knows_what_waits(tmp_path: Path, when: str) -> None:
    """Saved while items waited; opened again while they do, or after they were embedded and nothing saved."""
    with warpmem.open(tmp_path / "store", embedder=Moody(), checkpoint_rows=0, **QUIET) as memory:
        memory.add("ready", user_id="ann")
        later(memory, "waits")
        assert worded(memory, "waits") == ["waits"]
        assert memory.checkpoint()
        if when == "embedded":
            assert memory.embed_pending() == 1
    with warpmem.open(tmp_path / "store", embedder=Moody(), **QUIET) as memory:
        assert "1 owners from the checkpoint" in memory._index.restored  # type: ignore[attr-defined]
        assert worded(memory, "waits") == ["waits"]
        assert dense(memory) == (["ready"] if when == "waiting" else ["ready", "waits"])
        memory.embed_pending()
        assert dense(memory) == ["ready", "waits"]


def test_whoever_follows_sees_it_wait_and_sees_it_embedded(tmp_path: Path) -> None:
    with warpmem.open(tmp_path / "store", embedder=Moody(), **QUIET) as memory:
        later(memory, "waits")
        with warpmem.open(tmp_path / "store", embedder=Moody(), follow=True, follow_ms=0) as follower:
            assert worded(follower, "waits") == ["waits"] and dense(follower) == [] and waiting(follower) == 1
            memory.embed_pending()
            follower.refresh()
            assert dense(follower) == ["waits"] and waiting(follower) == 0


def test_backups_and_imports(tmp_path: Path) -> None:
    with warpmem.open(tmp_path / "store", embedder=Moody(), **QUIET) as memory:
        later(memory, ["one", "two"])
        backup = memory.backup(tmp_path / "backups")
        memory.export(tmp_path / "out.jsonl", vectors=True)
    warpmem.restore(backup.path, tmp_path / "restored")
    with warpmem.open(tmp_path / "restored", embedder=Moody(), **QUIET) as memory:
        assert waiting(memory) == 2 and memory.embed_pending() == 2
    with warpmem.open(embedder=Moody()) as memory:
        assert memory.import_(tmp_path / "out.jsonl").stored == {"added": 2}
        assert dense(memory) == ["one", "two"]


@pytest.mark.parametrize("lost", ["nothing", "row", "record", "vector"])
def test_a_repair_knows_what_waits(tmp_path: Path, lost: str) -> None:
    """Whatever is lost of an item that waits, it waits again; one that has lost its vector is embedded anew
    by whoever repairs."""
    with warpmem.open(tmp_path / "store", embedder=Moody(), **QUIET) as memory:
        memory.add("ready", user_id="ann")
        queued = later(memory, "waits")
        log: Any = memory._log
        key = warpmem.ops.ids.parse_id(queued.id)
        if lost == "row":
            log._engine.write([("vectors", codec.vector_key(key, 1), None)])
        if lost == "record":
            log._engine.write([("jobs", codec.work_key("embed", key, 1), None)])
    report = warpmem.verify(tmp_path / "store")
    assert report.ok == (lost in ("nothing", "vector"))
    warpmem.repair(tmp_path / "store", tmp_path / "new")
    assert warpmem.verify(tmp_path / "new").ok
    with warpmem.open(tmp_path / "new", embedder=Moody(), **QUIET) as memory:
        assert waiting(memory) == 1 and dense(memory) == ["ready"]
        assert memory.embed_pending() == 1 and check_vectors(memory) == 2


def test_verify_finds_work_that_is_done_or_has_no_item(tmp_path: Path) -> None:
    with warpmem.open(tmp_path / "store", embedder=Moody(), **QUIET) as memory:
        done = memory.add("ready", user_id="ann")
        log: Any = memory._log
        key = warpmem.ops.ids.parse_id(done.id)
        for version in (1, 7):
            name = codec.work_key("embed", key, version)
            log._engine.write([("jobs", name, codec.seal("jobs", name, b"\x92\x01\xa0"))])
    faults = [fault.what for fault in warpmem.verify(tmp_path / "store").faults]
    assert sum("waits for a vector" in what for what in faults) == 2


# ----------------------------------------------------------------------------------------- background


def eventually(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, "it never came"
        time.sleep(0.01)


def test_a_thread_works_off_what_waits_and_ends(tmp_path: Path) -> None:
    before = threading.active_count()
    with warpmem.open(tmp_path / "store", embedder=Moody(), durability="os") as memory:
        memory.add("ready", user_id="ann")
        assert memory._pending._thread is None
        later(memory, [f"text {n}" for n in range(100)])
        assert memory._pending.wait(20)
        assert waiting(memory) == 0 and check_vectors(memory) == 101
        assert memory._pending._thread is None
    assert threading.active_count() == before


def test_the_thread_tries_again_once_the_embedder_is_back() -> None:
    embedder = Moody()
    with warpmem.open(embedder=embedder) as memory:
        memory._pending._pause = 0.01
        embedder.error = ModelUnavailable("down")
        later(memory, "waits")
        eventually(lambda: memory.stats().pending["embed"].failure == "ModelUnavailable")
        embedder.error = None
        assert memory._pending.wait(20) and dense(memory) == ["waits"]
        assert memory.stats().pending["embed"].failure is None


def test_an_embedder_of_the_caller_that_raises_anything_is_tried_again() -> None:
    embedder = Moody()

    def broken(texts: Sequence[str]) -> None:
        raise RuntimeError("a driver")

    embedder.hook = broken
    with warpmem.open(embedder=embedder) as memory:
        memory._pending._pause = 0.01
        later(memory, "waits")
        eventually(lambda: memory.stats().pending["embed"].failure == "RuntimeError")
        embedder.hook = len
        assert memory._pending.wait(20) and dense(memory) == ["waits"]


def test_closing_does_not_wait_for_an_embedder_that_is_down() -> None:
    embedder = Moody()
    embedder.error = Overloaded("much", 3600.0)
    memory = warpmem.open(embedder=embedder)
    later(memory, "waits")
    eventually(lambda: memory.stats().pending["embed"].failure is not None)
    started = time.monotonic()
    memory.close()
    assert time.monotonic() - started < 2


def test_a_memory_that_is_dropped_takes_its_thread_along() -> None:
    embedder = Moody()
    embedder.error = ModelUnavailable("down")
    memory = warpmem.open(embedder=embedder)
    later(memory, "waits")
    thread = memory._pending._thread
    assert thread is not None
    del memory
    thread.join(20)
    assert not thread.is_alive()


def test_what_is_no_text_is_refused_at_once(memory: Memory) -> None:
    with pytest.raises(InvalidText):
        later(memory, "")
    assert waiting(memory) == 0
