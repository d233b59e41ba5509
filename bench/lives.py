"""A year of made-up days for many people: what they do over and over, and now and then something that
somebody will ask for. All of it follows from a seed."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

START = datetime(2025, 1, 1, tzinfo=UTC)

_NAMES = ("Ada", "Bela", "Chidi", "Dana", "Emre", "Femi", "Goran", "Hana", "Ines", "Jonas", "Kaya", "Lior")
_PLACES = ("harbour", "library", "old mill", "north market", "river path", "town hall", "station", "bakery")
_FOODS = ("lentil soup", "rye bread", "noodles", "rice and beans", "an omelette", "fish stew", "porridge")
_ROUTINE = (
    "Had {food} for breakfast.", "Walked to the {place}.", "Took the bus home.", "Answered mail all morning.",
    "Called {name}, nothing new.", "Cooked {food}.", "Slept badly.", "Slept well.", "Ran by the {place}.",
    "Meeting with {name} about the budget.", "Watched the news.", "Watered the plants.", "Read for an hour.",
)  # fmt: skip
_FACTS = (
    ("{name}'s new phone number ends in {n}.", "what does the phone number of {name} end in"),
    ("Left the spare key with {name} at the {place}.", "who has the spare key, {name} at the {place}"),
    ("The dentist moved to room {n} near the {place}.", "which room is the dentist in"),
    ("{name} is allergic to {thing}.", "what must {name} not eat, is it {thing}"),
    ("Lent {n} euros to {name}.", "how much money did I lend to {name}"),
    ("The wifi password of the {place} is {word}-{n}.", "wifi password of the {place}"),
    ("{name} was born in {word}ville.", "where was {name} born"),
    ("Booked the cabin in {word}dale for the summer with {name}.", "which cabin did we book for the summer"),
    ("The bicycle's frame number is {word}{n}.", "frame number of my bicycle"),
    ("Promised {name} to bring {thing} to the party.", "what did I promise to bring to the party of {name}"),
)  # fmt: skip
_THINGS = ("peanuts", "shellfish", "sesame", "a guitar", "folding chairs", "candles", "strawberries", "lupin")
_SYLLABLES = ("ka", "lo", "mi", "ru", "ven", "tas", "por", "el", "shi", "dor", "ba", "quin")


class Said(NamedTuple):
    """An event. question: what will be asked for it, None for what nobody asks."""

    at: datetime
    text: str
    question: str | None


def life(seed: int, days: int, per_day: int, every: int) -> list[Said]:
    """`per_day` events a day; every `every` days one of them is a fact."""
    rng = random.Random(seed)
    said: list[Said] = []
    for day in range(days):
        fact = rng.randrange(per_day) if day % every == 0 else -1
        for n in range(per_day):
            at = START + timedelta(days=day, hours=24 * n / per_day, minutes=rng.randrange(20))
            words = {
                "name": rng.choice(_NAMES), "place": rng.choice(_PLACES), "food": rng.choice(_FOODS),
                "thing": rng.choice(_THINGS), "n": rng.randrange(100, 1000),
                "word": "".join(rng.choice(_SYLLABLES) for _ in range(3)),
            }  # fmt: skip
            if n == fact:
                text, question = rng.choice(_FACTS)
                said.append(Said(at, text.format(**words), question.format(**words)))
            else:
                said.append(Said(at, rng.choice(_ROUTINE).format(**words), None))
    return said
