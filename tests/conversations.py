"""Conversations in which facts change, made from a seed, with what is true when, and a model that reads them.

A conversation is a person's: some sessions, days apart, of messages. Among small talk in several languages he
says, changes, corrects and repeats what holds of him, and says the same kinds of things of others. A message
knows what it states, so a scripted model can extract it, and each fact knows from when to when it held.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from scripted_extraction import Shown

START = datetime(2025, 1, 6, 9, 0, tzinfo=UTC)
NAMES = (
    "Ann", "Ben", "Carla", "David", "Elena", "Farid", "Greta", "Hiro", "Ines", "Jonas", "Kira", "Liam",
    "Mona", "Nils", "Olga", "Pablo", "Quinn", "Rosa", "Sven", "Tara", "Umar", "Vera", "Wanda", "Yusuf", "Zoe",
)  # fmt: skip
OTHERS = ("brother", "sister", "neighbour", "boss", "cousin", "best friend")

ATTRIBUTES: dict[str, tuple[str, str, tuple[str, ...], tuple[str, ...]]] = {
    # name: (question, how the model words it, ways to say it of oneself, values)
    "home": (
        "Where does {who} live?", "{who} lives in {value}.",
        ("I live in {value}.", "My flat is in {value}.", "Home is {value} for me.", "I am based in {value}."),
        ("Porto", "Lisbon", "Bergen", "Utrecht", "Leipzig", "Graz", "Turku", "Nantes", "Malmo", "Trieste"),
    ),
    "employer": (
        "Which company does {who} work for?", "{who} works for the company {value}.",
        ("I work for {value}.", "My employer is {value}.", "I have a job at {value}."),
        ("Acme", "Globex", "Initech", "Umbrella", "Hooli", "Vandelay", "Wonka", "Stark"),
    ),
    "diet": (
        "What does {who} eat?", "{who} eats {value} food.",
        ("I eat {value} food.", "My diet is {value}.", "I only cook {value} meals."),
        ("vegan", "vegetarian", "kosher", "halal", "keto", "paleo"),
    ),
    "pet": (
        "Which pet does {who} have?", "{who} has a pet {value}.",
        ("I have a pet {value}.", "My pet is a {value}.", "A {value} lives with me as my pet."),
        ("parrot", "hamster", "beagle", "tortoise", "rabbit", "ferret", "gecko"),
    ),
    "car": (
        "What car does {who} drive?", "{who} drives a {value} car.",
        ("I drive a {value}.", "My car is a {value}.", "The car in my garage is a {value}."),
        ("Volvo", "Renault", "Toyota", "Skoda", "Fiat", "Subaru"),
    ),
    "deadline": (
        "When is the deadline of the project of {who}?", "The project of {who} is due on {value}.",
        ("The deadline of my project is {value}.", "My project is due on {value}."),
        ("12 March", "3 April", "28 May", "9 June", "17 July", "30 August"),
    ),
    "sport": (
        "Which sport does {who} train?", "{who} trains {value} as a sport.",
        ("I train {value}.", "My sport is {value}.", "For sport I do {value}."),
        ("rowing", "judo", "climbing", "fencing", "handball", "archery"),
    ),
    "language": (
        "Which language is {who} learning?", "{who} is learning the language {value}.",
        ("I am learning {value}.", "The language in my course is {value}."),
        ("Finnish", "Korean", "Arabic", "Polish", "Greek", "Swahili"),
    ),
    "editor": (
        "Which text editor does {who} use?", "{who} uses the text editor {value}.",
        ("My text editor is {value}.", "I write my code in {value}."),
        ("Emacs", "Vim", "Helix", "Kakoune", "Nano", "Zed"),
    ),
    "phone": (
        "What is the phone number of {who}?", "The phone number of {who} is {value}.",
        ("My phone number is {value}.", "You reach me by phone at {value}."),
        ("555 0100", "555 0142", "555 0177", "555 0183", "555 0199"),
    ),
}  # fmt: skip

SMALL_TALK = (
    "Hi!", "Hello there!", "Good morning.", "How are you?", "Thanks a lot!", "Great, thanks.", "lol", "Ok.",
    "Sure.", "Sounds good!", "See you!", "Have a nice day!", "What do you think?", "Really?", "No way!",
    "Haha, nice one!", "You are the best!", "Can you help me?", "Danke!", "Wie geht es dir?", "Guten Morgen!",
    "Alles klar.", "Merci !", "Comment vas-tu ?", "Super !", "Obrigado!", "Tudo bem?", "Gracias.",
    "Como estas?", "Privet!", "Spasibo.", "\u041a\u0430\u043a \u0434\u0435\u043b\u0430?",
    "\u0421\u043f\u0430\u0441\u0438\u0431\u043e!", "\u3042\u308a\u304c\u3068\u3046\uff01",
    "\u5143\u6c17\u3067\u3059\u304b\uff1f", "\u4f60\u597d\uff01", "Hmm.", "Never mind.",
    "That is so true!", "Bye for now!", "What a day!", "Well done!", "Why not?", "Same here.",
)  # fmt: skip
REPLIES = ("Noted.", "I see!", "Thank you for telling me.", "How can I help?", "Of course.", "Anything else?")
CHANGES = ("By the way, things changed. ", "News: ", "Since today it is different. ", "Update from me: ", "")
CORRECTIONS = ("Sorry, I told you something wrong. ", "Correction, I misspoke before. ")


class Fact(NamedTuple):
    """Something stated: of whom, which attribute, which value, and how a model words it."""

    who: str
    attribute: str
    value: str
    text: str


class Message(NamedTuple):
    """correction: it says that the last value was never right."""

    role: str
    text: str
    at: datetime
    facts: tuple[Fact, ...] = ()
    correction: bool = False


class Span(NamedTuple):
    """A fact of the person, and when it held; `end` None: it still does."""

    fact: Fact
    begin: datetime
    end: datetime | None


class Conversation(NamedTuple):
    user: str
    who: str
    sessions: tuple[tuple[Message, ...], ...]
    spans: tuple[Span, ...]


def conversations(count: int, seed: int) -> Iterator[Conversation]:
    """As many conversations, the same for a seed."""
    rng = random.Random(seed)
    for number in range(count):
        yield _conversation(rng, f"user-{number}", rng.choice(NAMES))


def fact(who: str, attribute: str, value: str) -> Fact:
    return Fact(who, attribute, value, ATTRIBUTES[attribute][1].format(who=who, value=value))


def question(who: str, attribute: str) -> str:
    return ATTRIBUTES[attribute][0].format(who=who)


def _conversation(rng: random.Random, user: str, who: str) -> Conversation:
    at = START + timedelta(days=rng.randrange(200), minutes=rng.randrange(500))
    held: dict[str, Span] = {}
    past: list[Span] = []
    sessions = []
    wanted = rng.sample(sorted(ATTRIBUTES), rng.randrange(3, 7))
    for number in range(rng.randrange(3, 7)):
        messages: list[Message] = []
        begun = [name for name in wanted if name in held]
        new = [name for name in wanted if name not in held]
        said = rng.sample(new, min(len(new), rng.randrange(1, 4)))
        if number:
            said += rng.sample(begun, min(len(begun), rng.randrange(0, 3)))
        for name in said:
            at += timedelta(minutes=rng.randrange(1, 9))
            messages += _chat(rng, at)
            at += timedelta(minutes=2)
            messages.append(_statement(rng, who, name, at, held, past))
            if rng.random() < 0.3:
                at += timedelta(minutes=1)
                messages.append(_of_another(rng, who, name, at))
        sessions.append(tuple(messages))
        at += timedelta(days=rng.randrange(1, 20), minutes=rng.randrange(300))
    return Conversation(user, who, tuple(sessions), (*past, *held.values()))


def _statement(
    rng: random.Random, who: str, name: str, at: datetime, held: dict[str, Span], past: list[Span]
) -> Message:
    """The first value of an attribute, the same again, a new one, or a correction of the last."""
    known = held.get(name)
    again = known is not None and rng.random() < 0.35
    correction = known is not None and not again and rng.random() < 0.2
    values = [value for value in ATTRIBUTES[name][3] if known is None or value != known.fact.value]
    told = known.fact if known is not None and again else fact(who, name, rng.choice(values))
    opening = ""
    if known is not None and not again:
        opening = rng.choice(CORRECTIONS if correction else CHANGES)
        if not correction:
            past.append(known._replace(end=at))
        held[name] = Span(told, known.begin if correction else at, None)
    elif known is None:
        held[name] = Span(told, at, None)
    way = rng.choice(ATTRIBUTES[name][2]).format(value=told.value)
    closing = f" {rng.choice(SMALL_TALK)}" if rng.random() < 0.3 else ""
    return Message("user", f"{opening}{way}{closing}", at, (told,), correction)


def _of_another(rng: random.Random, who: str, name: str, at: datetime) -> Message:
    other = rng.choice(OTHERS)
    told = fact(f"The {other} of {who}", name, rng.choice(ATTRIBUTES[name][3]))
    return Message("user", f"My {other}, you know: {told.text}", at, (told,))


def _chat(rng: random.Random, at: datetime) -> list[Message]:
    chat = [Message("user", rng.choice(SMALL_TALK), at) for _ in range(rng.randrange(0, 3))]
    if rng.random() < 0.6:
        chat.append(Message("assistant", rng.choice(REPLIES), at))
    return chat


class Extractor:
    """Reads messages as their conversation knows them, and compares with what it is shown; gives no keys.

    errors: the share of memories for which it is wrong about what is known.
    """

    def __init__(self, talks: list[Conversation], errors: float = 0.0, seed: int = 0) -> None:
        self._said: dict[tuple[str, str], Message] = {}
        for talk in talks:
            for message in (message for session in talk.sessions for message in session):
                self._said[message.text, message.at.isoformat()] = message
        self._errors = errors
        self._rng = random.Random(seed)
        self.wrong = 0

    def __call__(self, shown: Shown) -> Any:
        memories: list[dict[str, Any]] = []
        for entry in shown["messages"]:
            message = self._said[entry["text"], entry["at"]]
            for told in message.facts:
                about = self._about(told, message, shown)
                memories.append({"text": told.text, "kind": "fact", "message": entry["number"], **about})
        return {"memories": memories}

    def _about(self, told: Fact, message: Message, shown: Shown) -> dict[str, Any]:
        known = shown["known"]
        if known and self._rng.random() < self._errors:
            self.wrong += 1
            return {
                "verdict": self._rng.choice(("new", "same", "updates", "contradicts")),
                "item": self._rng.choice(known)["number"],
            }
        head, tail = ATTRIBUTES[told.attribute][1].format(who=told.who, value="\0").split("\0")
        for item in known:
            if item["text"].startswith(head) and item["text"].endswith(tail):
                same = item["text"] == told.text
                verdict = "same" if same else "contradicts" if message.correction else "updates"
                return {"verdict": verdict, "item": item["number"]}
        return {}
