"""What jobs have made is made anew when a part of it is erased, whatever became of all but its words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from jobs_lives import NOW, START, live, opened
from warpmem import Memory, MemoryItem
from warpmem.config import Consolidation, Reflection
from warpmem.ops.clock import FixedClock

OPTIONS: dict[str, Any] = {
    "consolidation": Consolidation(min_events=3, outliers=0, lines_per_summary=20),
    "reflection": Reflection(),
}
ENDS = NOW + timedelta(days=9)


@pytest.fixture
def memory() -> Iterator[Memory]:
    with opened(None, FixedClock(NOW), **OPTIONS) as made:
        yield made


def made(memory: Memory, kind: str) -> tuple[list[str], MemoryItem]:
    """Ids of what a job made something of, and that."""
    ids = [
        memory.add(
            f"note {n} canary{n}",
            user_id="ann",
            kind="event" if kind == "summary" else "fact",
            valid_from=START + timedelta(days=n),
            sources=["web"],
        ).id
        for n in range(5)
    ]
    memory.run_jobs()
    return ids, one(memory, kind)


def one(memory: Memory, kind: str) -> MemoryItem:
    items = memory.list(user_id="ann", kinds=[kind], include_past=True, quarantined=True)
    (found,) = items
    return found


def revoked_and_reinstated(memory: Memory, item: MemoryItem) -> None:
    assert memory.revoke("web") and memory.reinstate("web")


def given_a_priority(memory: Memory, item: MemoryItem) -> None:
    memory.update(item.id, priority=0.9)


def ended(memory: Memory, item: MemoryItem) -> None:
    memory.update(item.id, valid_to=item.valid_from, expires_at=ENDS)


def doubted(memory: Memory, item: MemoryItem) -> None:
    memory.update(item.id, trust=0.6)


@pytest.mark.parametrize("change", [revoked_and_reinstated, given_a_priority, ended, doubted])
@pytest.mark.parametrize("kind", ["summary", "profile"])
def test_erased_words_go_whatever_became_of_the_rest(
    memory: Memory, kind: str, change: Callable[[Memory, MemoryItem], None]
) -> None:
    """Every later version was taken for somebody's own words, and kept what was erased."""
    ids, item = made(memory, kind)
    change(memory, item)
    before = one(memory, kind)
    assert before.version > 1
    receipt = memory.erase([ids[0]])
    after = one(memory, kind)
    assert receipt.derived == (item.id,) and not receipt.kept and after.id != item.id
    assert (
        after.sources == (*ids[1:], "web") if kind == "summary" else set(after.sources) == {*ids[1:], "web"}
    )
    assert "canary0" not in repr(memory.history(after.id)) and "canary4" in after.text
    assert (after.trust, after.valid_to, after.expires_at) == (
        before.trust,
        before.valid_to,
        before.expires_at,
    )
    assert kind == "profile" or after.priority == before.priority


def test_a_revoked_summary_that_is_made_anew_can_be_reinstated(memory: Memory) -> None:
    """It kept what was erased; made anew with the trust that was left it, it would have had none for ever."""
    ids, item = made(memory, "summary")
    memory.update(item.id, trust=0.7)
    memory.revoke("web")
    assert memory.erase([ids[0]]).derived == (item.id,)
    assert one(memory, "summary").trust == 0.0 and "canary0" not in one(memory, "summary").text
    memory.reinstate("web")
    assert one(memory, "summary").trust == 0.7
    assert memory.erase([ids[1]]).derived and one(memory, "summary").sources == (*ids[2:], "web")


def test_words_that_somebody_has_put_in_its_place_stay(memory: Memory) -> None:
    for kind in ("summary", "profile"):
        ids, item = made(memory, kind)
        memory.update(item.id, text="what somebody made of it")
        memory.revoke("web")
        memory.reinstate("web")
        assert memory.erase([ids[0]]).kept == (item.id,)
        assert one(memory, kind).text == "what somebody made of it"
        memory.erase(user_id="ann")
        assert not live(memory)
