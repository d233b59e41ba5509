"""Deduplication: what says the same becomes one item, by rule, and nothing that says more goes."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import warpmem
from duplicate_oracle import THRESHOLD, Told, deduplicated
from jobs_lives import NOW, START, live, run_with_stops
from warpmem import Memory, NewItem
from warpmem.config import Deduplication, Forgetting
from warpmem.ops.clock import FixedClock

DAY = timedelta(days=1)
_numbers = itertools.count(1000)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


def opened(path: Path | None, clock: FixedClock, **options: Any) -> Memory:
    options = {"near_duplicate": THRESHOLD, "deduplication": Deduplication(), **options}
    return warpmem.open(path, dimension=3, clock=clock, durability="os", **options)


@pytest.fixture
def memory(clock: FixedClock) -> Iterator[Memory]:
    with opened(None, clock) as made:
        yield made


def add(memory: Memory, text: str, vector: tuple[float, ...], **fields: Any) -> str:
    """An item that says what others say already, which an addition would have found."""
    made = memory.add(NewItem(text=f"place {next(_numbers)}", vector=vector, **fields), user_id="ann")
    assert isinstance(made, warpmem.AddResult)
    memory.update(made.id, text=text, vector=vector)
    return made.id


def texts(memory: Memory) -> list[str]:
    return sorted(hit.item.text for hit in memory.search(vector=[1, 0, 0], user_id="ann", k=100))


def test_equal_texts_and_other_wordings_become_one(memory: Memory, clock: FixedClock) -> None:
    first = add(memory, "she likes tea", (1, 0, 0), entities=["x"])
    clock.advance(DAY)
    equal = add(memory, "She  likes tea", (0, 1, 0), entities=["y"], priority=0.9)
    near = add(memory, "she enjoys tea", (1, 0.1, 0))
    other = add(memory, "she enjoys tea at 9", (1, 0.1, 0))
    (report,) = memory.run_jobs()
    assert report.job == "deduplicate" and report.done == {"repeated": 1, "reworded": 1}
    assert texts(memory) == ["she enjoys tea at 9", "she likes tea"]
    item = memory.get(first)
    assert (item.text, item.entities, item.priority) == ("she likes tea", ("x", "y"), 0.9)
    assert memory.history(first)[-1].reason == "joined with what repeated it: 2"
    last = memory.history(equal)[-1]
    assert (last.operation, last.reason) == ("merge", f"repeated: the same text as {first}")
    assert memory.history(near)[-1].reason == f"reworded: near {first}, cosine 0.9950"
    assert memory.get(other).version == 2
    assert memory.run_jobs()[0].done == {}


def test_it_can_be_reverted_and_is_not_done_again(memory: Memory, clock: FixedClock) -> None:
    first = add(memory, "she likes tea", (1, 0, 0))
    second = add(memory, "She likes tea", (1, 0, 0))
    memory.run_jobs()
    assert texts(memory) == ["she likes tea"]
    assert not list(memory.search(vector=[1, 0, 0], user_id="ann", as_of=NOW - DAY))
    memory.revert(second, 2)
    assert memory.run_jobs()[0].done == {} and texts(memory) == ["She likes tea", "she likes tea"]
    assert memory.get(second).expires_at is None and memory.get(first).valid_to is None


def test_what_went_into_another_is_forgotten_in_the_end(clock: FixedClock) -> None:
    with opened(None, clock, forgetting=Forgetting(grace_days=30)) as memory:
        add(memory, "she likes tea", (1, 0, 0))
        second = add(memory, "She likes tea", (1, 0, 0))
        memory.run_jobs()
        clock.advance(29 * DAY)
        memory.run_jobs()
        assert len(live(memory)) == 2
        clock.advance(2 * DAY)
        memory.run_jobs()
        assert len(live(memory)) == 1
        assert [past.reason for past in memory.history(second)][-1] == "expired"


def test_what_went_into_another_pushes_nothing_out(clock: FixedClock) -> None:
    with opened(None, clock, forgetting=Forgetting(max_items=2)) as memory:
        kept = [
            add(memory, "she likes tea", (1, 0, 0), priority=0.9),
            add(memory, "he plays", (0, 1, 0), priority=0.1),
        ]
        for _ in range(3):
            add(memory, "SHE LIKES TEA", (1, 0, 0), priority=0.9)
        assert [report.done for report in memory.run_jobs()] == [{"repeated": 3}, {"crowded": 3}]
        assert [item.id for item in live(memory)] == kept


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"key": "k"}),
        ({}, {"kind": "preference"}),
        ({"kind": "event"}, {"kind": "event"}),
        ({}, {"metadata": {"a": 1}}),
        ({}, {"modality": "code"}),
        ({}, {"valid_to": NOW + DAY}),
        ({"valid_to": NOW - DAY}, {"valid_to": NOW - DAY}),
        ({"expires_at": NOW + DAY}, {"trust": 0.75}),
        ({"trust": 0.75}, {"valid_from": START + DAY}),
        ({"trust": 0.25}, {"trust": 0.25}),
        ({}, {"trust": 0.25}),
        ({"sources": ["crm"]}, {"sources": ["web"]}),
        ({"sources": ["crm"]}, {"trust": 0.75}),
        ({}, {"scope": warpmem.Scope(user_id="ann", agent_id="a")}),
        ({}, {"scope": warpmem.Scope(user_id="bob")}),
    ],
)
def test_what_says_more_than_another_stays(
    memory: Memory, one: dict[str, Any], other: dict[str, Any]
) -> None:
    ids = [
        add(memory, text, (1, 0, 0), **{"valid_from": START, **fields})
        for text, fields in (("she likes tea", one), ("She likes tea", other))
    ]
    before = [memory.get(made) for made in ids]
    assert memory.run_jobs()[0].done == {}
    assert [memory.get(made) for made in ids] == before


def test_the_more_trusted_stays_as_it_is(memory: Memory) -> None:
    less = add(memory, "she likes tea", (1, 0, 0), trust=0.75, priority=1.0, valid_from=START)
    more = add(memory, "She enjoys tea", (1, 0.1, 0), entities=["x"], valid_from=START)
    equal = add(memory, "SHE LIKES TEA", (0, 0, 1), trust=0.75, valid_from=START)
    memory.run_jobs()
    # "She" could be a name.
    assert texts(memory) == ["She enjoys tea", "she likes tea"]
    memory.update(more, text="she enjoys tea", vector=(1, 0.1, 0))
    memory.run_jobs()
    assert texts(memory) == ["she enjoys tea"]
    assert memory.get(more).version == 3 and memory.get(more).priority == 0.5
    assert {memory.history(one)[-1].operation for one in (less, equal)} == {"merge"}


def test_what_a_source_took_part_in_is_found_by_its_erasure(memory: Memory) -> None:
    sources = [add(memory, f"message {n}", (0, 0, 1), kind="message") for n in range(2)]
    facts = [add(memory, "she likes tea", (1, 0, 0), sources=[source]) for source in sources]
    memory.run_jobs()
    assert memory.get(facts[0]).sources == tuple(sources)
    receipt = memory.erase([sources[0]], user_id="ann")
    assert facts[0] in receipt.kept and memory.get(facts[0]).sources == (sources[1],)
    memory.erase([sources[1]], user_id="ann")
    assert not live(memory)


@pytest.mark.parametrize("most", [4096, 32])
def test_everything_near_is_found_however_much_there_is(
    memory: Memory, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """More of it than the scan is asked for at first, or may be asked for at all, and than one change has."""
    from warpmem.jobs import deduplicate

    monkeypatch.setattr(deduplicate, "MAX_K", most)
    monkeypatch.setattr(deduplicate, "_STEP", 20)
    for n in range(150):
        add(memory, f"she likes tea {'very ' * n}much", (1, n / 1000, 0))
    assert memory.run_jobs()[0].done == {"reworded": 149}
    assert len(texts(memory)) == 1


# ------------------------------------------------------------------------------------------- the oracle


def _random_items(memory: Memory, rng: random.Random, count: int) -> tuple[list[Told], set[str]]:
    """Items that often say the same, and which of their sources are items."""
    messages = [add(memory, f"message {n}", (0, 0, 1), kind="message") for n in range(3)]
    told = []
    for _ in range(count):
        angle = rng.randrange(12) * 0.11
        vector = (math.cos(angle), math.sin(angle), 0.0)
        text = rng.choice(["she likes tea", "SHE likes tea", "she enjoys Tea", "tea at 9", "Tea at 9", "tea"])
        sources = tuple(rng.sample([*messages, "crm"], rng.choice([0, 0, 1, 2])))
        item = Told(
            id="", text=text, vector=vector,
            kind=rng.choices(["fact", "preference", "event"], [8, 1, 1])[0],
            agent=rng.choices([None, "a"], [5, 1])[0],
            tag=rng.choices([0, 1], [6, 1])[0],
            key=rng.choices([None, f"key {len(told)}"], [12, 1])[0],
            trust=rng.choices([1.0, 0.75, 0.25], [6, 4, 1])[0],
            sources=sources, entities=tuple(rng.sample(["x", "y", "z"], rng.randrange(3))),
            priority=rng.choice([0.25, 0.5, 0.75]),
            begins=rng.choice([0, 1, 2, 200]), ends=rng.choices([None, 100, 300], [8, 1, 1])[0],
            expires=rng.choices([None, 201, 250], [4, 1, 1])[0],
        )  # fmt: skip
        if item.ends is not None and item.begins > item.ends:
            continue
        made = add(
            memory, text, vector, kind=item.kind, key=item.key, trust=item.trust, sources=sources,
            scope=warpmem.Scope(user_id="ann", agent_id=item.agent),
            metadata={"tag": item.tag}, entities=item.entities, priority=item.priority,
            valid_from=START + item.begins * DAY,
            valid_to=None if item.ends is None else START + item.ends * DAY,
            expires_at=None if item.expires is None else START + item.expires * DAY,
        )  # fmt: skip
        told.append(Told(**{**item.__dict__, "id": made}))
    return told, set(messages)


def _read(memory: Memory, told: Told) -> Told:
    """The item as the store has it now."""
    item = memory.get(told.id)
    into = None
    if item.valid_to == item.valid_from and memory.history(told.id)[-1].operation == "merge":
        (into,) = [
            word.rstrip(",") for word in str(memory.history(told.id)[-1].reason).split() if len(word) > 30
        ]
        return Told(**{**told.__dict__, "into": into})
    expires = None if item.expires_at is None else (item.expires_at - START).days
    return Told(
        **{
            **told.__dict__, "text": item.text, "sources": item.sources, "entities": item.entities,
            "priority": item.priority, "trust": item.trust, "expires": expires,
        }
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_as_the_oracle(seed: int) -> None:
    rng = random.Random(seed)
    clock = FixedClock(START + 150 * DAY)
    with opened(None, clock) as memory:
        told, messages = _random_items(memory, rng, 40)
        memory.run_jobs()
        wanted = deduplicated(told, 150, messages)
        assert [_read(memory, one) for one in told] == wanted
        assert any(one.into for one in wanted)
        assert memory.run_jobs()[0].done == {}


def test_stopped_anywhere_it_goes_on_to_the_same_end(tmp_path: Path, monkeypatch: Any) -> None:
    clock, rng = FixedClock(START + 150 * DAY), random.Random(7)
    with opened(tmp_path / "store", clock) as memory:
        told, messages = _random_items(memory, rng, 80)
    stops = run_with_stops(lambda: opened(tmp_path / "store", clock), None, rng, monkeypatch)
    assert stops >= 5
    with opened(tmp_path / "store", clock) as memory:
        memory.run_jobs()
        assert [_read(memory, one) for one in told] == deduplicated(told, 150, messages)
    assert warpmem.verify(tmp_path / "store").ok
