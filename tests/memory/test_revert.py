"""revert: what the store or a caller decided about an item is undone by one more version."""

from __future__ import annotations

from datetime import timedelta

import pytest

import warpmem
from warpmem import Memory, Scope
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import InputError, InvalidTime, NotFound, VersionConflict
from warpmem.ops.clock import FixedClock

DAY = timedelta(days=1)


def found(memory: Memory, query: str, **options: object) -> list[str]:
    return [hit.item.text for hit in memory.search(query, user_id="u", **options)]  # type: ignore[arg-type]


def test_an_old_version_becomes_the_next_one(memory: Memory, clock: FixedClock) -> None:
    item = memory.get(memory.add("Meeting at nine", user_id="u", metadata={"room": 1}, priority=0.25).id)
    clock.advance(DAY)
    memory.update(item.id, text="Gathering whenever", metadata={}, priority=0.9, trust=0.75, sources=["s"])
    clock.advance(DAY)
    after = memory.revert(item.id, 1, scope=Scope(user_id="u"))
    assert after == memory.get(item.id)
    assert (after.version, after.text, after.metadata, after.priority) == (
        3,
        "Meeting at nine",
        {"room": 1},
        0.25,
    )
    assert (after.trust, after.sources, after.valid_from) == (1.0, (), item.valid_from)
    (hit,) = memory.search("meeting at nine", user_id="u", mode="dense")
    assert hit.item == after and hit.score == pytest.approx(1.0)
    assert found(memory, "x", known_at=after.recorded_at - timedelta(hours=1)) == ["Gathering whenever"]
    history = memory.history(item.id)
    assert [entry.operation for entry in history] == ["add", "update", "revert"]
    assert [entry.reason for entry in history] == [None, None, "what it was in version 1"]
    assert memory.changes()[-1].operation == "revert"


def test_the_reverted_text_is_a_duplicate_again(memory: Memory) -> None:
    item_id = memory.add("Has a cat", user_id="u").id
    memory.update(item_id, text="Has two cats")
    memory.revert(item_id, 1)
    assert memory.add("has a cat", user_id="u").id == item_id
    assert memory.add("Has two cats", user_id="u").action == "added"
    assert [entry.reason for entry in memory.history(item_id)][-1] == "what it was in version 1"


def test_the_current_version_stays_as_it_is(memory: Memory) -> None:
    item_id = memory.add("Has a cat", user_id="u").id
    sequence = memory.stats().sequence
    assert memory.revert(item_id, 1) == memory.get(item_id)
    assert memory.stats().sequence == sequence


def test_what_is_not_there_cannot_come_back(memory: Memory) -> None:
    item_id = memory.add("Has a cat", user_id="u").id
    memory.update(item_id, text="Has two cats")
    with pytest.raises(NotFound):
        memory.revert(item_id, 3)
    with pytest.raises(NotFound):
        memory.revert(item_id, 1, scope=Scope(user_id="v"))
    with pytest.raises(VersionConflict):
        memory.revert(item_id, 1, expected_version=1)
    for version in (0, -1, True, "1", 1 << 31):
        with pytest.raises(InputError):
            memory.revert(item_id, version)  # type: ignore[arg-type]
    memory.delete(item_id)
    with pytest.raises(NotFound):
        memory.revert(item_id, 1)
    assert memory.stats().items == 0


def test_a_superseded_value_comes_back_when_the_newer_one_is_gone(memory: Memory, clock: FixedClock) -> None:
    old = memory.add("Home is Porto", user_id="u", key="home").id
    clock.advance(DAY)
    new = memory.add("Home is Lisbon", user_id="u", key="home")
    assert new.replaced == old
    with pytest.raises(InvalidTime):
        memory.revert(old, 1)
    assert found(memory, "home") == ["Home is Lisbon"]
    memory.delete(new.id)
    assert memory.revert(old, 1).valid_to is None
    assert found(memory, "home") == ["Home is Porto"]


def test_reasons_and_reverts_survive_a_reopening(tmp_path, clock: FixedClock) -> None:
    with warpmem.open(tmp_path / "store", embedder="hashing", clock=clock) as memory:
        item_id = memory.add("Has a cat", user_id="u").id
        memory.update(item_id, text="Has two cats")
        memory.revert(item_id, 1)
        before = memory.history(item_id)
    with warpmem.open(tmp_path / "store", embedder="hashing", clock=clock) as memory:
        assert memory.history(item_id) == before
        assert found(memory, "cat") == ["Has a cat"]
    assert warpmem.verify(tmp_path / "store").ok


def test_a_revert_is_embedded_anew_by_another_model(memory: Memory) -> None:
    item_id = memory.add("Has a cat", user_id="u").id
    memory.update(item_id, text="Has two cats")
    memory.reembed(HashingEmbedder(64))
    reverted = memory.revert(item_id, 1)
    assert (reverted.text, reverted.model_id) == ("Has a cat", HashingEmbedder(64).model_id)
    assert memory.search("has a cat", user_id="u", mode="dense")[0].score == pytest.approx(1.0)
