"""policy/context.py: what was taken from a message word for word does not stand beside it."""

from __future__ import annotations

import itertools
import random
import time
from datetime import timedelta
from typing import Any

import pytest

from unit.test_context import FRAME, LINE, T0, Characters, Merging, Surprising, lines, make_hit
from warpmem.policy.context import pack

SAID = "I moved to Porto. My cat is called Mottek."


def message(i: int, text: str = SAID, **changes: Any) -> Any:
    return make_hit(i, text, kind="message", **changes)


def fact(i: int, text: str, *sources: str, **changes: Any) -> Any:
    return make_hit(i, text, sources=sources, **changes)


@pytest.mark.parametrize("first", ["message", "facts"])
def test_a_message_stands_for_the_facts_in_it(first: str) -> None:
    facts = [fact(1, "I moved to Porto.", "id0"), fact(2, "My cat is called Mottek.", "id9", "id0")]
    hits = [message(0), *facts] if first == "message" else [*facts, message(0)]
    block = pack([*hits, make_hit(3, "Zoe.")], 1000, Characters())
    assert sorted(lines(block.text)) == [f"[id0] {SAID}", "[id3] Zoe."]
    assert sorted(block.citations) == ["id0", "id3"] and block.omitted == 0


def test_facts_stay_where_their_message_does_not_fit() -> None:
    hits = [fact(1, "I moved to Porto.", "id0"), message(0, SAID + "x" * 500), make_hit(2, "Zoe.")]
    block = pack(hits, 200, Characters())
    assert block.citations == ("id1", "id2") and block.omitted == 1


def test_the_room_that_is_saved_goes_to_others() -> None:
    """The message stands where its best fact stood: first, for that was the best hit."""
    hits = [fact(1, "I moved to Porto.", "id0"), message(0), make_hit(2, "z" * 60)]
    whole = FRAME + LINE + 60 + len("\n2026-03-04, message:") + LINE + len(SAID)
    block = pack(hits, whole, Characters())
    assert (block.citations, block.omitted, block.tokens) == (("id0", "id2"), 0, whole)
    assert pack(hits, whole - 1, Characters()).omitted == 1


def test_what_ends_within_a_word_is_not_said() -> None:
    hits = [
        message(0, "Nadia works at Metabase. She sings."),
        fact(1, "Nadia works at Meta", "id0"),
        fact(2, "he sings.", "id0"),
        fact(3, "She sings.", "id0"),
    ]
    assert set(pack(hits, 1000, Characters()).citations) == {"id0", "id1", "id2"}


def test_what_was_true_on_another_day_is_another_thing() -> None:
    hits = [message(0), fact(1, "I moved to Porto.", "id0", valid_from=T0 - timedelta(days=900))]
    assert set(pack(hits, 1000, Characters()).citations) == {"id0", "id1"}


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_what_is_made_of_what_was_made(order: tuple[int, ...]) -> None:
    hits = [message(0), fact(1, "My cat is called Mottek.", "id0"), fact(2, "called Mottek.", "id1")]
    block = pack([hits[i] for i in order], 1000, Characters())
    assert (block.citations, block.omitted) == (("id0",), 0)


def test_thousands_of_facts_before_their_messages_take_no_time() -> None:
    hits = [fact(i + 1, f"Fact {i} says so.", f"id{i}") for i in range(0, 4000, 2)]
    hits += [message(i, f"Fact {i} says so. And more.") for i in range(0, 4000, 2)]
    began = time.process_time()
    block = pack(hits, 100_000, Characters())
    assert len(block.citations) == 2000 and block.omitted == 0
    plain = [make_hit(i, hit.item.text, kind=hit.item.kind) for i, hit in enumerate(hits)]
    halfway = time.process_time()
    pack(plain, 100_000, Characters())
    assert halfway - began < 20 * (time.process_time() - halfway) + 0.5


def test_only_what_says_nothing_more_is_left_out() -> None:
    """In other words, with a day, of another source, or in a text that is shown shorter."""
    dated = {"event_time": {"from": "2026-03-01", "to": "2026-03-01"}}
    hits = [
        message(0),
        fact(1, "Nadia moved to Porto.", "id0"),
        fact(2, "I moved to Porto.", "id7"),
        fact(3, "I moved to Porto.", "id0", metadata=dated),
        fact(4, "My cat is called Mottek.", "id0"),
    ]
    block = pack(hits, 2000, Characters())
    assert set(block.citations) == {"id0", "id1", "id2", "id3"}
    shown = pack(hits, 2000, Characters(), shown={"id0": "I moved to Porto."})
    assert "id4" in shown.citations


def test_items_that_name_each_other_stand_once() -> None:
    hits = [fact(0, "Zoe.", "id1"), fact(1, "Zoe.", "id0"), fact(2, "Bo.", "id2")]
    block = pack(hits, 1000, Characters())
    assert len(block.citations) == 2 and "id2" in block.citations and block.omitted == 0


@pytest.mark.parametrize("counter", [Characters(), Merging(), Surprising()])
@pytest.mark.parametrize("seed", range(40))
def test_never_over_budget_and_never_said_twice(seed: int, counter: Any) -> None:
    rng = random.Random(seed)
    hits = []
    for i in range(0, 30, 3):
        parts = [f"word{rng.randrange(1000)} " * rng.randrange(1, 9) for _ in range(3)]
        hits.append(message(i, " ".join(parts).strip(), scope=make_hit(0, "x").item.scope))
        hits += [fact(i + n, parts[n].strip(), f"id{i}") for n in (1, 2)]
    rng.shuffle(hits)
    budget = rng.randrange(50, 1500)
    block = pack(hits, budget, counter)
    assert counter.count(block.text) <= budget
    cited = set(block.citations)
    for hit in hits:
        if set(hit.item.sources) & cited:
            assert hit.item.id not in cited
    reached = cited | {hit.item.id for hit in hits if set(hit.item.sources) & cited}
    assert block.omitted == len(hits) - len(reached)
