"""What was true when: timelines of a scope, and filters on the time in which items are true."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from warpmem import Memory, MemoryItem
from warpmem.errors import InputError, InvalidFilter, InvalidScope
from warpmem.ops.clock import FixedClock

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
FOREVER = datetime.max.replace(tzinfo=UTC)


def home(memory: Memory, clock: FixedClock) -> None:
    for place in ("Porto", "Lisbon", "Faro"):
        memory.add(f"Home is {place}", user_id="u", key="home")
        clock.advance(10 * DAY)


def times(items: Any) -> list[tuple[str, int, int | None]]:
    """(text, from, to) in days after the start."""
    return [
        (item.text, (item.valid_from - START).days, item.valid_to and (item.valid_to - START).days)
        for item in items
    ]


def test_the_values_of_a_key_one_after_the_other(memory: Memory, clock: FixedClock) -> None:
    memory.add("likes tea", user_id="u")
    home(memory, clock)
    memory.add("Home is Rome", user_id="v", key="home")
    page = memory.timeline(user_id="u", key="home")
    expected = [("Home is Porto", 0, 10), ("Home is Lisbon", 10, 20), ("Home is Faro", 20, None)]
    assert times(page.items) == expected and page.cursor is None
    assert times(memory.timeline(user_id="u", key="home", reverse=True).items) == expected[::-1]
    during = memory.timeline(user_id="u", key="home", since=START + 10 * DAY, until=START + 20 * DAY)
    assert times(during.items) == expected[1:2]
    assert times(memory.timeline(user_id="u", key="home", since=START + 15 * DAY).items) == expected[1:]
    assert times(memory.timeline(user_id="u", key="home", until=START + 10 * DAY).items) == expected[:1]
    assert memory.timeline(user_id="u", key="nothing").items == ()
    assert memory.timeline(user_id="nobody").items == ()


def test_a_corrected_item_stands_as_it_is_known(memory: Memory, clock: FixedClock) -> None:
    added = memory.add("met Nadia", user_id="u", kind="event", valid_from=START - 5 * DAY)
    clock.advance(DAY)
    memory.update(added.id, valid_from=START - 7 * DAY)
    gone = memory.add("a mistake", user_id="u")
    memory.delete(gone.id)
    assert times(memory.timeline(user_id="u").items) == [("met Nadia", -7, None)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("reverse", [False, True])
def test_pages_of_random_times(memory: Memory, clock: FixedClock, seed: int, reverse: bool) -> None:
    rng = random.Random(seed)
    for i in range(60):
        begin = rng.randrange(-30, 30)
        end = rng.choice([None, begin + 1, begin + rng.randrange(1, 20)])
        memory.add(
            f"event {i}", user_id="u", kind=rng.choice(["event", "message"]), valid_from=START + begin * DAY,
            valid_to=None if end is None else START + end * DAY, run_id=rng.choice([None, "r"]),
        )  # fmt: skip
    every = memory.list(user_id="u", order="valid_from", include_past=True, limit=1000, reverse=reverse).items
    assert len(every) == 60
    for since, until, kinds, run in (
        (None, None, None, None),
        (-5, 5, ["event"], None),
        (3, None, None, "r"),
        (None, -4, None, None),
    ):
        first, last = (None if day is None else START + day * DAY for day in (since, until))
        wanted = [
            item
            for item in every
            if (last is None or item.valid_from < last)
            and (first is None or (item.valid_to or FOREVER) > first)
            and (kinds is None or item.kind in kinds)
            and (run is None or item.scope.run_id == run)
        ]
        found: list[MemoryItem] = []
        cursor = None
        while True:
            page = memory.timeline(
                user_id="u",
                run_id=run,
                since=first,
                until=last,
                kinds=kinds,
                reverse=reverse,
                limit=7,
                cursor=cursor,
            )
            assert len(page.items) <= 7
            found += page.items
            cursor = page.cursor
            if cursor is None:
                break
        assert found == wanted


def test_refused_timelines(memory: Memory) -> None:
    memory.add("a note", user_id="u")
    naive = START.replace(tzinfo=None)
    refused: list[dict[str, Any]] = [
        {"since": START, "until": START}, {"since": START, "until": START - DAY}, {"since": naive},
        {"until": "2026"}, {"limit": 0}, {"limit": 10_001}, {"cursor": "x"}, {"cursor": 3}, {"kinds": []},
        {"kinds": "fact"}, {"key": ""}, {"key": 3}, {"reverse": 1},
    ]  # fmt: skip
    for options in refused:
        with pytest.raises(InputError):
            memory.timeline(user_id="u", **options)
    with pytest.raises(InvalidScope):
        memory.timeline()
    with pytest.raises(InputError, match="another order"):
        memory.timeline(user_id="u", cursor="AAAAAAAAAAAAAAAAAAAAAAAAAAA=")


# --------------------------------------------------------------------------------------- filters


def test_bounds_of_valid_times(memory: Memory, clock: FixedClock) -> None:
    home(memory, clock)
    memory.add("planned", user_id="u", valid_from=START + 100 * DAY)
    moment = [START + n * DAY for n in range(200)]
    for bounds, places in (
        ({"before": moment[10]}, ["Porto"]),
        ({"after": moment[10]}, ["Lisbon", "Faro", "planned"]),
        ({"after": moment[10], "before": moment[20]}, ["Lisbon"]),
        ({"during": [moment[9], moment[10]]}, ["Porto"]),
        ({"during": [moment[10], moment[11]]}, ["Lisbon"]),
        ({"during": [moment[5], moment[25]]}, ["Porto", "Lisbon", "Faro"]),
        ({"during": [moment[15], None]}, ["Lisbon", "Faro", "planned"]),
        ({"during": [None, moment[15].isoformat()]}, ["Porto", "Lisbon"]),
        ({"during": [moment[5], moment[25]], "after": moment[10]}, ["Lisbon", "Faro"]),
    ):  # fmt: skip
        found = memory.list(user_id="u", filters={"valid": bounds}, include_past=True).items
        assert [item.text.removeprefix("Home is ") for item in found] == places, bounds
        rest = memory.list(user_id="u", filters={"not": {"valid": bounds}}, include_past=True).items
        assert len(found) + len(rest) == 4
        if bounds.keys() == {"during"} and not isinstance(bounds["during"][1], str):
            hits = memory.search("home", user_id="u", during=bounds["during"])
            assert {hit.item.id for hit in hits} == {item.id for item in found}
        for at in (moment[5], moment[15], moment[29]):
            hits = memory.search("home", user_id="u", filters={"valid": bounds}, as_of=at)
            current = [item.id for item in found if item.valid_from <= at < (item.valid_to or FOREVER)]
            assert [hit.item.id for hit in hits] == current


@pytest.mark.parametrize(
    ("bounds", "path"),
    [
        ({}, "valid"),
        (START, "valid"),
        ({"eq": START}, "valid.eq"),
        ({"before": None}, "valid.before"),
        ({"before": "soon"}, "valid.before"),
        ({"before": START.replace(tzinfo=None)}, "valid.before"),
        ({"after": 2026}, "valid.after"),
        ({"during": START}, "valid.during"),
        ({"during": [START]}, "valid.during"),
        ({"during": [None, None]}, "valid.during"),
        ({"during": [START, START]}, "valid.during"),
        ({"during": [START, START - DAY]}, "valid.during"),
        ({"during": [START, "2026"]}, "valid.during[1]"),
        ({"before": START, "after": START}, "valid"),
        ({"before": START, "after": START + DAY}, "valid"),
        ({"during": [START - DAY, START], "after": START}, "valid"),
    ],
)
def test_bounds_that_are_none_or_that_nothing_meets(memory: Memory, bounds: Any, path: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        memory.list(user_id="u", filters={"and": [{"valid": bounds}]})
    assert caught.value.path == f"and[0].{path}"
