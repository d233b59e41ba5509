"""Consolidation: nothing is lost but repetitions, and what no summary can stand for stays."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from jobs_lives import NOW, START, fill, live, opened
from warpmem import Memory, NewItem
from warpmem.config import Consolidation, Forgetting
from warpmem.ops.clock import FixedClock
from warpmem.reason.fakes import ScriptedLanguageModel


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def memory(clock: FixedClock) -> Iterator[Memory]:
    with opened(None, clock) as made:
        yield made


def test_old_events_become_summaries_that_say_all_of_it(memory: Memory) -> None:
    once = fill(memory, random.Random(1), 120)
    before = len(live(memory))
    kept = memory.add("a fact", user_id="ann").id
    memory.add({"role": "user", "content": "lately"}, user_id="ann")
    (report,) = memory.run_jobs(["consolidate"])
    items = live(memory)
    summaries = [item for item in items if item.kind == "summary"]
    assert report.finished and report.done == {"events": before, "summaries": len(summaries)}
    assert before >= 10 * len(summaries) and {item.text for item in items} >= {"a fact", "lately"}
    said = "\n".join(item.text for item in summaries)
    assert all(said.count(text) == 1 for text in once)
    assert sum(item.metadata["consolidated"]["events"] for item in summaries) == before
    sources = [source for item in summaries for source in item.sources]
    assert len(sources) == len(set(sources)) == before
    event = memory.history(sources[0])
    assert event[-1].operation == "delete" and event[-1].reason.startswith("summarised in ")  # type: ignore[union-attr]
    assert event[-1].reason.removeprefix("summarised in ") in {item.id for item in summaries}  # type: ignore[union-attr]
    assert memory.get(kept).version == 1
    for item in summaries:
        month = {memory.history(source)[0].item.valid_from.month for source in item.sources}  # type: ignore[union-attr]
        assert len(month) == 1 and item.valid_from.month in month
    assert memory.run_jobs(["consolidate"])[0].done == {}


def test_what_is_like_nothing_else_has_a_summary_of_its_own_in_its_own_words(clock: FixedClock) -> None:
    """Among ten others its part in the summary's vector was so small that a search by meaning missed it."""
    rare = "the landlord's\nnumber is 71"
    for outliers, alone in ((0.125, True), (0.0, False)):
        with opened(None, clock, consolidation=Consolidation(outliers=outliers)) as memory:
            for n in range(15):
                text = f"drank {'tea' if n % 2 else 'coffee'} number {n} in the kitchen"
                memory.add(text, user_id="ann", kind="event", valid_from=START + timedelta(hours=n))
            event = memory.add(rare, user_id="ann", kind="event", valid_from=START + timedelta(hours=3)).id
            memory.run_jobs()
            (summary,) = [item for item in live(memory) if event in item.sources]
            assert (summary.text == rare) == (len(summary.sources) == 1) == alone
            assert summary.kind == "summary" and "71" in summary.text
            assert memory.run_jobs()[0].done == {}


def test_events_that_wait_for_their_vectors_wait_for_their_summary(clock: FixedClock) -> None:
    """Without vectors all of them would be alike."""
    with opened(None, clock, embed="later", background_work=False) as memory:
        fill(memory, random.Random(1), 60)
        before = len(live(memory))
        assert memory.run_jobs(["consolidate"])[0].done == {} and len(live(memory)) == before
        memory.embed_pending()
        assert memory.run_jobs(["consolidate"])[0].done and len(live(memory)) < before


def test_what_is_young_few_keyed_or_of_another_scope_stays_apart(clock: FixedClock) -> None:
    options = Consolidation(min_events=3, older_than_days=30)
    with opened(None, clock, consolidation=options) as memory:
        for run in ("r1", "r2"):
            for n in range(3):
                memory.add(
                    f"{run} {n}", user_id="ann", run_id=run, kind="event", valid_from=START + timedelta(n)
                )
        for n in range(2):
            memory.add(f"few {n}", user_id="ann", kind="event", valid_from=START + timedelta(40 + n))
        for n in range(5):
            memory.add(f"young {n}", user_id="ann", kind="event", valid_from=NOW - timedelta(20 + n))
        for n in range(5):
            memory.add("keyed", user_id="ann", kind="event", key=f"k{n}", valid_from=START)
        memory.run_jobs()
        summaries = [item for item in live(memory) if item.kind == "summary"]
        assert {item.scope.run_id for item in summaries} == {"r1", "r2"} and len(summaries) == 2
        assert len(live(memory)) == 2 + 2 + 5 + 5


def test_an_event_whose_id_is_revoked_takes_no_summary_with_it(clock: FixedClock) -> None:
    """The summary named it, so that all the others went into quarantine."""
    with opened(None, clock, consolidation=Consolidation(min_events=3)) as memory:
        ids = [memory.add(f"event {n}", user_id="ann", kind="event", valid_from=START).id for n in range(4)]
        memory.revoke(ids[1])
        memory.run_jobs()
        event, summary = sorted(live(memory), key=lambda item: item.kind)
        assert event.id == ids[1] and summary.trust == 1.0 and set(summary.sources) == {ids[0], *ids[2:]}


def test_what_is_in_quarantine_takes_nothing_else_there(clock: FixedClock) -> None:
    """A summary was as little trusted as the least of its events, so one false event hid a month."""
    with opened(None, clock, consolidation=Consolidation(min_events=3)) as memory:
        for hour in range(6):
            when = START + timedelta(hours=hour)
            trust = 0.25 if hour == 3 else 1.0
            item = NewItem(text=f"drank tea {hour}", kind="event", valid_from=when, trust=trust)
            memory.add(item, user_id="ann")
        memory.run_jobs(["consolidate"])
        (summary,) = live(memory)
        assert summary.kind == "summary" and summary.trust == 1.0 and "tea 3" not in summary.text
        assert memory.count(user_id="ann", quarantined=True, kinds=["event"]) == 1


def test_what_no_summary_can_stand_for_stays(clock: FixedClock) -> None:
    """Expired and ended events came back to life as summaries, the others' ends were forgotten, references to
    images went, and what waited for a language model was never read."""
    with opened(None, clock, consolidation=Consolidation(min_events=2)) as memory:
        ends = ({"expires_at": NOW - timedelta(days=9)}, {"valid_to": NOW - timedelta(days=9)})
        for n in range(3):
            for number, end in enumerate((*ends, {"expires_at": NOW + timedelta(days=9)})):
                text = f"ends {number} {n}"
                memory.add(text, user_id="ann", kind="event", valid_from=START, **end)  # type: ignore[arg-type]
            picture = NewItem(
                text=f"seen {n}", kind="event", modality="image", blob=f"{n}.png", valid_from=START
            )
            memory.add(picture, user_id="ann")
        before = {item.id for item in live(memory)}
        memory.run_jobs()
        assert {item.id for item in live(memory)} == before


def test_messages_that_wait_for_a_language_model_stay(clock: FixedClock) -> None:
    model = ScriptedLanguageModel([])
    options = {
        "consolidation": Consolidation(min_events=2),
        "language_model": model,
        "background_work": False,
    }
    with opened(None, clock, **options) as memory:
        for n in range(4):
            memory.add(
                {"role": "user", "content": f"I moved to place {n}", "at": START}, user_id="ann", infer="llm"
            )
        memory.run_jobs()
        assert memory.stats().pending["extract"].waiting == 4 == len(live(memory))


def test_a_source_can_be_revoked_after_its_events_were_summarised(clock: FixedClock) -> None:
    with opened(None, clock, consolidation=Consolidation(min_events=2)) as memory:
        for n in range(4):
            for source in ("crm", "web"):
                item = NewItem(text=f"{source} says {n}", kind="event", sources=(source,), valid_from=START)
                memory.add(item, user_id="ann")
        memory.run_jobs()
        assert {item.sources[-1] for item in live(memory)} == {"crm", "web"}
        assert memory.revoke("web") == 1
        assert [item.sources[-1] for item in live(memory) if item.trust] == ["crm"]


def test_much_of_little_trust_pushes_nothing_out(clock: FixedClock) -> None:
    with opened(None, clock, forgetting=Forgetting(max_items=5)) as memory:
        for n in range(5):
            memory.add(f"fact {n}", user_id="ann", priority=0.1)
        for n in range(20):
            memory.add(NewItem(text=f"noise {n}", trust=0.1, priority=1.0), user_id="ann")
            memory.add(f"value {n}", user_id="ann", key="slot", valid_from=START + timedelta(n))
        memory.run_jobs()
        assert {item.text for item in live(memory) if item.key is None} == {f"fact {n}" for n in range(5)}


def test_one_owner_that_fails_keeps_nobody_waiting(clock: FixedClock, monkeypatch: Any) -> None:
    from warpmem.jobs import consolidate

    lines = consolidate.lines_of

    def fail(items: Any) -> Any:
        if items[0].scope.user_id == "ann":
            raise ValueError("not with this one")
        return lines(items)

    monkeypatch.setattr(consolidate, "lines_of", fail)
    both: dict[str, Any] = {"consolidation": Consolidation(), "forgetting": Forgetting(grace_days=0)}
    with opened(None, clock, **both) as memory:
        for user in ("ann", "bob"):
            fill(memory, random.Random(3), 40, user)
        first, second = memory.run_jobs()
        assert first.finished and first.done["owners that failed"] == 1 and first.done["summaries"] > 0
        assert second.job == "forget" and second.finished
        assert len(live(memory)) == 120 and len(live(memory, "bob")) < 60


def test_a_text_said_more_often_than_a_summary_has_sources(clock: FixedClock) -> None:
    with opened(None, clock, consolidation=Consolidation()) as memory:
        beeps = [NewItem(text="beep", kind="event", valid_from=START) for _ in range(400)]
        memory.add_many(beeps, user_id="ann")
        memory.run_jobs()
        summaries = live(memory)
        assert sum(len(item.sources) for item in summaries) == 400
        assert len(summaries) == 4


@pytest.mark.parametrize("texts", [1, 300])
def test_events_with_many_origins(clock: FixedClock, texts: int) -> None:
    """A summary named more than an item may, so nothing of its owner was ever summarised again."""
    options = Consolidation(lines_per_summary=256, max_events=192, max_tokens=1 << 16, outliers=0)
    with opened(None, clock, consolidation=options) as memory:
        for month, names in enumerate((64, 65, 0)):
            sources = [f"sensor:{n}" for n in range(names)]
            at = START + timedelta(days=31 * month)
            memory.add_many(
                [
                    NewItem(text=f"door {n % texts}", kind="event", sources=sources, valid_from=at)
                    for n in range(300)
                ],
                user_id="ann",
            )
        assert "owners that failed" not in memory.run_jobs()[0].done
        events = [item for item in live(memory) if item.kind == "event"]
        assert len(events) == 300 and all(len(item.sources) == 65 for item in events)


def test_a_language_model_words_summaries_and_is_not_believed(clock: FixedClock) -> None:
    answers = [json.dumps({"summary": "Three drinks."}), "no JSON", json.dumps({"summary": "x" * 100_000})]
    model = ScriptedLanguageModel(answers)
    options = Consolidation(by="model", min_events=3, lines_per_summary=2)
    with opened(None, clock, consolidation=options, language_model=model) as memory:
        for month in range(3):
            for n in range(3):
                at = START + timedelta(days=31 * month + n)
                memory.add(f"drank {n} in {month}", user_id="ann", kind="event", valid_from=at)
        (report,) = memory.run_jobs()
        summaries = [item for item in live(memory) if item.kind == "summary"]
        by = [item.metadata["consolidated"]["by"] for item in summaries]
        assert by.count(model.model_id) >= 1 and "extract" in by
        several = [item for item in summaries if "\n" in item.text]
        assert report.done["without the model"] == sum(
            item.metadata["consolidated"]["by"] == "extract" for item in several
        )
        assert all("x" * 100 not in item.text for item in summaries)


def test_an_event_that_changes_meanwhile_is_summarised_as_it_is_then(
    clock: FixedClock, monkeypatch: Any
) -> None:
    from warpmem.jobs import consolidate

    with opened(None, clock, consolidation=Consolidation(min_events=3)) as memory:
        ids = [memory.add(f"event {n}", user_id="ann", kind="event", valid_from=START).id for n in range(5)]
        lines, calls = consolidate.lines_of, iter(range(9))

        def slow(items: Any) -> Any:
            if next(calls) == 0:
                memory.update(ids[0], text="corrected")
                memory.delete(ids[1])
                memory.update(ids[4], sources=["web"])
            return lines(items)

        monkeypatch.setattr(consolidate, "lines_of", slow)
        memory.run_jobs()
        event, summary = sorted(live(memory), key=lambda item: item.kind)
        assert event.id == ids[4], "it comes from elsewhere"
        assert (
            summary.sources == (ids[0], *ids[2:4])
            and "corrected" in summary.text
            and "event 1" not in summary.text
        )
