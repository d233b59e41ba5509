"""AsyncMemory does what Memory does, from an event loop that stays free."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from warpmem import AsyncMemory
from warpmem.errors import NotFound


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
