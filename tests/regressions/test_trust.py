"""Faults by which what is believed less took what is believed more with it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta

import pytest

import warpmem
from queued import START
from scripted_extraction import ReadingModel
from scripted_extraction import memory as said
from warpmem import Memory, NewItem
from warpmem.memory.documents import Document, Documents
from warpmem.ops.clock import FixedClock

DAY = timedelta(days=1)
WEB = "web:example.org"
GUIDE = "# Door\n\nThe door code is 4711.\n\n# Lunch\n\nLunch is at noon in the hall.\n"
FALSE = "# Door\n\nThe door code is 6666.\n"


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(START)


@pytest.fixture
def memory(clock: FixedClock) -> Iterator[Memory]:
    with warpmem.open(embedder="hashing", clock=clock) as memory:
        yield memory


def texts(memory: Memory) -> list[str]:
    return [item.text for item in memory.list(user_id="u")]


def edition(memory: Memory, text: str, **fields: object) -> warpmem.DocumentResult:
    return memory.add_document(text, name="guide", user_id="u", max_tokens=16, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("fields", [{"trust": 0.0}, {"sources": [WEB]}])
def test_a_hidden_edition_changes_nothing_of_a_trusted_document(
    memory: Memory, clock: FixedClock, fields: dict[str, object]
) -> None:
    """It took the place of the document and its chunks, which were in quarantine then, or ended."""
    first = edition(memory, GUIDE, sources=["house"])
    before = texts(memory)
    memory.revoke(WEB)
    clock.advance(DAY)
    hidden = edition(memory, FALSE, **fields)
    assert texts(memory) == before and not {first.id, *first.chunks} & {hidden.id, *hidden.chunks}
    assert edition(memory, FALSE, **fields).chunks == hidden.chunks
    clock.advance(DAY)
    again = edition(memory, GUIDE, sources=["house"])
    assert (again.id, again.chunks, again.added, again.moved) == (first.id, first.chunks, 0, 0)
    assert all(memory.get(one).quarantined for one in (hidden.id, *hidden.chunks))


@pytest.mark.parametrize("fields", [{"trust": 0.0}, {"trust": 0.0, "sources": [WEB]}])
def test_a_hidden_edition_leaves_what_another_source_said_in_quarantine(
    memory: Memory, clock: FixedClock, fields: dict[str, object]
) -> None:
    """What the revoked source had said was rewritten there or ended, and came back so."""
    first = edition(memory, GUIDE, sources=[WEB])
    before = [memory.get(one) for one in (first.id, *first.chunks)]
    memory.revoke(WEB)
    clock.advance(DAY)
    edition(memory, FALSE, **fields)
    for item in before:
        now = memory.get(item.id)
        assert (now.text, now.metadata, now.sources) == (item.text, item.metadata, item.sources)
    assert memory.get(first.chunks[-1]).valid_to is None


def test_an_edition_that_is_believed_later_leaves_no_chunk_behind(memory: Memory, clock: FixedClock) -> None:
    """Chunks of the trusted document with numbers that the edition does not have would be found for ever."""
    edition(memory, GUIDE)
    memory.revoke(WEB)
    clock.advance(DAY)
    edition(memory, FALSE, sources=[WEB])
    memory.reinstate(WEB)
    clock.advance(DAY)
    edition(memory, FALSE, sources=[WEB])
    assert not any("Lunch is" in text for text in texts(memory))


def test_a_hidden_value_of_its_name_does_not_keep_a_document_out(memory: Memory) -> None:
    """Whoever may add values of no trust could refuse a name to everybody."""
    memory.add(NewItem(text="no document", key="guide", trust=0.0), user_id="u")
    assert len(edition(memory, GUIDE).chunks) == 4


def test_a_source_that_is_revoked_while_its_edition_comes_changes_nothing(
    memory: Memory, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was trusted when its document was looked for, and no more when it was stored."""
    first = edition(memory, GUIDE)
    clock.advance(DAY)
    known = Documents._known

    def then_revoked(documents: Documents, document: Document) -> object:
        found = known(documents, document)
        if not memory.revoked():
            memory.revoke(WEB)
        return found

    monkeypatch.setattr(Documents, "_known", then_revoked)
    assert edition(memory, FALSE, sources=[WEB]).id != first.id
    assert not any(memory.get(one).quarantined for one in (first.id, *first.chunks))


def add(memory: Memory, text: str, **fields: object) -> str:
    result = memory.add(NewItem(text=text, **fields), user_id="u")  # type: ignore[arg-type]
    assert isinstance(result, warpmem.AddResult)
    return result.id


@pytest.mark.parametrize("first", [True, False])
def test_a_value_that_comes_back_is_not_ended_by_one_of_no_trust(
    memory: Memory, clock: FixedClock, first: bool
) -> None:
    """It kept the end that the other had given it in quarantine, so neither was found."""
    rome = add(memory, "Lives in Rome", key="city", sources=[WEB])
    clock.advance(DAY)
    if first:
        add(memory, "Lives in Oslo", key="city", trust=0.25)
    memory.revoke(WEB)
    clock.advance(DAY)
    if not first:
        add(memory, "Lives in Oslo", key="city", trust=0.25)
    assert memory.get(rome).valid_to is not None
    memory.reinstate(WEB)
    assert texts(memory) == ["Lives in Rome"] and memory.get(rome).valid_to is None


def test_a_value_that_comes_to_be_believed_is_not_ended_by_one_of_no_trust(
    memory: Memory, clock: FixedClock
) -> None:
    rome = add(memory, "Lives in Rome", key="city", trust=0.25)
    own = memory.get(rome).valid_from + 9 * DAY
    for number in (3, 2, 1):
        begins = memory.get(rome).valid_from + number * DAY
        add(memory, f"Lives in Oslo {number}", key="city", trust=0.0, valid_from=begins)
        if number == 3:
            memory.update(rome, valid_to=begins - DAY / 2)
    assert memory.get(rome).valid_to == own - 8 * DAY
    memory.update(rome, trust=1.0)
    assert memory.get(rome).valid_to == own - 6.5 * DAY
    memory.update(rome, trust=0.0, valid_to=own - 8.5 * DAY)
    assert memory.update(rome, trust=1.0).valid_to == own - 8.5 * DAY


def test_two_values_of_revoked_sources_come_back_one_by_one(memory: Memory, clock: FixedClock) -> None:
    """The one that comes back first kept the end that the other, revoked still, had given it."""
    add(memory, "Lives in Rome", key="city", sources=[WEB])
    clock.advance(DAY)
    add(memory, "Lives in Oslo", key="city", sources=["tool"])
    for source in (WEB, "tool"):
        memory.revoke(source)
    memory.reinstate(WEB)
    assert texts(memory) == ["Lives in Rome"]
    memory.reinstate("tool")
    assert texts(memory) == ["Lives in Oslo"]


def test_what_a_revoked_source_says_of_earlier_times_is_not_ended_by_one_of_no_trust(
    memory: Memory, clock: FixedClock
) -> None:
    begins = memory.get(add(memory, "Lives in Oslo", key="city", trust=0.25)).valid_from - DAY
    memory.revoke(WEB)
    rome = add(memory, "Lives in Rome", key="city", sources=[WEB], valid_from=begins)
    assert memory.get(rome).valid_to == begins + DAY
    memory.reinstate(WEB)
    assert texts(memory) == ["Lives in Rome"]


def test_a_document_comes_back_whole_beside_an_edition_of_no_trust(memory: Memory, clock: FixedClock) -> None:
    edition(memory, GUIDE, sources=[WEB])
    before = texts(memory)
    memory.revoke(WEB)
    clock.advance(DAY)
    edition(memory, FALSE, trust=0.0)
    memory.reinstate(WEB)
    assert texts(memory) == before


@pytest.mark.parametrize("seed", range(8))
def test_nothing_of_no_trust_changes_what_comes_back(memory: Memory, clock: FixedClock, seed: int) -> None:
    rng = random.Random(seed)
    now = memory.get(add(memory, "now")).valid_from

    def say(count: int, sources: tuple[str, ...], trust: float) -> None:
        for _ in range(count):
            fields: dict[str, object] = {"key": rng.choice("ab"), "trust": trust}
            if rng.random() < 0.5:
                fields["valid_from"] = now + rng.randrange(-9, 9) * DAY / 4
            add(memory, f"{sources} {rng.random()}", sources=[rng.choice(sources)], **fields)
            clock.advance(DAY / 5)

    def values() -> list[tuple[object, ...]]:
        every = memory.list(user_id="u", include_past=True)
        return [(item.text, item.valid_from, item.valid_to) for item in every]

    say(3, (WEB, "tool"), 1.0)
    say(3, ("stranger",), 0.25)
    say(3, (WEB, "tool"), 1.0)
    before = values()
    for source in (WEB, "tool"):
        memory.revoke(source)
        say(2, ("stranger",), 0.0)
    for source in rng.sample([WEB, "tool"], 2):
        say(2, ("stranger",), 0.25)
        memory.reinstate(source)
    assert values() == before


@pytest.mark.parametrize(
    "before", [{"trust": 0.25}, {"trust": 0.25, "sources": [WEB]}, {"sources": ["tool"]}]
)
def test_what_a_revoked_source_repeats_comes_back_with_it(memory: Memory, before: dict[str, object]) -> None:
    """It was only touched, where the same had been said in quarantine, and was lost."""
    memory.revoke("tool")
    known = add(memory, "The cat is grey", **before)
    memory.revoke(WEB)
    said = add(memory, "The cat is grey", sources=[WEB], trust=0.75)
    assert said != known and add(memory, "the cat is grey", sources=[WEB], trust=1.0) == said
    assert memory.reinstate(WEB) >= 1
    assert memory.get(said).trust == 0.75 and memory.get(known).quarantined


def test_another_wording_that_is_trusted_more_goes_by_its_own_sources(clock: FixedClock) -> None:
    """Revoking the source of the less trusted wording took both."""
    with warpmem.open(dimension=2, clock=clock, near_duplicate=0.9) as memory:
        first = add(memory, "the code is seven", vector=[1, 0], sources=[WEB], trust=0.75)
        assert add(memory, "seven is the code", vector=[1, 0.1], sources=["boss"]) == first
        assert memory.revoke(WEB) == 0 and texts(memory) == ["seven is the code"]
        assert memory.revoke("boss") == 1


def test_a_relation_goes_by_the_sources_of_those_who_are_trusted_most(memory: Memory) -> None:
    """A repetition of less trust left its sources there, and revoking them took the relation."""
    memory.relate("Ann", "knows", "Ben", sources=["boss"], user_id="u")
    memory.relate("Ann", "knows", "Ben", sources=[WEB], trust=0.75, user_id="u")
    memory.relate("Ann", "knows", "Cy", sources=[WEB], trust=0.75, user_id="u")
    memory.relate("Ann", "knows", "Cy", sources=["boss"], user_id="u")
    assert memory.revoke(WEB) == 0 and len(tuple(memory.relations(user_id="u"))) == 2


def test_a_revoked_relation_keeps_its_sources(memory: Memory) -> None:
    memory.relate("Ann", "knows", "Ben", sources=[WEB], user_id="u")
    memory.revoke(WEB)
    for trust in (0.0, 0.25):
        memory.relate("Ann", "knows", "Ben", sources=["stranger"], trust=trust, user_id="u")
    assert memory.reinstate(WEB) == 1
    (relation,) = memory.relations(user_id="u")
    assert relation.sources == (WEB,)


@pytest.mark.parametrize("verdict", ["same", "contradicts"])
def test_a_claim_that_is_trusted_more_goes_by_its_own_sources(clock: FixedClock, verdict: str) -> None:
    """Revoking the source of a less trusted one took what both said."""
    answers: list[dict[str, object]] = [{}, {"verdict": verdict, "item": 1}]
    model = ReadingModel(lambda shown: {"memories": [said("Ann owns a cat.", **answers.pop(0))]})  # type: ignore[arg-type]
    with warpmem.open(embedder="hashing", clock=clock, language_model=model, background_work=False) as memory:
        for source, trust in ((WEB, 0.75), ("boss", 1.0)):
            memory.add("A cat", user_id="u", infer="llm", wait=True, sources=[source], trust=trust)
            clock.advance(DAY)
        (fact,) = memory.list(user_id="u", kinds=["fact"])
        memory.revoke(WEB)
        assert (memory.get(fact.id).trust, fact.version, fact.sources[1:]) == (1.0, 2, ("boss",))


@pytest.mark.parametrize("verdict", ["updates", "contradicts"])
def test_what_a_revoked_source_said_comes_back_in_its_own_words(clock: FixedClock, verdict: str) -> None:
    """A claim of no trust that came meanwhile took its place in quarantine, and came back with its trust."""
    answers = [said("The door code is 4711."), said("The door code is 6666.", verdict=verdict, item=1)]
    model = ReadingModel(lambda shown: {"memories": [answers.pop(0)]})
    with warpmem.open(embedder="hashing", clock=clock, language_model=model, background_work=False) as memory:
        memory.add("A code", user_id="u", infer="llm", wait=True, sources=["boss"])
        (fact,) = memory.list(user_id="u", kinds=["fact"])
        memory.revoke("boss")
        clock.advance(DAY)
        memory.add("Another code", user_id="u", infer="llm", wait=True, sources=[WEB], trust=0.0)
        assert memory.get(fact.id).quarantined and memory.get(fact.id).text == fact.text
        memory.reinstate("boss")
        back = memory.get(fact.id)
        assert (back.text, back.trust, back.valid_to, back.sources) == (fact.text, 1.0, None, fact.sources)
        assert answers == []


def test_a_trust_that_was_given_stands_at_the_next_update(memory: Memory) -> None:
    """Any update of an item took the trust away again that its revoked source had taken once."""
    item_id = add(memory, "Ben is 40", sources=[WEB])
    memory.revoke(WEB)
    memory.update(item_id, trust=0.75)
    assert (
        memory.update(item_id, priority=0.25).trust == memory.update(item_id, text="Ben is 41").trust == 0.75
    )
    assert memory.update(item_id, sources=[WEB, "tool"]).trust == 0.0


def test_a_trust_that_was_given_stands_although_it_changes_nothing(memory: Memory) -> None:
    """Whoever said that he does not believe it, while its source was revoked, was not heard."""
    doubted, other = (add(memory, text, sources=[WEB]) for text in ("Ben is 40", "Ben is 41"))
    memory.revoke(WEB)
    for item_id in (doubted, other):
        memory.update(item_id, priority=0.25)
    memory.update(doubted, trust=0.0)
    assert memory.reinstate(WEB) == 1
    assert (memory.get(doubted).trust, memory.get(other).trust) == (0.0, 1.0)
    assert memory.history(doubted)[-1].reason == "it was given this trust"
    memory.update(other, trust=1.0)
    assert memory.history(other)[-1].reason is None
