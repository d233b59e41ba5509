"""Faults in what counts as said or done before; each test fails without its fix."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

import warpmem
from warpmem import Memory, Message, errors
from warpmem.ops.clock import FixedClock

HOUR = timedelta(hours=1)
START = datetime(2026, 1, 1, tzinfo=UTC)


def open_memory(**options: Any) -> Memory:
    return warpmem.open(embedder="hashing", **options)


def found(memory: Memory, query: str = "text", **options: Any) -> list[str]:
    return [hit.item.text for hit in memory.search(query, user_id="u", **options)]


def test_a_later_return_to_a_value_is_no_duplicate_of_todays() -> None:
    clock = FixedClock(START)
    with open_memory(clock=clock) as memory:
        memory.add("text Rome", user_id="u", key="home")
        memory.add("text Oslo", user_id="u", key="home", valid_from=START + HOUR)
        memory.add("text Rome", user_id="u", key="home", valid_from=START + 2 * HOUR)
        clock.advance(3 * HOUR)
        assert found(memory) == ["text Rome"]


def test_a_value_that_ends_is_no_duplicate_of_one_that_does_not() -> None:
    clock = FixedClock(START)
    with open_memory(clock=clock) as memory:
        memory.add("text", user_id="u", valid_to=START + HOUR)
        assert memory.add("text", user_id="u").action == "added"
        clock.advance(2 * HOUR)
        assert found(memory) == ["text"]


def test_a_repetition_without_expiry_outlives_the_first() -> None:
    clock = FixedClock(START)
    with open_memory(clock=clock) as memory:
        first = memory.add("text", user_id="u", expires_at=START + HOUR)
        assert memory.add("text", user_id="u") == warpmem.AddResult(first.id, "touched")
        assert memory.add("text", user_id="u", expires_at=START + HOUR).action == "touched"
        clock.advance(2 * HOUR)
        assert found(memory) == ["text"]


def test_an_announcement_repeated_is_touched() -> None:
    with open_memory(clock=FixedClock(START)) as memory:
        memory.add("text", user_id="u", valid_from=START + HOUR)
        assert memory.add("text", user_id="u", valid_from=START + HOUR).action == "touched"


def test_a_late_arrival_does_not_hide_the_current_duplicate() -> None:
    with open_memory(clock=FixedClock(START)) as memory:
        now = memory.add("text Rome", user_id="u", key="home", valid_from=START - HOUR)
        memory.add("text Oslo", user_id="u", key="home", valid_from=START - 5 * HOUR)
        memory.add("text Rome", user_id="u", key="home", valid_from=START - 9 * HOUR)
        assert memory.add("text Rome", user_id="u", key="home") == warpmem.AddResult(now.id, "touched")


def test_deleting_one_of_two_equal_texts_forgets_only_that_one() -> None:
    with open_memory() as memory:
        first = memory.add("text one", user_id="u")
        second = memory.add("text two", user_id="u")
        memory.update(second.id, text="text one")
        memory.delete(second.id)
        assert memory.add("text one", user_id="u") == warpmem.AddResult(first.id, "touched")


# -------------------------------------------------------------------------------- idempotency


def test_another_vector_is_another_payload() -> None:
    with warpmem.open(dimension=4) as memory:
        memory.add("text", user_id="u", vector=np.eye(4)[0], idempotency_key="k")
        with pytest.raises(errors.IdempotencyConflict):
            memory.add("text", user_id="u", vector=np.eye(4)[1], idempotency_key="k")


def test_a_replay_embeds_nothing() -> None:
    calls: list[int] = []

    def embed(texts: list[str]) -> Any:
        calls.append(len(texts))
        return np.ones((len(texts), 4))

    with warpmem.open(embedder=embed, dimension=4, model_id="mine") as memory:
        first = memory.add(["a", "b"], user_id="u", kind="message", idempotency_key="k")
        assert memory.add(["a", "b"], user_id="u", kind="message", idempotency_key="k") == first
        assert calls == [2]


def test_remembered_calls_do_not_pile_up() -> None:
    clock = FixedClock(START)
    with open_memory(clock=clock) as memory:
        for day in range(40):
            memory.add(Message(role="user", content="text"), user_id="u", idempotency_key=f"day {day}")
            clock.advance(timedelta(days=1))
        engine = memory._log._engine  # type: ignore[attr-defined]
        tags = [key[4:5] for key, _ in engine.scan("lookup", b"", b"\xff" * 64)]
        assert tags.count(b"i") == tags.count(b"t") <= 9
