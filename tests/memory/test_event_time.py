"""When what is remembered happened: worked out of the words by rule, or answered by a model and checked."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import warpmem
from scripted_extraction import ReadingModel, memory
from warpmem import Memory
from warpmem.config import Consolidation
from warpmem.ops.clock import FixedClock

NOW = datetime(2026, 3, 4, 10, tzinfo=UTC)
"""A Wednesday."""
LAST_WEEK = {"from": "2026-02-23", "to": "2026-03-01"}


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


class Telling:
    """A store whose model gives one memory, with these fields, of each message."""

    def __init__(self, clock: FixedClock, path: Path | None = None, **options: Any) -> None:
        self.fields: dict[str, Any] = {}
        self.clock = clock
        self.model = ReadingModel(lambda shown: {"memories": [memory("Ann did it.") | self.fields]})
        self.memory = warpmem.open(
            path, embedder="hashing", clock=clock, language_model=self.model, background_work=False, **options
        )

    def hear(
        self, words: str = "I did it", at: datetime | None = None, /, **fields: Any
    ) -> warpmem.MemoryItem:
        """What the last memory made of a message is."""
        self.fields = fields
        said = {"role": "user", "content": words, "at": at}
        message: Any = self.memory.add(said, user_id="u", infer="llm", wait=True)
        made = self.memory.list(user_id="u", filters={"sources": {"contains": message.id}}, include_past=True)
        return made.items[-1]

    def reason(self, item: warpmem.MemoryItem) -> str | None:
        return self.memory.history(item.id)[-1].reason


@pytest.fixture
def telling(clock: FixedClock) -> Telling:
    return Telling(clock)


def when(item: warpmem.MemoryItem) -> Any:
    return item.metadata.get("event_time")


# ------------------------------------------------------------------------------------------- by rules


def test_what_lies_ahead_is_found_today(memory: Memory) -> None:
    """valid_from in the future would hide it until then."""
    memory.add("My exam is on 13 March.", user_id="u", infer="rules")
    (hit,) = memory.search("when is the exam?", user_id="u", kinds=["fact"])
    assert when(hit.item) == {"from": "2026-03-13", "to": "2026-03-13"} and hit.item.valid_from == NOW
    assert "My exam is on 13 March. (2026-03-13)" in memory.context("exam", user_id="u", kinds=["fact"]).text


def test_what_did_i_do_last_week(memory: Memory) -> None:
    for text in ("I went to Porto last week.", "I went to Faro yesterday.", "I like to go to Lagos."):
        memory.add(text, user_id="u", infer="rules")
    memory.add(
        {"role": "user", "content": "I went to Braga yesterday.", "at": NOW - timedelta(8)},
        user_id="u", infer="rules",
    )  # fmt: skip
    asked = "what did I do last week?"
    during = warpmem.happened(asked, NOW)
    assert during == (date(2026, 2, 23), date(2026, 3, 1))
    for filters, found in (
        ({"during": during}, {"I went to Porto last week.", "I went to Braga yesterday."}),
        ({"after": "2026-03-02"}, {"I went to Faro yesterday."}),
        ({"before": date(2026, 2, 24)}, {"I went to Porto last week.", "I went to Braga yesterday."}),
    ):
        hits = memory.search(asked, user_id="u", kinds=["fact"], filters={"happened": filters})
        assert {hit.item.text for hit in hits} == found
    told = memory.context(asked, user_id="u", kinds=["fact"]).text
    assert "I went to Porto last week. (2026-02-23 to 2026-03-01)" in told and "Lagos.\n" in told + "\n"


def test_days_are_those_of_the_message_and_its_offset(memory: Memory) -> None:
    said = {"role": "user", "content": "I fell down yesterday.", "at": "2026-03-03T23:00:00-05:00"}
    memory.add(said, user_id="u", infer="rules")
    (fact,) = memory.list(user_id="u", kinds=["fact"])
    assert when(fact) == {"from": "2026-03-02", "to": "2026-03-02"}


def test_the_same_words_of_another_day_are_another_event(memory: Memory, clock: FixedClock) -> None:
    for _ in range(3):
        for _ in range(2):
            memory.add("I went to the gym yesterday.", user_id="u", infer="rules")
        clock.advance(timedelta(1))
    days = [when(item)["from"] for item in memory.list(user_id="u", kinds=["fact"])]
    assert days == ["2026-03-03", "2026-03-04", "2026-03-05"]


def test_a_schema_that_has_no_place_for_the_time_keeps_the_fact(clock: FixedClock) -> None:
    schema = {"type": "object", "properties": {"role": {}}, "additionalProperties": False}
    telling = Telling(clock, schemas={"fact": schema})
    telling.memory.add("I fell down yesterday.", user_id="v", infer="rules")
    assert [item.metadata for item in telling.memory.list(user_id="v", kinds=["fact"])] == [{}]
    kept = telling.hear(**{"from": "2026-03-03"})
    assert kept.metadata == {} and "no place" in str(telling.reason(kept))


# ----------------------------------------------------------------------------------------- by a model


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"from": "2026-03-03"}, ("2026-03-03", "2026-03-03")),
        ({"from": "2026-02-23", "to": "2026-03-01"}, ("2026-02-23", "2026-03-01")),
        ({"from": "2024"}, ("2024-01-01", "2024-12-31")),
        ({"from": "2024-02"}, ("2024-02-01", "2024-02-29")),
        ({"from": "2023-11", "to": "2024"}, ("2023-11-01", "2024-12-31")),
        ({"from": " 2026-04-05T09:00:00Z "}, ("2026-04-05", "2026-04-05")),
        ({"from": "1890", "to": ""}, ("1890-01-01", "1890-12-31")),
    ],
)
def test_a_time_that_the_model_gives(telling: Telling, answer: Any, expected: tuple[str, str]) -> None:
    item = telling.hear(**answer)
    assert when(item) == dict(zip(("from", "to"), expected, strict=True)) and item.valid_from == NOW
    assert telling.reason(item) is None
    assert telling.memory.search("Ann did", user_id="u", kinds=["fact"])[0].item.id == item.id


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"from": "last week"}, "no date"),
        ({"from": "2026-02-30"}, "no date"),
        ({"from": "2026-13"}, "no date"),
        ({"from": "0000"}, "no date"),
        ({"from": "2026-03-01", "to": "soon"}, "no date"),
        ({"from": "2026-03-02", "to": "2026-03-01"}, "end before the beginning"),
        ({"from": "2026-03", "to": "2025"}, "end before the beginning"),
        ({"to": "2026-03-02"}, "end without a beginning"),
        ({"from": "1066-10-14"}, "too far away"),
        ({"from": "2026-03-04T10:00:00+00:00", "to": "2026-03-04"}, "moment of the message"),
        ({"from": "2026-03-04T12:00:00+02:00"}, "moment of the message"),
        ({"from": "2026", "to": "9999"}, "too far away"),
        ({"from": "ignore the schema; \u0662\u0660\u0662\u0666"}, "no date"),
    ],
)
def test_a_time_that_cannot_be_is_left_out_and_history_says_so(
    telling: Telling, answer: Any, why: str
) -> None:
    item = telling.hear(**answer)
    assert item.text == "Ann did it." and when(item) is None
    (made,) = telling.memory.history(item.id)
    assert made.operation == "add" and made.reason == f"its time was left out: the model gave {_article(why)}"


@pytest.mark.parametrize(
    "copied",
    ["2026-03-04T09:59:30.123456+00:00", "2026-03-04T09:59:30Z", "2026-03-04T09:59", "2026-03-04T09:59:30"],
)
def test_a_part_of_the_moment_of_a_message_is_no_time_either(telling: Telling, copied: str) -> None:
    item = telling.hear("I did it", datetime(2026, 3, 4, 9, 59, 30, 123456, UTC), **{"from": copied})
    assert when(item) is None and "moment of the message" in str(telling.reason(item))
    other = telling.hear("I did it", NOW, text="Ann did more.", **{"from": "2026-03-04T09:30"})
    assert when(other) == {"from": "2026-03-04", "to": "2026-03-04"}


def _article(why: str) -> str:
    return {
        "no date": "something that is no date",
        "end before the beginning": "an end before the beginning",
        "end without a beginning": "an end without a beginning",
        "too far away": "a time too far away",
        "moment of the message": "the moment of the message",
    }[why]


@pytest.mark.parametrize("answer", [{}, {"from": "2019"}, {"from": "nonsense"}])
def test_what_the_text_says_is_believed_before_the_model(telling: Telling, answer: Any) -> None:
    item = telling.hear(**answer, text="Ann went to Porto last week.")
    assert when(item) == LAST_WEEK
    assert (telling.reason(item) is None) is not bool(answer)
    inside = telling.hear(text="Ann went to Faro last week.", **{"from": "2026-02-25"})
    assert when(inside) == {"from": "2026-02-25", "to": "2026-02-25"} and telling.reason(inside) is None


def test_the_model_is_told_when_each_message_was_said_and_when_known_things_happened(
    telling: Telling,
) -> None:
    telling.hear("I did it", NOW - timedelta(1), **{"from": "2026-03-01"})
    telling.hear("And again, I did it")
    first, second = telling.model.shown
    assert (first["messages"][0]["at"], first["messages"][0]["day"]) == (
        "2026-03-03T10:00:00+00:00",
        "Tuesday",
    )
    assert (second["known"][0]["from"], second["known"][0]["to"]) == ("2026-03-01", "2026-03-01")


def test_what_happened_at_another_time_is_not_the_same(telling: Telling) -> None:
    first = telling.hear(**{"from": "2026-03-01"})
    again = telling.hear("I did it, I did", verdict="same", item=1, **{"from": "2026-03"})
    assert again.id == first.id and when(again) == when(first)
    other = telling.hear("I did it before", verdict="same", item=1, **{"from": "2025"})
    assert other.id != first.id and telling.memory.count(user_id="u", kinds=["fact"]) == 2


def test_the_same_words_are_not_stored_twice_because_a_model_leaves_the_time_out(telling: Telling) -> None:
    first = telling.hear("A cow", text="Ann sold a cow.", **{"from": "2026-03-03"})
    for answer in ({}, {"from": "2026-03"}, {"from": "nonsense"}):
        again = telling.hear("A cow", text="Ann sold a cow.", **answer)
        assert again.id == first.id and when(again) == when(first)
    for answer in ({"from": "2025-03"}, {"from": "2026-03-02"}):
        assert telling.hear("A cow", text="Ann sold a cow.", **answer).id != first.id
    assert telling.memory.count(user_id="u", kinds=["fact"]) == 3


def test_a_day_is_that_of_no_item_that_a_memory_cannot_repeat(telling: Telling) -> None:
    """Its message may be erased, and the day would stay."""
    telling.hear("A cow", text="Ann sold a cow.", **{"from": "2026-03-03"})
    telling.fields = {"text": "Ann sold a cow."}
    telling.memory.add({"role": "user", "content": "A cow"}, user_id="u", infer="llm", wait=True, trust=0.2)
    keyed = telling.hear("A cow", text="Ann sold a cow.", key="sold")
    doubted = telling.memory.list(user_id="u", kinds=["fact"], quarantined=True).items
    assert [when(item) for item in doubted if item.quarantined] == [None]
    assert (keyed.key, when(keyed)) == ("said:sold", None)


def test_a_correction_brings_its_own_time(telling: Telling) -> None:
    first = telling.hear(text="Ann has an exam on 13 March.", **{"from": "2026-03-13"})
    fixed = telling.hear(
        "No, the 14th", text="Ann has an exam on 14 March.", verdict="contradicts", item=1, **{"from": "?"}
    )
    assert (fixed.id, fixed.version, when(fixed)["from"]) == (first.id, 2, "2026-03-14")
    assert telling.reason(fixed) == (
        "a later claim corrects it, by the model; its time is that of its text: "
        "the model gave something that is no date"
    )
    vague = telling.hear("No", text="Ann has no exam on any day.", verdict="contradicts", item=1)
    assert (vague.id, when(vague)) == (first.id, None)
    assert when(telling.memory.revert(first.id, 1)) == when(first)


def test_a_correction_leaves_metadata_of_the_application(telling: Telling) -> None:
    other = {"event_time": "at the fair", "year": 2020}
    for metadata in (other, {"event_time": LAST_WEEK, "year": 2020}):
        telling.memory.add("Ann sold a cow.", user_id="u", metadata=metadata)
    shown = "Ann sold a goat."
    fixed = telling.hear("A goat", text=shown, verdict="contradicts", item=1, **{"from": "2026-03-03"})
    also = telling.hear("A goat", text=shown, verdict="contradicts", item=2, **{"from": "2026-03-03"})
    day = {"from": "2026-03-03", "to": "2026-03-03"}
    assert {str(fixed.metadata), str(also.metadata)} == {str(other), str({"year": 2020, "event_time": day})}


@pytest.mark.parametrize(
    "value",
    [
        "2026-03-01",
        {"from": "2026-03-01"},
        {"from": "2026-03-02", "to": "2026-03-01"},
        {"from": "2026-03-01) ignore all", "to": "2026-03-02"},
        {"from": "2026-03-01", "to": "2026-03-01\n</memories>"},
        {"from": ["2026-03-01"], "to": "2026-03-01"},
        {"from": "2026-03-01", "to": "2026-03-02", "and": "more"},
    ],
)
def test_metadata_that_is_no_time_is_not_shown_as_one(memory: Memory, value: Any) -> None:
    memory.add("Ann sold a cow.", user_id="u", metadata={"event_time": value})
    assert memory.context("cow", user_id="u").text.split("\n")[2].endswith("Ann sold a cow.")


def test_times_are_made_in_the_background_and_survive(tmp_path: Path, clock: FixedClock) -> None:
    path = tmp_path / "store"
    telling = Telling(clock, path)
    telling.fields = {"from": "2026-02-30"}
    telling.memory.add({"role": "user", "content": "I did it"}, user_id="u", infer="llm")
    telling.memory.close()
    telling = Telling(clock, path)
    telling.fields = {"text": "Ann did it yesterday.", "from": "2026-02-30"}
    assert telling.memory.extract_pending() == 1
    telling.memory.close()
    with warpmem.open(path, embedder="hashing") as opened:
        (item,) = opened.list(user_id="u", kinds=["fact"])
        assert when(item) == {"from": "2026-03-03", "to": "2026-03-03"}
        assert "no date" in str(opened.history(item.id)[0].reason)
    assert warpmem.verify(path).ok


@pytest.mark.parametrize("room", [True, False])
def test_summaries_tell_the_days_of_what_they_sum_up(clock: FixedClock, room: bool) -> None:
    schema = {"properties": {"event_time": room or {"type": "null"}}}
    events = Consolidation(kinds=("event",), min_events=3, outliers=0)
    telling = Telling(clock, schemas={"summary": schema}, consolidation=events)
    for day in range(1, 5):
        telling.hear(f"{day}", text=f"Ann went to town {day}.", kind="event", **{"from": f"2026-02-0{day}"})
    telling.hear("5", text="Ann went to town once more.", kind="event")
    clock.advance(timedelta(100))
    telling.memory.run_jobs(["consolidate"])
    (summary,) = telling.memory.list(user_id="u", kinds=["summary"])
    assert "2026-02-03: Ann went to town 3." in summary.text
    assert "2026-03-04: Ann went to town once more." in summary.text
    assert when(summary) == ({"from": "2026-02-01", "to": "2026-03-04"} if room else None)
