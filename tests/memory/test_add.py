"""add, add_many: scopes, kinds, duplicates, keys, idempotency, atomicity."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum

import numpy as np
import pytest

from warpmem import Memory, Message, NewItem, Scope
from warpmem.errors import IdempotencyConflict, InputError, InvalidText
from warpmem.ops.clock import FixedClock

DAY = timedelta(days=1)


def texts(memory: Memory, query: str = "nadia home city porto lisbon", **options: object) -> list[str]:
    return [hit.item.text for hit in memory.search(query, user_id="u", **options)]  # type: ignore[arg-type]


def test_a_string_becomes_a_fact_with_defaults(memory: Memory, clock: FixedClock) -> None:
    result = memory.add("Nadia likes tea.", user_id="u")
    item = memory.get(result.id)
    assert (result.action, item.kind, item.priority, item.version) == ("added", "fact", 0.5, 1)
    assert item.valid_from == item.created_at == item.recorded_at == datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert item.valid_to is None and item.retired_at is None and item.metadata == {}
    assert item.model_id == "hashing-256-v1"


def test_chat_messages_become_messages_in_order(memory: Memory) -> None:
    said = datetime(2025, 6, 1, tzinfo=UTC)
    results = memory.add(
        [{"role": "user", "content": "I moved."}, Message(role="assistant", content="Where to?", at=said)],
        user_id="u",
        run_id="r",
    )
    assert isinstance(results, tuple)
    first, second = (memory.get(result.id) for result in results)
    assert (first.kind, first.metadata["role"], second.metadata["role"]) == ("message", "user", "assistant")
    assert second.valid_from == said
    assert first.scope == Scope(user_id="u", run_id="r")


def test_a_duplicate_is_touched_not_stored(memory: Memory, clock: FixedClock) -> None:
    first = memory.add("Likes  TEA", user_id="u", metadata={"a": 1})
    clock.advance(DAY)
    again = memory.add("likes tea", user_id="u", metadata={"a": 1})
    assert again.action == "touched" and again.id == first.id
    assert memory.count(user_id="u") == 1
    assert memory.get(first.id).touched_at - memory.get(first.id).created_at == DAY
    assert memory.get(first.id).version == 1


@pytest.mark.parametrize(
    "change",
    [{"metadata": {"a": 2}}, {"kind": "preference"}, {"user_id": "v"}, {"agent_id": "x"}, {"key": "drink"}],
)
def test_what_differs_in_content_or_scope_is_no_duplicate(memory: Memory, change: dict[str, object]) -> None:
    base: dict[str, object] = {"user_id": "u", "metadata": {"a": 1}}
    memory.add("Likes tea", **base)  # type: ignore[arg-type]
    assert memory.add("Likes tea", **{**base, **change}).action == "added"  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["message", "event"])
def test_messages_and_events_repeat(memory: Memory, kind: str) -> None:
    assert memory.add("ok", user_id="u", kind=kind).action == "added"
    assert memory.add("ok", user_id="u", kind=kind).action == "added"
    assert memory.count(user_id="u") == 2


def test_a_duplicate_of_what_is_over_is_new(memory: Memory, clock: FixedClock) -> None:
    memory.add("On leave", user_id="u", expires_at=clock_time(clock) + DAY)
    clock.advance(2 * DAY)
    assert memory.add("On leave", user_id="u").action == "added"


def clock_time(clock: FixedClock) -> datetime:
    from warpmem.ops.clock import to_datetime

    return to_datetime(clock.now())


def test_a_key_closes_its_earlier_value(memory: Memory, clock: FixedClock) -> None:
    porto = memory.add("Home is Porto", user_id="u", key="home")
    clock.advance(30 * DAY)
    lisbon = memory.add("Home is Lisbon", user_id="u", key="home")
    assert (lisbon.action, lisbon.replaced) == ("superseded", porto.id)
    assert texts(memory) == ["Home is Lisbon"]
    assert texts(memory, as_of=clock_time(clock) - DAY) == ["Home is Porto"]
    old = memory.get(porto.id)
    assert old.valid_to == memory.get(lisbon.id).valid_from and old.version == 2
    history = memory.history(porto.id)
    assert [version.operation for version in history] == ["add", "close"]
    assert [version.reason for version in history] == [None, "its key has a newer value"]


def test_a_key_can_return_to_an_earlier_value(memory: Memory, clock: FixedClock) -> None:
    for city in ("Porto", "Lisbon", "Porto"):
        assert memory.add(f"Home is {city}", user_id="u", key="home").action in ("added", "superseded")
        clock.advance(DAY)
    assert texts(memory) == ["Home is Porto"]
    assert memory.count(user_id="u", include_past=True) == 3


def test_keys_are_unique_per_full_scope(memory: Memory) -> None:
    memory.add("Theme is dark", user_id="u", agent_id="a", key="theme")
    assert memory.add("Theme is light", user_id="u", agent_id="b", key="theme").action == "added"
    assert memory.count(user_id="u") == 2


def test_a_late_arrival_becomes_history_between_its_neighbours(memory: Memory, clock: FixedClock) -> None:
    start = clock_time(clock)
    first = memory.add("Tutor is Whitlock", user_id="u", key="tutor", valid_from=start - 300 * DAY)
    third = memory.add("Tutor is Arakawa", user_id="u", key="tutor", valid_from=start - 50 * DAY)
    second = memory.add("Tutor is Hoshino", user_id="u", key="tutor", valid_from=start - 200 * DAY)
    assert memory.get(second.id).valid_to == memory.get(third.id).valid_from
    assert memory.get(first.id).valid_to == memory.get(second.id).valid_from

    def told(days: int) -> list[str]:
        return texts(memory, as_of=start - days * DAY)

    assert told(250) == ["Tutor is Whitlock"]
    assert told(100) == ["Tutor is Hoshino"]
    assert told(0) == ["Tutor is Arakawa"]
    assert told(400) == []


def test_what_was_known_before_a_late_arrival_stays_known(memory: Memory, clock: FixedClock) -> None:
    start = clock_time(clock)
    memory.add("Tutor is Whitlock", user_id="u", key="tutor", valid_from=start - 300 * DAY)
    clock.advance(DAY)
    memory.add("Tutor is Hoshino", user_id="u", key="tutor", valid_from=start - 200 * DAY)
    assert texts(memory, as_of=start - 100 * DAY) == ["Tutor is Hoshino"]
    assert texts(memory, as_of=start - 100 * DAY, known_at=start) == ["Tutor is Whitlock"]


def test_what_begins_later_is_found_from_then_on(memory: Memory, clock: FixedClock) -> None:
    memory.add("Home is Porto", user_id="u", key="home")
    memory.add("Home is Lisbon", user_id="u", key="home", valid_from=clock_time(clock) + 10 * DAY)
    assert texts(memory) == ["Home is Porto"]
    clock.advance(11 * DAY)
    assert texts(memory) == ["Home is Lisbon"]


def test_expired_items_are_not_found(memory: Memory, clock: FixedClock) -> None:
    memory.add("Visitor code 1234", user_id="u", expires_at=clock_time(clock) + DAY)
    assert len(texts(memory)) == 1
    clock.advance(2 * DAY)
    assert texts(memory) == [] and memory.count(user_id="u") == 0
    assert texts(memory, as_of=clock_time(clock) - 2 * DAY) == ["Visitor code 1234"]


def test_idempotency_key_answers_again_without_storing(memory: Memory) -> None:
    said = Message(role="user", content="hi there")
    first = memory.add(said, user_id="u", idempotency_key="turn-1")
    assert memory.add(said, user_id="u", idempotency_key="turn-1") == first
    assert memory.count(user_id="u") == 1
    assert memory.add(said, user_id="v", idempotency_key="turn-1").id != first.id
    with pytest.raises(IdempotencyConflict):
        memory.add("something else", user_id="u", idempotency_key="turn-1")
    assert memory.count(user_id="u") == 1


def test_idempotency_covers_a_whole_list_and_ends_after_a_week(memory: Memory, clock: FixedClock) -> None:
    lines = [Message(role="user", content=f"line {i}") for i in range(3)]
    first = memory.add(lines, user_id="u", idempotency_key="batch")
    clock.advance(6 * DAY)
    assert memory.add(lines, user_id="u", idempotency_key="batch") == first
    clock.advance(2 * DAY)
    assert memory.add(lines, user_id="u", idempotency_key="batch") != first
    assert memory.count(user_id="u") == 6


def test_items_of_one_call_may_carry_their_own_idempotency_keys(memory: Memory) -> None:
    lines = [NewItem(text=f"line {i}", kind="message", idempotency_key=f"k{i}") for i in range(3)]
    first = memory.add_many(lines[:2], user_id="u")
    again = memory.add_many(lines, user_id="u")
    assert again[:2] == first and memory.count(user_id="u") == 3


def test_add_many_is_whole_or_nothing(memory: Memory) -> None:
    with pytest.raises(InvalidText):
        memory.add_many(["one", "two", "  "], user_id="u")
    assert memory.count(user_id="u") == 0
    results = memory.add_many(
        [NewItem(text="one", scope=Scope(user_id="a")), NewItem(text="two", scope=Scope(user_id="b"))]
    )
    assert [memory.get(result.id).scope.user_id for result in results] == ["a", "b"]


def test_duplicates_inside_one_list_are_touched(memory: Memory) -> None:
    results = memory.add(["same", "same", "other"], user_id="u")
    assert isinstance(results, tuple)
    assert [result.action for result in results] == ["added", "touched", "added"]


def test_keys_inside_one_list_supersede_in_order(memory: Memory) -> None:
    results = memory.add_many([NewItem(text=f"Home is {c}", key="home") for c in "ABC"], user_id="u")
    assert [result.action for result in results] == ["added", "superseded", "superseded"]
    assert texts(memory) == ["Home is C"]


def test_an_empty_list_stores_nothing(memory: Memory) -> None:
    assert memory.add([], user_id="u") == ()
    assert memory.stats().sequence == 0


def test_given_vectors_replace_embedding(memory: Memory) -> None:
    axis = np.eye(256, dtype=np.float64)
    memory.add(["north", "east"], user_id="u", vector=axis[:2] * 7)
    (hit, other) = memory.search(vector=axis[1], user_id="u", return_vectors="numpy")
    assert (hit.item.text, hit.score, other.score) == ("east", 1.0, 0.0)
    with pytest.raises(InputError):
        memory.add([NewItem(text="x", vector=axis[0])], user_id="u", vector=axis[:1])


def test_one_key_cannot_name_several_items(memory: Memory) -> None:
    with pytest.raises(InputError, match="one key cannot name 2 items"):
        memory.add(["a", "b"], user_id="u", key="k")


def test_a_string_of_another_type_is_the_string_it_holds(memory: Memory) -> None:
    class Person(StrEnum):
        NADIA = "nadia"

    class Quoted(str):
        pass

    first = memory.add(Quoted("Home is A"), user_id=Person.NADIA, kind=np.str_("note"), key=Quoted("home"))
    second = memory.add("Home is B", user_id="nadia", kind="note", key="home")
    assert (second.action, second.replaced) == ("superseded", first.id)
    item = memory.get(first.id, scope=Scope(user_id=Quoted("nadia")))
    assert {type(value) for value in (item.scope.user_id, item.kind, item.key, item.text)} == {str}
    assert type(Scope(user_id=Person.NADIA).user_id) is str
    assert repr(Scope(user_id=np.str_("nadia"))) == repr(Scope(user_id="nadia"))


def test_a_datetime_of_another_type_is_the_time_it_tells(memory: Memory) -> None:
    class Stamp(datetime):
        pass

    times = {"valid_from": Stamp(2026, 1, 1, 9, tzinfo=UTC), "valid_to": Stamp(2030, 1, 1, tzinfo=UTC)}
    first = memory.add("a", user_id="u", idempotency_key="once", expires_at=times["valid_to"], **times)
    plain = {name: datetime.fromisoformat(when.isoformat()) for name, when in times.items()}
    again = memory.add("a", user_id="u", idempotency_key="once", expires_at=plain["valid_to"], **plain)
    assert again == first
    assert memory.get(first.id).valid_from == times["valid_from"]
