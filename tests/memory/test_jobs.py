"""Forgetting and consolidation: by rule, with reasons, resumable, and nothing lost but what a rule names."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import warpmem
from warpmem import Memory, NewItem, Scope
from warpmem.config import Consolidation, Forgetting
from warpmem.errors import Conflict, InputError, StoreReadOnly
from warpmem.ops.clock import FixedClock
from warpmem.reason.fakes import ScriptedLanguageModel

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 6, 15, tzinfo=UTC)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


def opened(path: Path | None, clock: FixedClock, **options: Any) -> Memory:
    return warpmem.open(path, embedder="hashing", clock=clock, durability="os", **options)


@pytest.fixture
def memory(clock: FixedClock) -> Iterator[Memory]:
    with opened(None, clock) as made:
        yield made


def live(memory: Memory, user: str = "ann") -> list[warpmem.MemoryItem]:
    return list(memory.list(user_id=user, include_past=True, limit=10_000))


def fill(memory: Memory, rng: random.Random, days: int, user: str = "ann") -> list[str]:
    """Three events a day, many of them in the same words; returns the texts that are said once."""
    once = []
    for day in range(days):
        at = START + timedelta(days=day)
        for hour in range(3):
            text = f"drank {rng.choice(['coffee', 'tea', 'water'])}"
            if hour == 2 and day % 5 == 0:
                text = f"the code of door {day} is {rng.randrange(10**6)}"
                once.append(text)
            when = at + timedelta(hours=hour)
            memory.add(NewItem(text=text, kind="event", valid_from=when), user_id=user)
    return once


# ---------------------------------------------------------------------------------------------- forget


def test_what_expired_long_ago_goes_and_its_history_says_why(memory: Memory, clock: FixedClock) -> None:
    old = memory.add("old", user_id="ann", expires_at=NOW + timedelta(days=1)).id
    young = memory.add("young", user_id="ann", expires_at=NOW + timedelta(days=20)).id
    kept = memory.add("kept", user_id="ann").id
    clock.advance(timedelta(days=32))
    (report,) = memory.run_jobs(["forget"])
    assert report.job == "forget" and report.finished and report.done == {"expired": 1} and report.owners == 1
    assert {item.id for item in live(memory)} == {young, kept}
    assert [(v.operation, v.reason) for v in memory.history(old)] == [("add", None), ("delete", "expired")]
    assert memory.run_jobs(["forget"])[0].done == {}


def test_what_faded_or_is_too_much_goes_but_not_what_is_cited_keyed_or_kept(clock: FixedClock) -> None:
    rules = Forgetting(min_retention=0.05, half_life_days=10, max_items=3, keep_kinds=("procedure",))
    with opened(None, clock, forgetting=rules) as memory:
        cited = memory.add("cited", user_id="ann", priority=0.0).id
        memory.add("keyed", user_id="ann", priority=0.0, key="k")
        memory.add("kept", user_id="ann", priority=0.0, kind="procedure")
        faded = memory.add("faded", user_id="ann", priority=0.1).id
        clock.advance(timedelta(days=20))
        crowd = [memory.add(f"crowd {n}", user_id="ann", priority=0.5 + n / 10).id for n in range(4)]
        memory.add(NewItem(text="summary", kind="summary", sources=(cited,), priority=0.9), user_id="ann")
        memory.add("another's", user_id="bob", priority=0.0)
        (report,) = memory.run_jobs()
        assert report.done == {"faded": 2, "crowded": 2}
        texts = {item.text for item in live(memory)}
        assert texts == {"cited", "keyed", "kept", "crowd 2", "crowd 3", "summary"}
        assert memory.history(faded)[-1].reason == "faded: retention 0.0250 below 0.05"
        assert memory.history(crowd[0])[-1].reason == "crowded: 5 items, 3 are kept"


def test_what_is_touched_while_it_is_being_forgotten_stays(clock: FixedClock, monkeypatch: Any) -> None:
    from warpmem.jobs import forget

    with opened(None, clock, forgetting=Forgetting(max_items=1)) as memory:
        memory.add("one", user_id="ann", priority=0.1)
        memory.add("two", user_id="ann", priority=0.2)
        chosen = forget.to_forget

        def slow(*arguments: Any) -> Any:
            found = chosen(*arguments)
            clock.advance(timedelta(seconds=1))
            memory.add("one", user_id="ann", priority=0.1)
            return found

        monkeypatch.setattr(forget, "to_forget", slow)
        assert memory.run_jobs()[0].done == {}
        assert {item.text for item in live(memory)} == {"one", "two"}


# ----------------------------------------------------------------------------------------- consolidate


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


def test_erasing_waits_for_a_summary_that_is_being_stored(clock: FixedClock, monkeypatch: Any) -> None:
    """An erasure that had looked for what was derived left its words in the summary that came then."""
    from warpmem.jobs.consolidate import _Exchange

    with opened(None, clock, consolidation=Consolidation(min_events=2)) as memory:
        ids = [
            memory.add(f"event {n} canary{n}", user_id="ann", kind="event", valid_from=START).id
            for n in range(4)
        ]
        run, erased = _Exchange.run, threading.Thread(target=lambda: memory.erase([ids[2]], user_id="ann"))

        def slow(self: Any, serving: Any) -> int:
            erased.start()
            erased.join(0.3)
            assert erased.is_alive()
            return run(self, serving)

        monkeypatch.setattr(_Exchange, "run", slow)
        memory.run_jobs()
        erased.join(10)
        (summary,) = live(memory)
        assert "canary2" not in summary.text and "canary3" in summary.text


def test_an_erasure_is_not_refused_for_a_summary(clock: FixedClock) -> None:
    """One without a model, one whose summary somebody has corrected, one that names more than items."""
    working = [True]

    def embed(texts: Any) -> Any:
        if not working[0]:
            raise OSError("down")
        return [[float(len(text)), 1.0] for text in texts]

    options: dict[str, Any] = {"dimension": 2, "model_id": "m", "consolidation": Consolidation(min_events=2)}
    with warpmem.open(None, embedder=embed, clock=clock, durability="os", **options) as memory:
        ids = {}
        for run in ("down", "corrected", "named"):
            ids[run] = [
                memory.add(f"{run} {n}", user_id="ann", run_id=run, kind="event", valid_from=START).id
                for n in range(3)
            ]
        memory.run_jobs()
        by_run = {item.scope.run_id: item for item in live(memory)}
        memory.update(by_run["corrected"].id, text="what somebody made of it")
        named = by_run["named"]
        memory.update(named.id, sources=[*named.sources, "reviewed"])
        assert by_run["corrected"].id in memory.erase([ids["corrected"][0]]).kept
        assert named.id in memory.erase([ids["named"][0]]).kept
        working[0] = False
        receipt = memory.erase([ids["down"][0]])
        assert receipt.items + receipt.history > 0 and by_run["down"].id in (*receipt.derived, *receipt.kept)


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
        assert report.done["without the model"] == by.count("extract")
        assert all("x" * 100 not in item.text for item in summaries)


def test_an_event_that_changes_meanwhile_is_summarised_as_it_is_then(
    clock: FixedClock, monkeypatch: Any
) -> None:
    from warpmem.jobs import consolidate

    with opened(None, clock, consolidation=Consolidation(min_events=3)) as memory:
        ids = [memory.add(f"event {n}", user_id="ann", kind="event", valid_from=START).id for n in range(4)]
        lines, calls = consolidate.lines_of, iter(range(9))

        def slow(items: Any) -> Any:
            if next(calls) == 0:
                memory.update(ids[0], text="corrected")
                memory.delete(ids[1])
            return lines(items)

        monkeypatch.setattr(consolidate, "lines_of", slow)
        memory.run_jobs()
        (summary,) = live(memory)
        assert (
            summary.sources == (ids[0], *ids[2:])
            and "corrected" in summary.text
            and "event 1" not in summary.text
        )


def test_erasing_a_source_takes_its_words_out_of_the_summary(tmp_path: Path, clock: FixedClock) -> None:
    options = Consolidation(min_events=3)
    with opened(tmp_path / "store", clock, consolidation=options) as memory:
        ids = [
            memory.add(f"event {n} canary{n}", user_id="ann", kind="event", valid_from=START).id
            for n in range(4)
        ]
        memory.run_jobs()
        (summary,) = live(memory)
        memory.add(NewItem(text="profile", kind="summary", sources=(summary.id,)), user_id="ann")
        receipt = memory.erase([ids[2]], user_id="ann")
        assert summary.id in receipt.derived and not receipt.kept
        (new,) = live(memory)
        assert new.sources == (ids[0], ids[1], ids[3]) and "canary2" not in new.text and "canary3" in new.text
        assert not [
            file
            for file in (tmp_path / "store").rglob("*")
            if file.is_file() and b"canary2" in file.read_bytes()
        ]
        memory.erase(user_id="ann")
        assert not live(memory)


# ------------------------------------------------------------------------------------------------ runs


def test_a_run_that_is_stopped_or_killed_goes_on_to_the_same_end(tmp_path: Path, monkeypatch: Any) -> None:
    """Stopped at random places fifty times, also between two changes of one owner."""
    from warpmem.jobs.tools import Turn

    both: dict[str, Any] = {"consolidation": Consolidation(), "forgetting": Forgetting(max_items=40)}

    def contents(memory: Memory) -> list[Any]:
        return sorted(
            (user, item.kind, item.text, len(item.sources), item.valid_from)
            for user in ("ann", "bob", "cem")
            for item in live(memory, user)
        )

    def make(path: Path) -> Memory:
        memory = opened(path, FixedClock(NOW), **both)
        for user in ("ann", "bob", "cem"):
            fill(memory, random.Random(user), 100, user)
        return memory

    with make(tmp_path / "whole") as memory:
        memory.run_jobs()
        whole = contents(memory)
    rng = random.Random(5)
    make(tmp_path / "stopped").close()
    check, stops = Turn.check, 0
    for _ in range(50):
        left = rng.randrange(4)

        def stop(self: Turn) -> None:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1

        monkeypatch.setattr(Turn, "check", stop)
        memory = opened(tmp_path / "stopped", FixedClock(NOW), **both)
        with memory:
            try:
                memory.run_jobs(["consolidate"])
                break
            except KeyboardInterrupt:
                stops += 1
    monkeypatch.setattr(Turn, "check", check)
    assert stops >= 5
    with opened(tmp_path / "stopped", FixedClock(NOW), **both) as memory:
        memory.run_jobs()
        assert contents(memory) == whole
    assert warpmem.verify(tmp_path / "stopped").ok


def test_seconds_stop_a_run_which_says_so_and_goes_on(clock: FixedClock) -> None:
    with opened(None, clock, consolidation=Consolidation()) as memory:
        for user in ("ann", "bob"):
            fill(memory, random.Random(2), 40, user)
        (report,) = memory.run_jobs(seconds=1e-9)
        assert not report.finished and report.owners == 0
        (report,) = memory.run_jobs()
        assert report.finished and report.owners == 2
        assert memory.run_jobs(seconds=timedelta(hours=1))[0].done == {}


def test_a_thread_runs_what_is_configured_and_ends_with_the_store(
    clock: FixedClock, monkeypatch: Any
) -> None:
    from warpmem.jobs.runner import Jobs

    ran = threading.Event()
    run = Jobs.run

    def seen(self: Jobs, names: Any, seconds: Any) -> Any:
        try:
            return run(self, names, seconds)
        finally:
            ran.set()

    repeat = Jobs._repeat
    monkeypatch.setattr(Jobs, "run", seen)
    monkeypatch.setattr(Jobs, "_repeat", lambda self, pause: repeat(self, pause / 6000))
    with opened(None, clock, forgetting=Forgetting(grace_days=0), jobs_minutes=1) as memory:
        memory.add("gone", user_id="ann", expires_at=NOW + timedelta(seconds=1))
        clock.advance(timedelta(seconds=2))
        assert ran.wait(10)
    assert not [thread for thread in threading.enumerate() if thread.name == "warpmem-jobs"]


def test_refusals(tmp_path: Path, clock: FixedClock) -> None:
    with opened(tmp_path / "store", clock) as memory:
        assert memory.run_jobs() == ()
        for wrong in ("forget", 3, ["sleep"], ["forget", 3]):
            with pytest.raises(InputError):
                memory.run_jobs(wrong)  # type: ignore[arg-type]
        for seconds in (0, -1, True, "1", float("nan")):
            with pytest.raises(InputError, match="seconds"):
                memory.run_jobs(["forget"], seconds=seconds)  # type: ignore[arg-type]
        with memory._jobs._running, pytest.raises(Conflict):  # type: ignore[attr-defined]
            memory.run_jobs(["forget"])
    with opened(tmp_path / "store", clock, read_only=True) as memory, pytest.raises(StoreReadOnly):
        memory.run_jobs(["forget"])
    bad: list[dict[str, Any]] = [
        {"forgetting": {"half_life_days": 0}}, {"forgetting": {"min_retention": 2}}, {"jobs_minutes": -1},
        {"forgetting": {"max_items": 0}}, {"forgetting": {"grace": 1}}, {"consolidation": {"min_events": 1}},
        {"consolidation": {"max_events": 999}},
        {"consolidation": {"by": "magic"}}, {"consolidation": {"older_than_days": -1}},
    ]  # fmt: skip
    for options in bad:
        with pytest.raises(InputError):
            opened(None, clock, **options)


def test_a_file_configures_them(tmp_path: Path, clock: FixedClock) -> None:
    (tmp_path / "warpmem.toml").write_text(
        'embedder = "hashing"\n[forgetting]\nmax_items = 1\n[consolidation]\nkinds = ["event"]\n'
    )
    with warpmem.open(None, config=tmp_path / "warpmem.toml", clock=clock) as memory:
        memory.add("one", user_id="ann")
        memory.add("two", user_id="ann")
        assert [report.job for report in memory.run_jobs()] == ["consolidate", "forget"]
        assert len(live(memory)) == 1
        assert memory.count(scope=Scope(user_id="ann")) == 1
