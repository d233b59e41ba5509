"""update, delete, delete_all, history, changes, list, count, get: one item's life."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from warpmem import Memory, NewItem, Scope
from warpmem.errors import InputError, InvalidFilter, InvalidTime, NotFound, VersionConflict
from warpmem.ops.clock import FixedClock

DAY = timedelta(days=1)


def found(memory: Memory, query: str, **options: object) -> list[str]:
    return [hit.item.text for hit in memory.search(query, user_id="u", **options)]  # type: ignore[arg-type]


def test_an_update_makes_the_next_version(memory: Memory, clock: FixedClock) -> None:
    before = memory.get(memory.add("Meeting at nine", user_id="u", metadata={"room": 1}).id)
    clock.advance(DAY)
    after = memory.update(before.id, text="Meeting at ten", priority=0.9)
    assert (after.id, after.version, after.metadata, after.priority) == (before.id, 2, {"room": 1}, 0.9)
    assert after.created_at == before.created_at and after.recorded_at - before.recorded_at == DAY
    assert found(memory, "meeting") == ["Meeting at ten"]
    assert found(memory, "meeting", known_at=before.recorded_at) == ["Meeting at nine"]
    assert [version.item.text for version in memory.history(before.id) if version.item] == [
        "Meeting at nine",
        "Meeting at ten",
    ]


def test_filters_apply_to_the_version_of_then(memory: Memory, clock: FixedClock) -> None:
    item = memory.get(memory.add("Budget", user_id="u", metadata={"sum": 10}).id)
    clock.advance(DAY)
    memory.update(item.id, metadata={"sum": 20})
    for amount, known_at, count in (
        (10, None, 0),
        (20, None, 1),
        (10, item.recorded_at, 1),
        (20, item.recorded_at, 0),
    ):
        assert len(found(memory, "budget", known_at=known_at, filters={"metadata.sum": amount})) == count


def test_an_update_keeps_the_place_in_ties(memory: Memory) -> None:
    ids = [memory.add("same words", user_id="u", kind="event").id for _ in range(4)]
    memory.update(ids[1], metadata={"x": 1})
    assert [hit.item.id for hit in memory.search("same words", user_id="u")] == ids


def test_expected_version_guards_against_lost_updates(memory: Memory) -> None:
    item_id = memory.add("Meeting at nine", user_id="u").id
    memory.update(item_id, text="Meeting at ten", expected_version=1)
    with pytest.raises(VersionConflict, match="expected version 1, but the item is at version 2"):
        memory.update(item_id, text="Meeting at eleven", expected_version=1)
    assert memory.get(item_id).text == "Meeting at ten"


def test_concurrent_updates_all_count(memory: Memory) -> None:
    item_id = memory.add("counter", user_id="u").id
    threads = [
        threading.Thread(target=lambda n=n: [memory.update(item_id, metadata={"n": n}) for _ in range(5)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert memory.get(item_id).version == 21
    assert len(memory.history(item_id)) == 21


def test_updates_that_say_nothing_or_contradict_are_refused(memory: Memory) -> None:
    item_id = memory.add("Home is Porto", user_id="u", key="home").id
    free_id = memory.add("Has a cat", user_id="u").id
    with pytest.raises(InputError, match="at least one field"):
        memory.update(free_id)
    with pytest.raises(InvalidTime):
        memory.update(free_id, valid_to=datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(InputError, match="keyed item"):
        memory.update(item_id, valid_from=datetime(2020, 1, 1, tzinfo=UTC))
    assert memory.get(item_id).version == memory.get(free_id).version == 1


def test_a_closed_validity_ends_visibility(memory: Memory, clock: FixedClock) -> None:
    item = memory.get(memory.add("Works at Acme", user_id="u").id)
    memory.update(item.id, valid_to=item.valid_from + 10 * DAY)
    assert found(memory, "works") == ["Works at Acme"]
    clock.advance(10 * DAY)
    assert found(memory, "works") == []
    assert found(memory, "works", as_of=item.valid_from) == ["Works at Acme"]
    assert memory.get(item.id).text == "Works at Acme"


def test_delete_hides_every_version_and_keeps_history(memory: Memory, clock: FixedClock) -> None:
    item = memory.get(memory.add("Secret plan", user_id="u").id)
    clock.advance(DAY)
    memory.update(item.id, text="Secret plan two")
    memory.delete(item.id)
    with pytest.raises(NotFound):
        memory.get(item.id)
    with pytest.raises(NotFound):
        memory.delete(item.id)
    assert found(memory, "secret plan") == []
    assert found(memory, "secret plan", known_at=item.recorded_at, as_of=item.valid_from) == []
    assert [version.operation for version in memory.history(item.id)] == ["add", "update", "delete"]
    assert memory.history(item.id)[-1].item is None
    assert memory.stats().items == 0


def test_what_was_deleted_can_be_added_again(memory: Memory) -> None:
    first = memory.add("Has a cat", user_id="u")
    memory.delete(first.id)
    second = memory.add("Has a cat", user_id="u")
    assert second.action == "added" and second.id != first.id


def test_a_deleted_key_leaves_its_slot(memory: Memory, clock: FixedClock) -> None:
    memory.add("Home is Porto", user_id="u", key="home")
    clock.advance(DAY)
    lisbon = memory.add("Home is Lisbon", user_id="u", key="home")
    memory.delete(lisbon.id)
    clock.advance(DAY)
    assert memory.add("Home is Faro", user_id="u", key="home").action == "added"
    assert found(memory, "home") == ["Home is Faro"]


def test_an_updated_text_is_a_duplicate_under_its_new_words_only(memory: Memory) -> None:
    item_id = memory.add("Has a cat", user_id="u").id
    memory.update(item_id, text="Has two cats")
    assert memory.add("Has two cats", user_id="u").action == "touched"
    assert memory.add("Has a cat", user_id="u").action == "added"


def test_ids_of_another_scope_are_not_found(memory: Memory) -> None:
    item_id = memory.add("Has a cat", user_id="u", agent_id="a").id
    for scope in (
        Scope(user_id="v"),
        Scope(agent_id="a"),
        Scope(user_id="u", agent_id="b"),
        Scope(run_id="u"),
    ):
        for call in (memory.get, memory.history, memory.delete):
            with pytest.raises(NotFound):
                call(item_id, scope=scope)
        with pytest.raises(NotFound):
            memory.update(item_id, priority=0.1, scope=scope)
        assert memory.get_many([item_id], scope=scope) == (None,)
    assert memory.get(item_id, scope=Scope(user_id="u")).version == 1


@pytest.mark.parametrize("nonsense", ["", "x", "0" * 32, "Z" * 32, "0" * 31 + "!"])
def test_what_is_no_id_is_not_found(memory: Memory, nonsense: str) -> None:
    with pytest.raises(NotFound):
        memory.get(nonsense)
    assert memory.get_many([nonsense]) == (None,)


def test_delete_all_takes_kinds_and_a_filter(memory: Memory) -> None:
    memory.add_many([NewItem(text=f"note {i}", metadata={"level": i}) for i in range(6)], user_id="u")
    kept = memory.add("an event", kind="event", metadata={"level": 5}, user_id="u")
    assert memory.delete_all(user_id="u", kinds=["fact"], filters={"metadata.level": {"gte": 3}}) == 3
    assert memory.get(kept.id).kind == "event" and memory.count(user_id="u") == 4
    assert memory.delete_all(user_id="u", filters={"metadata.level": {"gte": 10}}) == 0
    with pytest.raises(InvalidFilter):
        memory.delete_all(user_id="u", filters={"level": 3})
    with pytest.raises(InputError):
        memory.delete_all(user_id="nobody", kinds="fact")
    assert memory.count(user_id="u") == 4


def test_delete_all_takes_the_chunks_with_their_document(memory: Memory) -> None:
    added = memory.add_document("# One\n\nFirst.\n\n# Two\n\nSecond.", name="guide.md", user_id="u")
    memory.add("a note", user_id="u")
    removed = memory.delete_all(user_id="u", filters={"id": added.id})
    assert removed > 1
    assert [item.text for item in memory.list(user_id="u")] == ["a note"]


def test_delete_all_takes_the_scope_and_nothing_else(memory: Memory) -> None:
    memory.add_many([f"note {i}" for i in range(5)], user_id="u", agent_id="a")
    memory.add_many([f"note {i}" for i in range(3)], user_id="u", agent_id="b")
    memory.add("note", user_id="v")
    assert memory.delete_all(user_id="u", agent_id="a") == 5
    assert (memory.count(user_id="u"), memory.count(user_id="v")) == (3, 1)
    assert memory.delete_all(Scope(user_id="nobody")) == 0
    assert memory.delete_all(user_id="u") == 3


def test_pages_cover_everything_once_in_order(memory: Memory, clock: FixedClock) -> None:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    for i in range(10):
        memory.add(f"entry {i}", user_id="u", valid_from=start + (i * 7 % 10) * DAY)
        clock.advance(timedelta(seconds=1))

    def walk(**options: object) -> list[str]:
        seen: list[str] = []
        cursor = None
        while True:
            page = memory.list(user_id="u", limit=3, cursor=cursor, **options)  # type: ignore[arg-type]
            seen += [item.text for item in page]
            cursor = page.cursor
            if cursor is None:
                return seen

    recorded = [f"entry {i}" for i in range(10)]
    by_time = sorted(recorded, key=lambda text: int(text.split()[1]) * 7 % 10)
    assert walk() == recorded
    assert walk(reverse=True) == recorded[::-1]
    assert walk(order="valid_from") == by_time
    assert walk(order="valid_from", reverse=True) == by_time[::-1]
    assert walk(filters={"text": {"contains": "3"}}) == ["entry 3"]
    with pytest.raises(InputError, match="cursor"):
        memory.list(user_id="u", cursor="!!")
    first = memory.list(user_id="u", limit=3)
    with pytest.raises(InputError, match="another order"):
        memory.list(user_id="u", cursor=first.cursor, order="valid_from")
    memory.add("x", user_id="v")
    with pytest.raises(InputError, match="another scope"):
        memory.list(user_id="v", cursor=first.cursor)


def test_the_change_feed_tells_everything_once(memory: Memory) -> None:
    item_id = memory.add("Has a cat", user_id="u").id
    memory.add("has a cat", user_id="u")
    memory.update(item_id, text="Has two cats")
    memory.delete(item_id)
    changes = memory.changes()
    assert [change.operation for change in changes] == ["add", "touch", "update", "delete"]
    assert [change.cursor for change in changes] == [1, 2, 3, 4]
    assert {change.id for change in changes} == {item_id}
    assert memory.changes(since=2, limit=1) == changes[2:3]
    assert memory.changes(since=4) == ()
