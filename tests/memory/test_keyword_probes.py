"""Rare words among ordinary notes: a search by meaning and words finds the one note that holds them."""

from __future__ import annotations

import random

import pytest

import warpmem

NOTES, PROBES = 2_000, 200
PEOPLE = ["Nadia", "Tomas", "Ines", "Bruno", "Carla", "Duarte", "Elena", "Filipe"]
DEEDS = (
    "asked whether the meeting could be moved",
    "sent the draft to the printer",
    "will call the landlord about the heating",
    "was happy with the garden this spring",
    "could not find the right form on the website",
    "promised to look at the contract again",
    "paid for the repair of the bicycle",
    "wants to learn how to bake bread",
    "took the early train to see a friend",
    "left the umbrella in the office",
    "thinks the new schedule is too tight",
    "ordered two chairs and a lamp",
)
WHENS = (
    "before lunch", "on Monday", "after the holidays", "last week", "in the evening", "twice already",
    "when it rained", "because of the delay", "without telling anyone", "as agreed", "next month", "at home",
)  # fmt: skip
THINGS = ("the boiler", "an old map", "the blue bag", "that song", "the list", "a recipe", "his sister")
FRAMES = (
    "the reference is {}",
    "and wrote down {} on the way",
    "it concerns {}",
    "look for {} in the folder",
    "{} was mentioned again",
)
QUESTIONS = (
    "What do we know about {}?",
    "Do you remember the note on {} from the other day?",
    "who was it that mentioned {}",
    "Can you find {} for me please",
    "{}: what happened with it?",
)
NAMES = (
    "Halcyon", "Bramblewick", "Tessaract", "Quorndale", "Vexillum", "Ostrava", "Zephyrine", "Kolmanskop",
    "Umbrielle", "Jackdaw",
)  # fmt: skip


def token(rng: random.Random, kind: int) -> str:
    """One that no other note holds: ids, code names, versions, digests, addresses, Chinese and Japanese
    names, paths."""
    number = rng.randrange(10_000, 100_000)
    return (
        f"INV-{number}",
        f"{rng.choice(NAMES)}{rng.choice(NAMES).lower()}",
        f"{number % 90}.{number % 83}.{number % 79}",
        f"{rng.randrange(1 << 48):012x}",
        f"{rng.choice(NAMES).lower()}{number}@example.org",
        "".join(rng.sample("東京大阪林森山川田中李王陳明華春夏秋冬", 4)),
        f"/srv/{rng.choice(NAMES).lower()}/part_{number}.log",
    )[kind]


def sentence(rng: random.Random, thing: str | None) -> str:
    frame = rng.choice(FRAMES).format(thing or rng.choice(THINGS))
    return f"{rng.choice(PEOPLE)} {rng.choice(DEEDS)} {rng.choice(WHENS)}, {frame}."


@pytest.mark.parametrize("runs", [False, True], ids=["apart", "in runs"])
def test_a_rare_word_is_found(runs: bool, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(20)
    tokens: dict[str, None] = {}
    while len(tokens) < PROBES:
        tokens[token(rng, len(tokens) % 7)] = None
    places = dict(zip(rng.sample(range(NOTES), PROBES), tokens, strict=True))
    notes = [sentence(rng, places.get(i)) for i in range(NOTES)]
    with warpmem.open() as memory:
        for start in range(0, NOTES, 50):
            run = f"run {start}" if runs else None
            memory.add_many(notes[start : start + 50], user_id="u", run_id=run, kind="message")
        found = {"dense": 0, "lexical": 0, "hybrid": 0}
        for place, rare in places.items():
            question = rng.choice(QUESTIONS).format(rare)
            for mode in ("dense", "lexical", "hybrid"):
                (hit,) = memory.search(question, user_id="u", mode=mode, k=1)  # type: ignore[arg-type]
                found[mode] += hit.item.text == notes[place]
    with capsys.disabled():
        print("\n  recall@1 of rare words:", *(f"{mode} {n / PROBES:.3f}" for mode, n in found.items()))
    assert found["hybrid"] >= 0.95 * PROBES
