"""AsyncMemory does what Memory does, from an event loop that stays free."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import warpmem
from warpmem import AsyncMemory
from warpmem.errors import InputError, NotFound, StoreClosed, StoreLocked


def test_the_same_methods_awaited(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with await AsyncMemory.open(tmp_path / "store", embedder="hashing") as memory:
            results = await asyncio.gather(*(memory.add(f"note {i}", user_id="u") for i in range(20)))
            assert len({result.id for result in results}) == 20  # type: ignore[union-attr]
            found = await memory.search("note 7", user_id="u", k=1)
            assert found[0].item.text == "note 7"
            await memory.delete(found[0].item.id)
            with pytest.raises(NotFound):
                await memory.get(found[0].item.id)
            assert await memory.count(user_id="u") == 19
            assert (await memory.context("note", user_id="u", max_tokens=60)).tokens <= 60

    asyncio.run(scenario())


def test_the_loop_runs_while_a_call_waits() -> None:
    async def scenario() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        async with await AsyncMemory.open(None, embedder="hashing") as memory:
            ticker = asyncio.create_task(tick())
            await memory.add_many([f"note {i}" for i in range(500)], user_id="u")
            ticker.cancel()
        return ticks

    assert asyncio.run(scenario()) > 5


def test_a_cancelled_call_that_waits_for_the_embedder_leaves_the_queue_and_changes_nothing() -> None:
    gate, begun = threading.Event(), threading.Event()
    embedded: list[str] = []

    def embed(texts: Sequence[str]) -> Any:
        embedded.extend(texts)
        begun.set()
        assert gate.wait(10)
        return [[1.0, 2.0]] * len(texts)

    async def scenario() -> None:
        async with await AsyncMemory.open(None, embedder=embed, dimension=2, model_id="gated") as memory:
            first = asyncio.create_task(memory.add("first", user_id="u"))
            await asyncio.to_thread(begun.wait)
            others = [
                asyncio.create_task(memory.add("added", user_id="u")),
                asyncio.create_task(memory.search("sought", user_id="u")),
            ]
            scheduler = memory.memory._current.now.vectors._embedder
            await _until(lambda: sum(scheduler.stats()["waiting"].values()) == 2)
            for task in others:
                task.cancel()
            for task in others:
                with pytest.raises(asyncio.CancelledError):
                    await task
            await _until(lambda: sum(scheduler.stats()["waiting"].values()) == 0)
            gate.set()
            await first
            assert [item.text for item in await memory.list(user_id="u")] == ["first"]
            await memory.search("later", user_id="u")
            assert embedded == ["first", "later"]

    asyncio.run(scenario())


def test_many_calls_wait_for_the_embedder_together() -> None:
    """asyncio's own threads are few: most searches waited for one of them, where no deadline and no owner
    counts, and were embedded in batches as small."""
    gate = threading.Event()
    batches: list[int] = []

    def embed(texts: Sequence[str]) -> Any:
        batches.append(len(texts))
        assert gate.wait(10)
        return [[1.0, 2.0]] * len(texts)

    async def scenario() -> None:
        async with await AsyncMemory.open(None, embedder=embed, dimension=2, model_id="gated") as memory:
            searches = [asyncio.create_task(memory.search("x" * 8000, user_id="first"))]
            await _until(lambda: batches)
            searches += [asyncio.create_task(memory.search(f"{n}", user_id=f"u{n}")) for n in range(40)]
            scheduler = memory.memory._current.now.vectors._embedder
            await _until(lambda: scheduler.stats()["waiting"]["interactive"] == 40)
            gate.set()
            await asyncio.gather(*searches)

    asyncio.run(scenario())
    assert batches == [1, 40]


def test_threads_are_counted_and_end_with_the_store(tmp_path: Path) -> None:
    async def scenario() -> None:
        for wrong in (0, True, "4"):
            with pytest.raises(InputError, match="threads"):
                await AsyncMemory.open(tmp_path / "store", embedder="hashing", threads=wrong)
        assert not (tmp_path / "store").exists()
        others = set(threading.enumerate())  # a store closed before may still be ending its own
        memory = await AsyncMemory.open(tmp_path / "store", embedder="hashing", threads=2)
        await asyncio.gather(*(memory.count(user_id="u") for _ in range(20)))
        own = set(threading.enumerate()) - others
        assert 1 <= sum(thread.name.startswith("warpmem_") for thread in own) <= 2
        await memory.close()
        with pytest.raises(StoreClosed):
            await memory.count(user_id="u")
        await memory.close()

    asyncio.run(scenario())
    for thread in threading.enumerate():
        if thread.name.startswith("warpmem_"):
            thread.join(5)
            assert not thread.is_alive()


@pytest.mark.parametrize("begun", [False, True])
def test_a_cancelled_close_still_releases_the_directory(tmp_path: Path, begun: bool) -> None:
    """It waited for a thread as every call does; cancelled there, it left the store open for good."""
    gate, closing = threading.Event(), threading.Event()

    async def scenario() -> None:
        memory = await AsyncMemory.open(tmp_path / "store", embedder="hashing", threads=1)
        await memory.add("kept", user_id="u")
        assert memory._threads is not None
        busy = memory._threads.submit(gate.wait, 10)
        close = memory.memory.close

        def slow() -> None:
            closing.set()
            assert gate.wait(10)
            close()

        memory.memory.close = slow  # type: ignore[method-assign]
        task = asyncio.create_task(memory.close())
        await (asyncio.to_thread(closing.wait, 10) if begun else asyncio.sleep(0))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert memory._threads is None
        gate.set()
        assert busy.result(10)
        await _until(lambda: _is_free(tmp_path / "store"))

    asyncio.run(scenario())


def _is_free(path: Path) -> bool:
    try:
        with warpmem.open(path, embedder="hashing") as memory:
            return memory.count(user_id="u") == 1
    except StoreLocked:
        return False


async def _until(true: Any) -> None:
    for _ in range(2000):
        if true():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came to that")
