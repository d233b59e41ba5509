"""Reflection: a profile says what is known now, by whose words, and nothing that was taken back."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

import warpmem
from jobs_lives import NOW, live, opened, run_with_stops
from warpmem import Memory, NewItem, Scope
from warpmem.config import Consolidation, Forgetting, Reflection
from warpmem.errors import InputError, ModelUnavailable
from warpmem.ops.clock import FixedClock
from warpmem.reason.fakes import ScriptedLanguageModel
from warpmem.types import Budget

DAY = timedelta(days=1)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def memory(clock: FixedClock) -> Iterator[Memory]:
    with opened(None, clock, reflection=Reflection()) as made:
        yield made


def add(memory: Memory, text: str, user: str = "ann", **fields: Any) -> str:
    made = memory.add(NewItem(text=text, **fields), user_id=user)
    assert isinstance(made, warpmem.AddResult)
    return made.id


def profiles(memory: Memory, user: str = "ann") -> list[warpmem.MemoryItem]:
    return list(memory.list(user_id=user, kinds=["profile"], include_past=True, quarantined=True))


def answer(text: str) -> str:
    return json.dumps({"summary": text})


def test_a_profile_says_what_holds_now_and_cites_it(memory: Memory) -> None:
    lives = add(memory, "lives in Lisbon", key="home", valid_from=NOW - 9 * DAY)
    likes = add(memory, "likes tea", kind="preference", priority=0.9, entities=["tea"])
    plays = add(memory, "plays the oboe")
    add(memory, "said hello", kind="message")
    add(memory, "worked at sea", valid_from=NOW - 9 * DAY, valid_to=NOW - DAY)
    add(memory, "is on leave", expires_at=NOW + DAY)
    add(memory, "is a spy", trust=0.25)
    (report,) = memory.run_jobs()
    assert report.job == "reflect" and report.finished and report.done == {"profiles": 1}
    (profile,) = profiles(memory)
    assert profile.text == "2026-06-06: lives in Lisbon\n2026-06-15: likes tea\n2026-06-15: plays the oboe"
    assert set(profile.sources) == {lives, likes, plays} and profile.sources[0] == likes
    assert (profile.priority, profile.entities, profile.valid_from) == (0.9, ("tea",), NOW)
    assert memory.search("what does she like", user_id="ann", kinds=["profile"])[0].item.id == profile.id


def test_it_is_written_anew_only_when_its_facts_changed(memory: Memory, clock: FixedClock) -> None:
    for text in ("lives in Lisbon", "likes tea"):
        add(memory, text, key=text.split()[0])
    plays = add(memory, "plays the oboe")
    memory.run_jobs()
    (first,) = profiles(memory)
    clock.advance(DAY)
    add(memory, "plays the oboe")  # a repetition touches it
    add(memory, "played all night", kind="event")
    assert memory.run_jobs()[0].done == {} and profiles(memory) == [first]
    add(memory, "lives in Porto", key="lives")
    assert memory.run_jobs()[0].done == {"rewritten": 1}
    (second,) = profiles(memory)
    assert (second.id, second.version, second.valid_from) == (first.id, 2, NOW + DAY)
    assert "Porto" in second.text and "Lisbon" not in second.text
    assert memory.history(first.id)[-1].reason == "reflected: its facts are not what they were"
    assert "Lisbon" in memory.revert(first.id, 1).text
    memory.delete(first.id)
    memory.delete(plays)
    assert memory.run_jobs()[0].done == {}


def test_without_enough_facts_it_goes(memory: Memory) -> None:
    ids = [add(memory, f"fact {n}") for n in range(3)]
    memory.run_jobs()
    (profile,) = profiles(memory)
    memory.delete(ids[0])
    assert memory.run_jobs()[0].done == {"removed": 1} and not profiles(memory)
    assert memory.history(profile.id)[-1].reason == "reflected: too few facts are left"


def test_an_agent_has_its_own_and_a_run_has_none(memory: Memory) -> None:
    for agent, run in ((None, None), ("a", None), ("b", None), ("a", "r")):
        for n in range(3):
            scope = Scope(user_id="ann", agent_id=agent, run_id=run)
            memory.add(f"{agent} and {run} know {n}", scope=scope)
    memory.run_jobs()
    made = profiles(memory)
    assert {item.scope.agent_id for item in made} == {None, "a", "b"} and len(made) == 3
    for item in made:
        assert item.text.count(f"{item.scope.agent_id} and None know") == 3 == item.text.count("know")


def test_it_has_room_for_what_matters_most(clock: FixedClock) -> None:
    options = Reflection(max_facts=4, max_tokens=40)
    with opened(None, clock, reflection=options, tokenizer="estimate") as memory:
        ids = [add(memory, f"fact number {n}", priority=n / 10) for n in range(10)]
        add(memory, "long " * 100, priority=1.0)
        memory.run_jobs()
        (profile,) = profiles(memory)
        assert profile.sources == tuple(reversed(ids[-len(profile.sources) :]))
        assert 1 <= len(profile.sources) <= 3


def test_a_language_model_words_it_in_one_call_for_each_owner(clock: FixedClock) -> None:
    answers = [answer("Ann likes tea."), "no JSON", answer("x" * 10_000), ModelUnavailable("down", 1.0)]
    model = ScriptedLanguageModel(answers)
    with opened(None, clock, reflection=Reflection(), language_model=model) as memory:
        users = ("ann", "bob", "cem", "dan")
        for user in users:
            for n in range(3):
                add(memory, f"{user} likes tea {n}", user)
        (report,) = memory.run_jobs()
        assert report.done == {"profiles": 4, "without the model": 3}
        made = [profiles(memory, user)[0] for user in users]
        assert made[0].text == "Ann likes tea."
        assert [item.metadata["reflected"]["by"] for item in made] == ["scripted", *["extract"] * 3]
        assert len(model.calls) == 4
        notes = json.loads(model.calls[0].messages[1].content)
        assert notes == {"notes": [f"2026-06-15: ann likes tea {n}" for n in range(3)]}
        assert memory.run_jobs()[0].done == {} and len(model.calls) == 4
        costs = memory.costs(user_id="ann", since=date(2026, 1, 1), by=("job", "model"))
        assert [cost.calls for cost in costs if (cost.job, cost.model) == ("reflect", "scripted")] == [1]


def test_its_budget_stops_it_until_the_day_is_over(clock: FixedClock) -> None:
    model = ScriptedLanguageModel([answer("one"), answer("two")])
    budgets = {"reflect": Budget(device_seconds=1e-9)}
    with opened(None, clock, reflection=Reflection(), language_model=model, job_budgets=budgets) as memory:
        for user in ("ann", "bob"):
            for n in range(3):
                add(memory, f"{user} {n}", user)
        (report,) = memory.run_jobs()
        assert (report.finished, report.failure) == (False, "Overloaded") and len(model.calls) == 1
        clock.advance(DAY)
        (report,) = memory.run_jobs()
        assert report.finished and report.done == {"profiles": 2} and len(model.calls) == 2


def test_by_model_wants_one(clock: FixedClock) -> None:
    with opened(None, clock, reflection=Reflection(by="model")) as memory:
        for n in range(3):
            add(memory, f"fact {n}")
        assert memory.run_jobs()[0].done == {"owners that failed": 1} and not profiles(memory)
    for options in ({"min_facts": 0}, {"max_facts": 500}, {"max_tokens": 1}, {"by": "magic"}, {"more": 1}):
        with pytest.raises(InputError):
            opened(None, clock, reflection=options)


def test_what_somebody_has_corrected_stays_his(memory: Memory) -> None:
    for n in range(3):
        add(memory, f"fact {n}")
    memory.run_jobs()
    (profile,) = profiles(memory)
    memory.update(profile.id, text="what somebody made of it")
    fact = add(memory, "fact 3")
    assert memory.run_jobs()[0].done == {}
    assert [item.text for item in profiles(memory)] == ["what somebody made of it"]
    assert profile.id in memory.erase([profile.sources[0]]).kept
    memory.delete(profile.id)
    memory.run_jobs()
    assert fact in profiles(memory)[0].sources


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_what_somebody_has_corrected_outlives_a_revocation(memory: Memory, when: str) -> None:
    """A version for a revoked source, or for one that is believed again, was taken for the job's own."""
    for n in range(3):
        add(memory, f"crm says {n}", sources=["crm"])
    add(memory, "web says it", sources=["web"])
    memory.run_jobs()
    (profile,) = profiles(memory)
    if when == "before":
        memory.update(profile.id, text="what somebody made of it")
    memory.revoke("web")
    if when == "meanwhile":
        memory.update(profile.id, text="what somebody made of it")
    memory.reinstate("web")
    add(memory, "crm says more", sources=["crm"])
    assert memory.run_jobs()[0].done == {}
    assert profile.id in memory.erase([profile.sources[0]]).kept
    assert [(item.text, item.trust) for item in profiles(memory)] == [("what somebody made of it", 1.0)]


def test_what_is_trusted_less_neither_crowds_out_nor_contradicts(clock: FixedClock) -> None:
    """Facts of high priority left no room for trusted ones, and the later of two notes was said to hold."""
    model = ScriptedLanguageModel([answer("Ann says 0 to 4."), answer("Ann says 1 to 5.")])
    with opened(None, clock, reflection=Reflection(), language_model=model) as memory:
        ids = [add(memory, f"ann says {n}") for n in range(5)]
        memory.run_jobs()
        before = profiles(memory)
        clock.advance(DAY)
        for n in range(128):
            add(memory, f"ann no longer says {n}", trust=0.75, sources=["web"], priority=1.0)
        assert memory.run_jobs()[0].done == {} and profiles(memory) == before
        add(memory, "ann says 5")
        memory.update(ids[0], trust=0.75)
        assert memory.run_jobs()[0].done == {"rewritten": 1}
        (profile,) = profiles(memory)
        notes = json.loads(model.calls[-1].messages[1].content)["notes"]
        assert [note[-10:] for note in notes] == [f"ann says {n}" for n in range(1, 6)]
        assert profile.trust == 1.0 and set(ids[1:]) < set(profile.sources)
        memory.update(ids[1], trust=0.75)
        memory.erase([ids[2]])
        (profile,) = profiles(memory)
        assert profile.trust == 1.0 and not {ids[1], ids[2]}.intersection(profile.sources)


def test_a_fact_whose_id_is_revoked_takes_no_profile_with_it(memory: Memory) -> None:
    """The next profile named it again, so that it was in quarantine too, and so was every one after it."""
    ids = [add(memory, f"fact {n}") for n in range(5)]
    memory.run_jobs()
    memory.revoke(ids[0])
    assert profiles(memory)[0].quarantined
    assert memory.run_jobs()[0].done == {"rewritten": 1}
    (profile,) = profiles(memory)
    assert not profile.quarantined and set(profile.sources) == set(ids[1:])
    memory.erase([ids[1]])
    assert [set(item.sources) for item in profiles(memory)] == [set(ids[2:])]
    memory.reinstate(ids[0])
    memory.run_jobs()
    assert ids[0] in profiles(memory)[0].sources


def test_a_revoked_source_is_believed_no_more_in_it_either(memory: Memory) -> None:
    for n in range(3):
        add(memory, f"crm says {n}", sources=["crm"])
        add(memory, f"web says {n}", sources=["web"])
    memory.run_jobs()
    memory.revoke("web")
    assert profiles(memory)[0].quarantined, "until it is written without"
    memory.run_jobs()
    (profile,) = profiles(memory)
    assert not profile.quarantined and "web" not in profile.text and "crm" in profile.sources
    memory.reinstate("web")
    memory.run_jobs()
    assert profiles(memory)[0].text.count("web says") == 3


def test_erasing_a_fact_takes_its_words_out_of_every_version(tmp_path: Path, clock: FixedClock) -> None:
    with opened(tmp_path / "store", clock, reflection=Reflection()) as memory:
        ids = [add(memory, f"fact {n} canary{n}") for n in range(4)]
        memory.run_jobs()
        (old,) = profiles(memory)
        memory.update(ids[1], text="what was fact one")
        memory.run_jobs()
        receipt = memory.erase([ids[2]], user_id="ann")
        assert old.id in receipt.derived and not receipt.kept
        (new,) = profiles(memory)
        assert new.id != old.id and set(new.sources) == {ids[0], ids[1], ids[3]}
        assert "canary3" in new.text and "was fact one" in new.text
        memory.delete(ids[3])
        assert memory.run_jobs()[0].done == {"removed": 1}
        memory.erase([ids[0], ids[1], ids[3]], user_id="ann")
        assert not live(memory)
        for file in (tmp_path / "store").rglob("*"):
            assert not file.is_file() or b"canary" not in file.read_bytes()


def test_erasing_an_event_takes_its_words_out_of_a_profile_of_summaries(
    tmp_path: Path, clock: FixedClock
) -> None:
    """Only what named the event itself was made anew, not what was made of that."""
    options: dict[str, Any] = {
        "consolidation": Consolidation(min_events=2, outliers=0),
        "reflection": Reflection(kinds=("event", "fact", "summary"), min_facts=1),
    }
    with opened(tmp_path / "store", clock, **options) as memory:
        then = NOW - 100 * DAY
        old = [add(memory, f"event {n} canary{n}", kind="event", valid_from=then) for n in range(4)]
        ids = [old[3], add(memory, "a fact with canary3"), add(memory, "a fact")]
        memory.run_jobs()
        (before,) = profiles(memory)
        assert "canary1" in before.text and "canary3" in before.text
        receipt = memory.erase(ids[:2])
        (profile,) = profiles(memory)
        assert before.id in receipt.derived and not receipt.kept
        assert profile.sources == (ids[2],) and profile.text == "2026-06-15: a fact"
        for file in (tmp_path / "store").rglob("*"):
            assert not file.is_file() or b"canary3" not in file.read_bytes()
        memory.run_jobs()
        (profile,) = profiles(memory)
        assert "canary1" in profile.text and "canary3" not in profile.text
        assert len(receipt.derived) == 2  # the summary and the profile; none was made for nothing


def test_it_is_kept_and_keeps_nothing(clock: FixedClock) -> None:
    with opened(None, clock, reflection=Reflection(), forgetting=Forgetting(max_items=2)) as memory:
        ids = [add(memory, f"fact {n}", priority=n / 10) for n in range(4)]
        memory.run_jobs(["reflect"])
        assert memory.run_jobs(["forget"])[0].done == {"crowded": 2}
        assert {item.id for item in live(memory) if item.kind == "fact"} == set(ids[2:])
        assert len(profiles(memory)) == 1


def test_stopped_anywhere_it_goes_on_to_the_same_end(tmp_path: Path, monkeypatch: Any) -> None:
    users = [f"user {n}" for n in range(8)]

    def contents(memory: Memory) -> list[Any]:
        return [(item.text, len(item.sources)) for user in users for item in profiles(memory, user)]

    def make(path: Path) -> None:
        with opened(path, FixedClock(NOW), reflection=Reflection()) as memory:
            rng = random.Random(1)
            for user in users:
                for n in range(rng.randrange(2, 6)):
                    add(memory, f"{user} says {n}", user, priority=rng.random())

    make(tmp_path / "whole")
    with opened(tmp_path / "whole", FixedClock(NOW), reflection=Reflection()) as memory:
        memory.run_jobs()
        whole = contents(memory)
    make(tmp_path / "stopped")
    stops = run_with_stops(
        lambda: opened(tmp_path / "stopped", FixedClock(NOW), reflection=Reflection()),
        None, random.Random(2), monkeypatch,
    )  # fmt: skip
    assert stops >= 5
    with opened(tmp_path / "stopped", FixedClock(NOW), reflection=Reflection()) as memory:
        memory.run_jobs()
        assert contents(memory) == whole and memory.run_jobs()[0].done == {}
    assert warpmem.verify(tmp_path / "stopped").ok
