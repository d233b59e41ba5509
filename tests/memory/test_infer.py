"""add(infer=...): messages become memories, by rules and by a language model whose advice is checked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import warpmem
from scripted_extraction import ReadingModel, Shown, memory
from warpmem import Memory, NewItem, Scope
from warpmem.errors import InputError, ModelError, ModelUnavailable, NotFound, StoreReadOnly
from warpmem.ops.clock import FixedClock
from warpmem.reason.fakes import ScriptedLanguageModel

DAY = timedelta(days=1)
EIGHT = datetime(2026, 1, 1, 8, tzinfo=UTC)


class Store:
    """A memory whose model answers with what the test says next."""

    def __init__(self, clock: FixedClock) -> None:
        self.answers: list[Any] = []
        self.model = ReadingModel(self._answer)
        self.memory = warpmem.open(
            embedder="hashing", clock=clock, language_model=self.model, background_work=False
        )
        self._clock = clock

    def _answer(self, shown: Shown) -> Any:
        answer = self.answers.pop(0)
        return answer(shown) if callable(answer) else answer

    def hear(self, text: str, *memories: Any, user: str = "u", **fields: Any) -> str:
        """A message of which the model makes these memories."""
        self._clock.advance(DAY)
        self.answers.append({"memories": list(memories)})
        result = self.memory.add(
            {"role": "user", "content": text}, user_id=user, infer="llm", wait=True, **fields
        )
        assert isinstance(result, warpmem.AddResult)
        return result.id

    def facts(self, user: str = "u", **options: Any) -> list[str]:
        return [item.text for item in self.memory.list(user_id=user, kinds=["fact"], **options)]

    def number(self, text: str) -> Callable[[Shown], int]:
        return lambda shown: next(known["number"] for known in shown["known"] if known["text"] == text)

    def about(self, text: str, old: str, verdict: str, **fields: Any) -> Callable[[Shown], Any]:
        """An answer with one memory about a known item."""
        return lambda shown: {
            "memories": [memory(text, verdict=verdict, item=self.number(old)(shown), **fields)]
        }

    def hear_about(self, text: str, new: str, old: str, verdict: str, **fields: Any) -> str:
        self._clock.advance(DAY)
        self.answers.append(self.about(new, old, verdict))
        result = self.memory.add(
            {"role": "user", "content": text}, user_id="u", infer="llm", wait=True, **fields
        )
        assert isinstance(result, warpmem.AddResult)
        return result.id


@pytest.fixture
def store(clock: FixedClock) -> Store:
    return Store(clock)


# ------------------------------------------------------------------------------------------- by rules


def test_rules_keep_what_is_stated_beside_the_message(memory: Memory, clock: FixedClock) -> None:
    results = memory.add(
        [
            {"role": "user", "content": "Hi! I moved to Porto last week. Thanks!", "at": EIGHT},
            {"role": "assistant", "content": "I am glad that you moved to Porto."},
        ],
        user_id="u", run_id="r", infer="rules", trust=0.75, sources=["chat"],
    )  # fmt: skip
    assert isinstance(results, tuple) and [result.action for result in results] == ["added", "added"]
    (fact,) = memory.list(user_id="u", kinds=["fact"])
    happened = {"from": "2025-12-22", "to": "2025-12-28"}
    assert (fact.text, fact.trust) == ("I moved to Porto last week.", 0.75)
    assert fact.metadata == {"role": "user", "event_time": happened}
    assert fact.sources == (results[0].id, "chat") and fact.valid_from == EIGHT
    assert fact.scope == Scope(user_id="u", run_id="r")
    assert memory.count(user_id="u", kinds=["message"]) == 2
    memory.add(
        {"role": "user", "content": "I moved to Porto last week."}, user_id="u", run_id="r", infer="rules"
    )
    assert memory.count(user_id="u", kinds=["fact"]) == 1


def test_rules_and_an_idempotency_key(memory: Memory) -> None:
    for _ in range(2):
        memory.add("I moved to Porto last week.", user_id="u", infer="rules", idempotency_key="call")
    assert (memory.count(user_id="u"), memory.count(user_id="u", kinds=["message"])) == (2, 1)


def test_messages_expire_and_what_was_made_of_them_stays(clock: FixedClock) -> None:
    model = ReadingModel(lambda shown: {"memories": [memory("Ann lives in Porto.")]})
    with warpmem.open(
        embedder="hashing", clock=clock, language_model=model, message_days=30, background_work=False
    ) as opened:
        for infer in ("rules", "llm"):
            opened.add("I live in Porto now.", user_id=infer, infer=infer, idempotency_key="k", wait=True)  # type: ignore[arg-type]
        last = opened.add("I live in Faro now.", user_id="rules", infer="rules", expires_at=EIGHT + 90 * DAY)
        opened.add("kept", user_id="rules", kind="message")
        clock.advance(DAY)
        again = opened.add("I live in Porto now.", user_id="rules", infer="rules", idempotency_key="k")
        assert isinstance(last, warpmem.AddResult) and again != last
        clock.advance(30 * DAY)
        left = [(item.kind, item.text) for item in opened.list(user_id="rules")]
        assert left == [
            ("fact", "I live in Porto now."),
            ("message", "I live in Faro now."),
            ("fact", "I live in Faro now."),
            ("message", "kept"),
        ]
        assert [item.kind for item in opened.list(user_id="llm")] == ["fact"]


def test_erasing_a_message_erases_what_it_alone_stated(memory: Memory) -> None:
    first = memory.add("I moved to Porto last week.", user_id="u", infer="rules")
    receipt = memory.erase([first.id])
    assert len(receipt.derived) == 1 and memory.count(user_id="u") == 0


def test_what_two_messages_state_goes_with_the_second(memory: Memory) -> None:
    said = [memory.add("I moved to Porto last week.", user_id="u", infer="rules").id for _ in range(2)]
    (fact,) = memory.list(user_id="u", kinds=["fact"])
    assert fact.sources == tuple(said)
    memory.erase(said[:1])
    assert [item.sources for item in memory.list(user_id="u", kinds=["fact"])] == [(said[1],)]
    assert len(memory.erase(said[1:]).derived) == 1 and memory.count(user_id="u") == 0


# ----------------------------------------------------------------------------------------- by a model


def test_a_model_makes_memories_of_messages(store: Store) -> None:
    store.answers.append(
        {
            "memories": [
                memory("Ann lives in Porto.", message=2, key="home", entities=["Ann", "Porto"]),
                memory("Ann likes tea.", message=2, kind="preference"),
            ],
            "relations": [{"subject": "Ann", "relation": "works with", "object": "Ben", "message": 2}],
        }
    )
    results = store.memory.add(
        [
            {"role": "assistant", "content": "Where do you live?"},
            {"role": "user", "content": "In Porto, with tea."},
        ],
        user_id="u", run_id="r", infer="llm", wait=True, trust=0.75, sources=["chat"],
    )  # fmt: skip
    assert isinstance(results, tuple)
    home, tea, relation = store.memory.list(user_id="u", filters={"kind": {"ne": "message"}})
    assert (home.text, home.key, home.entities) == ("Ann lives in Porto.", "said:home", ("Ann", "Porto"))
    assert (home.trust, home.sources, home.scope.run_id) == (0.75, (results[1].id, "chat"), "r")
    assert home.valid_from == store.memory.get(results[1].id).valid_from
    assert (tea.kind, tea.key) == ("preference", None)
    assert (relation.text, relation.entities) == ("Ann works with Ben", ("Ann", "Ben"))
    assert (relation.kind, relation.sources) == ("relation", (results[1].id, "chat"))
    (known,) = store.memory.relations(user_id="u", entity="ben")
    assert (known.id, known.subject, known.predicate) == (relation.id, "Ann", "works with")
    shown = store.model.shown[0]
    assert [message["speaker"] for message in shown["messages"]] == ["assistant", "user"]
    assert not any(result.id in str(shown) for result in results)


def test_a_relation_that_two_messages_tell_goes_with_the_second(store: Store) -> None:
    store.answers += [
        {
            "memories": [],
            "relations": [{"subject": "Ann", "relation": "works with", "object": "Ben", "message": 1}],
        }
    ] * 2
    told = [
        store.memory.add({"role": "user", "content": text}, user_id="u", infer="llm", wait=True)
        for text in ("I'm Ann, and I work with Ben.", "Ben and I are colleagues.")
    ]
    first, second = (one.id for one in told if isinstance(one, warpmem.AddResult))
    (relation,) = store.memory.relations(user_id="u")
    assert relation.sources == (first, second)
    store.memory.erase([first])
    assert [one.sources for one in store.memory.relations(user_id="u")] == [(second,)]
    store.memory.erase([second])
    assert len(store.memory.relations(user_id="u", include_past=True)) == 0


def test_one_call_for_a_window(store: Store) -> None:
    store.answers += [{"memories": []}, {"memories": []}]
    store.memory.add(
        [{"role": "user", "content": f"message {n}"} for n in range(40)], user_id="u", infer="llm", wait=True
    )
    assert [len(shown["messages"]) for shown in store.model.shown] == [32, 8]


def test_what_is_said_again_is_not_stored_again(store: Store) -> None:
    store.hear("I own a cat", memory("Ann owns a cat."))
    again = store.hear_about("My cat, you know", "Ann owns the cat.", "Ann owns a cat.", "same")
    (item,) = store.memory.list(user_id="u", kinds=["fact"])
    assert item.text == "Ann owns a cat." and item.sources[-1] == again
    assert store.memory.history(item.id)[-1].reason == "it was said again, by the model"
    last = store.hear("I own a cat", memory("Ann owns a cat."))
    assert len(store.facts()) == 1
    first = store.memory.get(item.id).sources[0]
    store.memory.erase([first, again])  # the last message says it still
    assert [one.sources for one in store.memory.list(user_id="u", kinds=["fact"])] == [(last,)]


def test_what_changed_ends_what_it_was(store: Store, clock: FixedClock) -> None:
    store.hear("I live in Porto", memory("Ann lives in Porto."))
    then = clock.now()
    store.hear_about("I moved to Lisbon", "Ann lives in Lisbon.", "Ann lives in Porto.", "updates")
    assert store.facts() == ["Ann lives in Lisbon."]
    old, new = store.memory.list(user_id="u", kinds=["fact"], include_past=True)
    assert old.valid_to == new.valid_from
    assert store.memory.history(old.id)[-1].reason == "a later claim updates it, by the model"
    found = store.memory.search("Ann lives", user_id="u", kinds=["fact"], as_of=old.valid_from)
    assert then and [hit.item.text for hit in found] == ["Ann lives in Porto."]
    assert "Porto" not in store.memory.context("Ann lives", user_id="u", kinds=["fact"]).text
    store.memory.delete(new.id)
    store.memory.revert(old.id, 1)
    assert store.facts() == ["Ann lives in Porto."]


def test_a_correction_is_the_next_version(store: Store) -> None:
    store.hear("I live in Porto", memory("Ann lives in Porto."))
    store.hear_about("No, it never was Porto", "Ann lives in Braga.", "Ann lives in Porto.", "contradicts")
    (item,) = store.memory.list(user_id="u", kinds=["fact"], include_past=True)
    assert (item.text, item.version, len(item.sources)) == ("Ann lives in Braga.", 2, 2)
    assert store.memory.history(item.id)[-1].reason == "a later claim corrects it, by the model"
    assert store.memory.search("Braga", user_id="u", kinds=["fact"])[0].score > 0.2
    assert store.memory.revert(item.id, 1).text == "Ann lives in Porto."


def test_a_key_of_the_model_has_one_value_and_is_not_the_applications(store: Store) -> None:
    store.memory.add("Plan: free", user_id="u", key="plan")
    store.hear("I am on the pro plan", memory("Ann is on plan pro.", key="plan"))
    store.hear("I am on the max plan", memory("Ann is on plan max.", key="plan"))
    assert store.facts() == ["Plan: free", "Ann is on plan max."]
    store.hear_about("Make it pro", "Plan: pro", "Plan: free", "updates")
    store.hear_about("It was never free", "Plan: max", "Plan: free", "contradicts")
    assert "Plan: free" in store.facts()


def test_what_was_said_earlier_is_history(store: Store) -> None:
    store.hear("I live in Porto", memory("Ann lives in Porto."))
    store.answers.append(store.about("Ann lives in Braga.", "Ann lives in Porto.", "updates"))
    store.memory.add(
        {"role": "user", "content": "I live in Braga", "at": "2025-01-01T00:00:00+00:00"},
        user_id="u",
        infer="llm",
        wait=True,
    )
    assert store.facts() == ["Ann lives in Porto."]
    assert len(store.facts(include_past=True)) == 2


@pytest.mark.parametrize("verdict", ["same", "updates", "contradicts"])
def test_advice_about_something_else_is_not_followed(store: Store, verdict: str) -> None:
    store.hear("I own a cat", memory("Ann owns a cat."))
    store.hear_about("cat. The roof leaks", "Water came through when it rained.", "Ann owns a cat.", verdict)
    assert store.facts() == ["Ann owns a cat.", "Water came through when it rained."]


@pytest.mark.parametrize("verdict", ["same", "updates", "contradicts"])
def test_an_untrusted_claim_touches_nothing_that_is_trusted(store: Store, verdict: str) -> None:
    store.hear("I live in Porto", memory("Ann lives in Porto.", key="home"))
    before = store.memory.list(user_id="u", kinds=["fact"]).items
    store._clock.advance(DAY)
    store.answers.append(store.about("Ann lives in Oslo.", "Ann lives in Porto.", verdict, key="home"))
    store.memory.add("Ann lives in Oslo", user_id="u", infer="llm", wait=True, trust=0.25, sources=["web"])
    assert store.memory.list(user_id="u", kinds=["fact"]).items == before
    hidden = store.memory.list(user_id="u", kinds=["fact"], quarantined=True, filters={"trust": {"lt": 0.5}})
    assert [item.text for item in hidden] == ["Ann lives in Oslo."]


def test_a_less_trusted_correction_is_kept_and_not_met(store: Store) -> None:
    store.hear("I live in Porto", memory("Ann lives in Porto."))
    store.hear_about("Not Porto", "Ann lives in Oslo.", "Ann lives in Porto.", "contradicts", trust=0.75)
    assert store.facts() == ["Ann lives in Porto."]
    assert store.facts(include_past=True) == ["Ann lives in Porto.", "Ann lives in Oslo."]


def test_what_is_trusted_differently_is_not_read_together(store: Store) -> None:
    store.answers += [{"memories": []}] * 3
    store.memory.add(
        [
            NewItem(text="mine", kind="message"),
            NewItem(text="page", kind="message", trust=0.25),
            NewItem(text="tool", kind="message", sources=["tool"]),
        ],
        user_id="u", infer="llm", wait=True,
    )  # fmt: skip
    assert [[m["text"] for m in shown["messages"]] for shown in store.model.shown] == [
        ["mine"],
        ["page"],
        ["tool"],
    ]


def test_other_scopes_are_neither_shown_nor_touched(store: Store) -> None:
    store.hear("I live in Porto", memory("Ann lives in Porto."), user="v")
    store.hear("I live in Oslo", memory("Ann lives in Oslo."), run_id="r")
    store.hear("Ann lives in Faro", memory("Ann lives in Faro."))
    assert store.model.shown[-1]["known"] == []


BAD = [
    "this is not JSON",
    '{"memories": [',
    "[]",
    {"memories": "none"},
    {"memories": [{"text": "x"}]},
    {"memories": [memory("x", message=2)]},
    {"memories": [memory("x", message=0)]},
    {"memories": [memory("x", verdict="same", item=1)]},
    {"memories": [memory("x", verdict="same", item="00000081jduaj348e0086671b68rbh5b")]},
    {"memories": [memory("x", id="00000081jduaj348e0086671b68rbh5b")]},
    {"memories": [memory("x", trust=1.0)]},
    {"memories": [memory("x", scope={"user_id": "v"})]},
    {"memories": [memory("x", kind="message")]},
    {"memories": [memory("x" * 1001)]},
    {"memories": [memory("x")] * 65},
    {"memories": [memory(" ")]},
    {"memories": [memory("x", key="")]},
    "secret " * 200_000,
    '{"memories": ' + "[" * 100_000,
    {"memories": [], "relations": [{"subject": "a", "relation": "b", "object": "c", "message": 7}]},
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(BAD)))
def test_a_bad_answer_is_refused_and_the_message_kept(store: Store, number: int) -> None:
    store.answers += [BAD[number]] * 2
    with pytest.raises(ModelError) as caught:
        store.memory.add({"role": "user", "content": "I live in Porto"}, user_id="u", infer="llm", wait=True)
    assert "secret" not in str(caught.value) and "Porto" not in str(caught.value)
    (kept,) = store.memory.list(user_id="u")
    assert kept.kind == "message"
    store.answers.append({"memories": [memory("Ann lives in Porto.")]})
    (result,) = store.memory.extract([kept.id])
    assert result.action == "added" and store.facts() == ["Ann lives in Porto."]


def test_an_answer_is_mended_once(store: Store) -> None:
    store.answers += ["no JSON", {"memories": [memory("Ann lives in Porto.")]}]
    store.memory.add({"role": "user", "content": "I live in Porto"}, user_id="u", infer="llm", wait=True)
    assert store.model.asked == [2, 4] and store.facts() == ["Ann lives in Porto."]


def test_a_model_that_is_away_leaves_the_message(clock: FixedClock) -> None:
    model = ScriptedLanguageModel([ModelUnavailable("gone"), '{"memories": []}'])
    with warpmem.open(embedder="hashing", clock=clock, language_model=model, background_work=False) as opened:
        with pytest.raises(ModelUnavailable):
            opened.add("I live in Porto", user_id="u", infer="llm", wait=True)
        (kept,) = opened.list(user_id="u")
        assert opened.extract([kept.id], scope=Scope(user_id="u")) == ()
        with pytest.raises(NotFound):
            opened.extract([kept.id], scope=Scope(user_id="v"))


def test_without_a_model_nothing_is_stored(memory: Memory) -> None:
    with pytest.raises(InputError, match="no language model"):
        memory.add("I live in Porto", user_id="u", infer="llm", wait=True)
    for arguments in ({"key": "k"}, {"vector": [0.0] * 256}, {"infer": "magic"}):
        with pytest.raises(InputError):
            memory.add("I live in Porto", **{"user_id": "u", "infer": "rules", **arguments})  # type: ignore[arg-type]
    assert memory.stats().items == 0


def test_a_message_that_went_meanwhile_leaves_nothing(store: Store) -> None:
    def answer(shown: Shown) -> Any:
        store.memory.erase(user_id="u")
        return {"memories": [memory("Ann lives in Porto.")]}

    store.answers.append(answer)
    store.memory.add("I live in Porto", user_id="u", infer="llm", wait=True)
    assert store.memory.count(user_id="u") == 0


def test_what_was_inferred_survives_and_the_store_is_whole(tmp_path: Path, clock: FixedClock) -> None:
    def read(shown: Shown) -> Any:
        known = [one["number"] for one in shown["known"] if one["text"].startswith("Ann lives")]
        city = shown["messages"][0]["text"].split()[-1]
        about = {"verdict": "updates", "item": known[0]} if known else {}
        return {"memories": [memory(f"Ann lives in {city}.", **about)]}

    path = tmp_path / "store"
    with warpmem.open(path, embedder="hashing", clock=clock, language_model=ReadingModel(read)) as opened:
        for city in ("Porto", "Lisbon", "Faro"):
            clock.advance(DAY)
            opened.add(f"I live in {city}", user_id="u", infer="llm", wait=True)
    model = ReadingModel(read)
    with warpmem.open(path, embedder="hashing", read_only=True, language_model=model) as opened:
        assert [item.text for item in opened.list(user_id="u", kinds=["fact"])] == ["Ann lives in Faro."]
        with pytest.raises(StoreReadOnly):
            opened.extract([opened.list(user_id="u", kinds=["message"]).items[0].id])
    assert not model.shown
    assert warpmem.verify(path).ok
