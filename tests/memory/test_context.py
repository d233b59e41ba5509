"""Memory.context as a user sees it: neighbours of messages, filters, sentences of long items."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any, Literal

import pytest

import warpmem
from warpmem import Memory, Scope
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import (
    DeadlineExceeded,
    InputError,
    MissingDependency,
    ModelError,
    ModelUnavailable,
    Overloaded,
)
from warpmem.ops.clock import FixedClock, to_datetime
from warpmem.policy.sentences import GAP, sentences
from warpmem.reason.fakes import ScriptedLanguageModel

CHAT = [
    ("ana", "What did you think of the violin concert?"),
    ("bo", "Wonderful, I cried twice."),
    ("ana", "Shall we cook tonight?"),
    ("bo", "Yes, lentils."),
]
LONG = " ".join(
    [
        "The harbour was built in 1890 by two brothers from the north.",
        "It has a mill, a church and some fields around it.",
        *(f"In the year {1900 + i} the council met and nothing else came of it." for i in range(60)),
        "The lighthouse keeper was called Halcyon Bramble.",
        "Dr. Vey wrote all of this down.",
    ]
)


def open_memory(**options: Any) -> Memory:
    memory = warpmem.open(clock=FixedClock(to_datetime(1_780_000_000_000_000)), **options)
    for name, text in CHAT:
        memory.add(
            {"role": "user", "name": name, "content": text}, user_id="u", run_id="chat", metadata={"by": name}
        )
    memory.add("The violin needs new strings.", user_id="u")
    return memory


@pytest.fixture
def memory() -> Iterator[Memory]:
    with open_memory() as opened:
        yield opened


def test_the_answer_stands_beside_its_question(memory: Memory) -> None:
    block = memory.context("violin concert", user_id="u", mode="lexical")
    quoted = [line.partition("] ")[2] for line in block.text.splitlines() if line.startswith("[")]
    at = next(i for i, text in enumerate(quoted) if "violin concert" in text)
    assert "I cried twice" in quoted[at + 1]
    assert not any("lentils" in text for text in quoted)
    assert [item.text in block.text for item in memory.get_many(block.citations) if item] == [True] * 3


def test_a_neighbour_passes_the_filters_and_is_of_the_same_run(memory: Memory) -> None:
    def cited(**options: Any) -> str:
        return memory.context("violin concert", user_id="u", mode="lexical", **options).text

    assert "cried" not in cited(filters={"metadata.by": "ana"})
    assert "cried" in cited(filters={"metadata.by": {"exists": True}})
    assert "cried" not in cited(kinds=["fact"])
    now = memory.list(user_id="u").items[0].recorded_at
    assert "cried" not in cited(as_of=now)  # what was true then is searched, and its neighbours are not
    memory.add({"role": "user", "content": "The violin concert again"}, user_id="u", run_id="one")
    memory.add({"role": "user", "content": "Elsewhere, another chat"}, user_id="u", run_id="two")
    assert "Elsewhere" not in cited()


def test_a_neighbour_that_went_is_not_shown(memory: Memory) -> None:
    (answer,) = (item for item in memory.list(user_id="u").items if "cried" in item.text)
    memory.delete(answer.id)
    assert "cried" not in memory.context("violin concert", user_id="u", mode="lexical").text


def test_a_neighbour_in_quarantine_is_not_shown(memory: Memory) -> None:
    (answer,) = (item for item in memory.list(user_id="u").items if "cried" in item.text)
    memory.update(answer.id, trust=0.0)
    assert "cried" not in memory.context("violin concert", user_id="u", mode="lexical").text


def test_a_neighbour_is_of_the_same_owner() -> None:
    with warpmem.open() as memory:
        for user, text in (("a", "The violin concert"), ("b", "A secret of b")):
            memory.add({"role": "user", "content": text}, scope=Scope(user_id=user, run_id="r"))
        assert "secret" not in memory.context("violin", user_id="a", mode="lexical").text


def test_long_items_are_cut_to_their_sentences() -> None:
    with open_memory() as memory:
        long = memory.add(LONG, user_id="u", kind="document")
        question = "What was the lighthouse keeper called?"
        assert long.id not in memory.context(question, user_id="u", max_tokens=300).citations
        block = memory.context(question, user_id="u", max_tokens=300, compress="sentences")
        (line,) = (line for line in block.text.splitlines() if long.id in line)
        assert "The lighthouse keeper was called Halcyon Bramble." in line
        shown = line.partition("] ")[2]
        kept = [piece.strip() for piece in shown.split(GAP) if piece.strip()]
        assert all(sentence in sentences(LONG) for piece in kept for sentence in sentences(piece))
        assert len(shown) < len(LONG) / 4 and block.tokens <= 300
        whole = memory.context(question, user_id="u", max_tokens=8000, compress="sentences")
        assert "lentils" in whole.text  # what is not long stays as it is


def test_sentences_without_an_embedder_go_by_words() -> None:
    with warpmem.open(dimension=4) as memory:
        memory.add(LONG, user_id="u", vector=[1, 0, 0, 0])
        block = memory.context(
            "the lighthouse keeper", user_id="u", mode="lexical", max_tokens=400, compress="sentences"
        )
        assert "Halcyon Bramble" in block.text and GAP in block.text


KEPT = json.dumps({"passages": [{"number": 1, "sentences": [2, 1]}]})


def test_a_language_model_picks_the_sentences() -> None:
    with open_memory(language_model=ScriptedLanguageModel([KEPT])) as memory:
        memory.add(LONG, user_id="u", kind="document")
        block = memory.context(
            "the harbour", user_id="u", max_tokens=300, kinds=["document"], compress="model"
        )
        assert block.text.splitlines()[2].endswith(f"{' '.join(sentences(LONG)[:2])} {GAP}")
        assert block.degraded == ()


FAULTS = ["none", ModelUnavailable("gone"), Overloaded("too much", 1.0), DeadlineExceeded("late")]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_sentences_are_picked_without_a_model_that_does_not_answer(fault: Any) -> None:
    asked: dict[str, Any] = {"user_id": "u", "max_tokens": 300, "kinds": ["document"]}
    question = "What was the lighthouse keeper called?"
    for degrade in (True, False):
        with open_memory(language_model=ScriptedLanguageModel([fault]), degrade=degrade) as memory:
            memory.add(LONG, user_id="u", kind="document")
            if not degrade:
                with pytest.raises((ModelError, Overloaded, DeadlineExceeded)):
                    memory.context(question, compress="model", **asked)
                continue
            block = memory.context(question, compress="model", **asked)
            assert block.degraded == ("model",)
            assert block.text == memory.context(question, compress="sentences", **asked).text != ""
            assert 'warpmem_degraded_total{part="model"} 1' in memory.metrics()


class Waiting(ScriptedLanguageModel):
    """Answers when it is let go."""

    def __init__(self) -> None:
        super().__init__([KEPT])
        self.go = threading.Event()

    def complete(self, *args: Any, **options: Any) -> str:
        assert self.go.wait(60)
        return super().complete(*args, **options)


def test_a_slow_language_model_keeps_the_deadline() -> None:
    """It was waited for, however long it took."""
    asked: dict[str, Any] = {"user_id": "u", "max_tokens": 300, "kinds": ["document"], "compress": "model"}
    for degrade in (True, False):
        model = Waiting()
        with open_memory(language_model=model, degrade=degrade) as memory:
            memory.add(LONG, user_id="u", kind="document")
            try:
                if degrade:
                    block = memory.context("the lighthouse keeper", deadline=0.3, **asked)
                    assert block.degraded[0] == "model" and GAP in block.text
                else:
                    with pytest.raises(DeadlineExceeded, match="language model"):
                        memory.context("the lighthouse keeper", deadline=0.3, **asked)
            finally:
                model.go.set()


def test_making_the_language_model_is_within_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was made before the deadline began, however long that took."""
    go, made = threading.Event(), ScriptedLanguageModel([KEPT])

    def load(*_: Any) -> ScriptedLanguageModel:
        assert go.wait(60)
        return made

    monkeypatch.setattr("warpmem.compose.make_language_model", load)
    asked: dict[str, Any] = {"user_id": "u", "max_tokens": 300, "kinds": ["document"], "compress": "model"}
    for degrade in (True, False):
        go.clear()
        with open_memory(language_model="scripted", degrade=degrade) as memory:
            memory.add(LONG, user_id="u", kind="document")
            try:
                if degrade:
                    block = memory.context("the lighthouse keeper", deadline=0.5, **asked)
                    assert block.degraded[0] == "model" and GAP in block.text and not go.is_set()
                else:
                    with pytest.raises(DeadlineExceeded, match="language model"):
                        memory.context("the lighthouse keeper", deadline=0.5, **asked)
            finally:
                go.set()
            if degrade:
                assert memory.context("the lighthouse keeper", deadline=60, **asked).degraded == ()


def test_what_making_the_language_model_raises_is_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> ScriptedLanguageModel:
        raise MissingDependency("install it")

    monkeypatch.setattr("warpmem.compose.make_language_model", refuse)
    asked: dict[str, Any] = {"user_id": "u", "max_tokens": 300, "compress": "model"}
    with open_memory(language_model="scripted") as memory:
        with pytest.raises(MissingDependency):
            memory.context("the harbour", **asked)  # nothing to cut, but time to find out
        assert memory.context("the harbour", deadline=60, **asked).degraded == ()
        memory.add(LONG, user_id="u", kind="document")
        with pytest.raises(MissingDependency):
            memory.context("the lighthouse keeper", deadline=60, **asked)
    with open_memory() as memory, pytest.raises(InputError, match="no language model"):
        memory.context("the harbour", deadline=60, **asked)


def test_a_language_model_has_the_time_that_is_left() -> None:
    asked: dict[str, Any] = {"user_id": "u", "max_tokens": 300, "kinds": ["document"], "compress": "model"}
    with open_memory(language_model=ScriptedLanguageModel([KEPT, KEPT])) as memory:
        memory.add(LONG, user_id="u", kind="document")
        block = memory.context("the lighthouse keeper", deadline=30, **asked)
        assert block.degraded == ()
        assert block.text == memory.context("the lighthouse keeper", **asked).text


class Busy(HashingEmbedder):
    """Has no time for the sentences of items."""

    busy = False

    def embed(self, texts: Any, *, role: Literal["document", "query"]) -> Any:
        if self.busy and role == "document":
            raise Overloaded("too much", 1.0)
        return super().embed(texts, role=role)


def test_sentences_are_picked_by_words_alone_where_the_embedder_does_not_answer() -> None:
    embedder = Busy(32)
    asked: dict[str, Any] = {"user_id": "u", "max_tokens": 400, "compress": "sentences"}
    with open_memory(embedder=embedder) as memory:
        memory.add(LONG, user_id="u", kind="document")
        embedder.busy = True
        block = memory.context("the lighthouse keeper", **asked)
        assert block.degraded == ("similarity",)
        assert "Halcyon Bramble" in block.text and GAP in block.text
        embedder.busy = False
        assert memory.context("the lighthouse keeper", **asked).degraded == ()


def test_a_context_tells_what_its_search_left_out() -> None:
    with open_memory() as memory:
        block = memory.context("violin", user_id="u", rerank=Overloading())
        assert block.degraded == ("rerank",) and "violin" in block.text


class Overloading:
    model_id = "overloading"

    def rerank(self, query: str, texts: Any) -> Any:
        raise Overloaded("full", 1.0)


def test_what_compress_may_be(memory: Memory) -> None:
    for wrong in ("words", 1, True, ["sentences"]):
        with pytest.raises(InputError, match="compress must be None or one of 'sentences', 'model'"):
            memory.context("x", user_id="u", compress=wrong)  # type: ignore[arg-type]
    vector = memory.search("violin", user_id="u", return_vectors="numpy").vectors[0]
    with pytest.raises(InputError, match="compress needs a query text"):
        memory.context(vector=vector, user_id="u", compress="sentences")
    with pytest.raises(InputError, match="language model"):
        memory.context("the harbour", user_id="u", compress="model")


def test_a_budget_below_one_item_is_an_empty_answer(memory: Memory) -> None:
    block = memory.context("violin", user_id="u", max_tokens=3)
    assert (block.text, block.citations, block.tokens) == ("", (), 0)
    assert block.omitted == len(memory.search("violin", user_id="u", k=50))
