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
from duplicate_oracle import THRESHOLD, Told, ended
from jobs_lives import NOW, START, live, run_with_stops, stop_early
from warpmem import Memory, NewItem
from warpmem.config import Deduplication, Forgetting
from warpmem.ops.clock import FixedClock
from warpmem.ops.ids import parse_id

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
    before = memory.get(first)
    (report,) = memory.run_jobs()
    assert report.job == "deduplicate" and report.done == {"repeated": 1, "reworded": 1}
    assert texts(memory) == ["she enjoys tea at 9", "she likes tea"]
    assert memory.get(first) == before
    last = memory.history(equal)[-1]
    assert (last.operation, last.reason) == ("merge", "repeated: an item that stays has the same text")
    assert memory.history(near)[-1].reason == "reworded: an item that stays is near, cosine 0.9950"
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
    memory.update(second, priority=0.9)
    assert memory.run_jobs()[0].done == {}, "nor when it is changed later"


def test_what_has_ended_is_forgotten_in_the_end(clock: FixedClock) -> None:
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


def test_what_has_ended_counts_for_nothing_and_stays_until_its_grace_is_over(clock: FixedClock) -> None:
    """It was deleted as too much in the same run, and could not be reverted."""
    rules = Forgetting(max_items=2, min_retention=0.05, half_life_days=1, grace_days=30)
    with opened(None, clock, forgetting=rules) as memory:
        kept = [
            add(memory, "she likes tea", (1, 0, 0), priority=0.9),
            add(memory, "he plays", (0, 1, 0), priority=0.1),
        ]
        ended = [add(memory, "SHE LIKES TEA", (1, 0, 0), priority=0.01) for _ in range(3)]
        assert [report.done for report in memory.run_jobs()] == [{"repeated": 3}, {}]
        assert [item.id for item in live(memory)] == [*kept, *ended]
        memory.revert(ended[0], 2)
        assert texts(memory) == ["SHE LIKES TEA", "he plays", "she likes tea"]
        assert [report.done for report in memory.run_jobs()] == [{}, {"faded": 1}]


@pytest.mark.parametrize("whose", ["ann", "bob"])
def test_what_has_ended_stays_while_something_cites_it(clock: FixedClock, whose: str) -> None:
    """`forget` deletes what has expired, cited or not; but here it was not the caller who let it expire."""
    with opened(None, clock, forgetting=Forgetting(grace_days=0)) as memory:
        add(memory, "she likes tea", (1, 0, 0))
        told = add(memory, "She likes tea", (1, 0, 0))
        new = NewItem(text="drinks", vector=(0, 1, 0), kind="preference", sources=(told,))
        derived = memory.add(new, user_id=whose)
        assert isinstance(derived, warpmem.AddResult)
        assert [report.done for report in memory.run_jobs()] == [{"repeated": 1}, {}]
        memory.revert(told, 2)
        memory.update(told, expires_at=NOW - DAY)
        memory.run_jobs()
        assert memory.history(told)[-1].operation == "delete", "what the caller lets expire goes"


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
        ({"sources": ["crm"]}, {"sources": ["crm", "web"]}),
        ({"sources": ["crm"]}, {"trust": 0.75}),
        ({"expires_at": NOW + DAY}, {"valid_from": START + DAY}),
        ({"trust": 0.75, "valid_to": NOW + DAY}, {}),
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


def test_a_source_takes_nothing_that_another_still_tells(memory: Memory) -> None:
    """Two facts became one that named both messages; revoking the less trusted one took it."""
    sources = [
        add(memory, f"message {n}", (0, 0, 1), kind="message", trust=trust)
        for n, trust in enumerate((1.0, 0.75))
    ]
    facts = [add(memory, "she likes tea", (1, 0, 0), sources=[source]) for source in sources]
    again = add(memory, "She likes tea", (1, 0, 0), sources=sources[:1])
    assert memory.run_jobs()[0].done == {"repeated": 1} and memory.history(again)[-1].operation == "merge"
    memory.revoke(sources[1])
    assert memory.get(facts[0]).sources == (sources[0],) and not memory.get(facts[0]).quarantined
    memory.reinstate(sources[1])
    memory.erase([sources[0]], user_id="ann")
    assert {item.id for item in live(memory)} == {facts[1], sources[1]}


def test_what_stands_by_itself_outlives_the_sources_of_its_repetitions(memory: Memory) -> None:
    message = add(memory, "message", (0, 0, 1), kind="message")
    told = add(memory, "she likes tea", (1, 0, 0), sources=[message])
    alone = add(memory, "She likes tea", (1, 0, 0), valid_from=memory.get(told).valid_from)
    before = memory.get(alone)
    assert memory.run_jobs()[0].done == {"repeated": 1}
    memory.erase([message], user_id="ann")
    assert live(memory) == [before]


def test_nothing_of_what_is_erased_stays_in_what_said_the_same(tmp_path: Path, clock: FixedClock) -> None:
    """What ended left its entities in what stayed, and the id of that stood in its own history."""
    path = tmp_path / "store"

    def holding(*words: bytes) -> bool:
        files = [file.read_bytes() for file in path.rglob("*") if file.is_file()]
        return any(word in file for word in words for file in files)

    with opened(path, clock) as memory:
        first = add(memory, "she likes tea", (1, 0, 0), entities=["tea"])
        second = add(memory, "She likes tea", (1, 0, 0), entities=["CanaryClinic"], priority=0.9)
        third = add(memory, "SHE likes tea", (1, 0, 0))
        assert memory.run_jobs()[0].done == {"repeated": 2}
        names = first.encode(), parse_id(first)
        assert holding(b"CanaryClinic") and holding(*names)
        memory.erase([second], user_id="ann")
        assert not holding(b"CanaryClinic")
        assert (memory.get(first).entities, memory.get(first).priority) == (("tea",), 0.5)
        memory.erase([first], user_id="ann")
        assert not holding(*names) and not texts(memory)
        memory.revert(third, 2)
        assert texts(memory) == ["SHE likes tea"]


def test_what_can_never_end_for_each_other_is_not_compared(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pairs of what was near were compared in full, however their metadata, sources or lives differed."""
    from warpmem.jobs import deduplicate

    compared: list[Any] = []
    asked: list[int] = []
    stands_for, near = deduplicate.stands_for, deduplicate.Deduplicate._near
    monkeypatch.setattr(
        deduplicate, "stands_for", lambda *ranks: compared.append(ranks) or stands_for(*ranks)
    )

    def counted(self: Any, tools: Any, owner: int, records: Any) -> Any:
        asked.append(len(records))
        return near(self, tools, owner, records)

    monkeypatch.setattr(deduplicate.Deduplicate, "_near", counted)
    for n in range(40):
        add(memory, "she likes tea", (1, n / 1000, 0), metadata={"n": n}, valid_from=START)
        add(memory, f"he plays {'very ' * n}well", (1, n / 1000, 0), blob=f"blob {n}", valid_from=START)
        add(memory, "tea", (1, n / 1000, 0), sources=[f"place {n}"], valid_from=START)
        life = {"valid_from": START + n * DAY, "expires_at": NOW + (n + 1) * DAY}
        add(memory, f"she sings {'very ' * n}well", (1, n / 1000, 0), **life)
    assert memory.run_jobs()[0].done == {}
    assert not compared and not sum(asked)


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


def _random_items(memory: Memory, rng: random.Random, count: int) -> list[Told]:
    """Items that often say the same."""
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
    return told


def _ended(memory: Memory, told: list[Told], before: dict[str, warpmem.MemoryItem]) -> set[str]:
    """The ids of those that have ended; the others are what they were."""
    now = {one.id: memory.get(one.id) for one in told}
    gone = {one.id for one in told if memory.history(one.id)[-1].operation == "merge"}
    for name, item in now.items():
        assert (item.valid_to == item.valid_from) if name in gone else (item == before[name])
    return gone


@pytest.mark.parametrize("seed", range(12))
def test_as_the_oracle(seed: int) -> None:
    rng = random.Random(seed)
    clock = FixedClock(START + 150 * DAY)
    with opened(None, clock) as memory:
        told = _random_items(memory, rng, 40)
        before = {one.id: memory.get(one.id) for one in told}
        memory.run_jobs()
        wanted = ended(told, 150)
        assert _ended(memory, told, before) == wanted and wanted
        assert memory.run_jobs()[0].done == {}


def test_stopped_anywhere_it_goes_on_to_the_same_end(tmp_path: Path, monkeypatch: Any) -> None:
    from warpmem.jobs import deduplicate

    monkeypatch.setattr(deduplicate, "_TOGETHER", 1)
    monkeypatch.setattr(deduplicate, "_STEP", 1)
    clock, rng = FixedClock(START + 150 * DAY), random.Random(7)
    with opened(tmp_path / "store", clock) as memory:
        told = _random_items(memory, rng, 80)
        before = {one.id: memory.get(one.id) for one in told}
    stops = run_with_stops(lambda: opened(tmp_path / "store", clock), None, rng, monkeypatch)
    assert stops >= 5
    with opened(tmp_path / "store", clock) as memory:
        assert _ended(memory, told, before) == ended(told, 150)
        assert memory.run_jobs()[0].done == {}
    assert warpmem.verify(tmp_path / "store").ok


def test_each_run_gets_further_within_an_owner(tmp_path: Path, monkeypatch: Any) -> None:
    """A run that was stopped began with the owner's first item again, so with little time none ever ended."""
    clock, runs = FixedClock(NOW), 0
    with opened(tmp_path / "store", clock, near_duplicate=0.99999) as memory:
        angles = [n * math.tau / 300 for n in range(300)]
        new = [
            NewItem(text=f"tea {'very ' * n}much", vector=(math.cos(angle), math.sin(angle), 0))
            for n, angle in enumerate(angles)
        ]
        memory.add_many(new, user_id="ann")
        last = [add(memory, "at the end", (0, 0, 1)) for _ in range(2)]
    finished = False
    with monkeypatch.context() as patched:
        stop_early(patched)
        while not finished and runs < 20:
            with opened(tmp_path / "store", clock, near_duplicate=0.99999) as memory:
                finished, runs = memory.run_jobs()[0].finished, runs + 1
    with opened(tmp_path / "store", clock) as memory:
        assert finished and runs > 4 and memory.history(last[1])[-1].operation == "merge"


def test_where_the_item_is_gone_at_which_a_run_stopped_the_next_begins_with_the_owner(
    clock: FixedClock, monkeypatch: Any
) -> None:
    from warpmem.jobs import deduplicate

    monkeypatch.setattr(deduplicate, "_TOGETHER", 1)
    with opened(None, clock) as memory:
        said = [add(memory, f"tea {n // 2}", (1, 0, 0), valid_from=START) for n in range(4)]
        with monkeypatch.context() as patched:
            stop_early(patched)
            assert memory.run_jobs()[0].done == {"repeated": 1}
        memory.erase([said[0]], user_id="ann")
        memory.add(NewItem(text="TEA 1", vector=(1, 0, 0), metadata={"n": 1}), user_id="ann")
        assert memory.run_jobs()[0].done == {"repeated": 2}
