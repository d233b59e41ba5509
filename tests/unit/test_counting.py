"""policy/counting.py: texts far beyond a budget are counted as far as it takes; contexts stay the same."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

import pytest

import warpmem
from warpmem.embed.wordllama import WordLlamaEmbedder
from warpmem.memory import condensing
from warpmem.policy import context
from warpmem.policy.context import one_line, pack
from warpmem.policy.counting import counted
from warpmem.policy.sentences import GAP, joined
from warpmem.protocols import TokenCounter
from warpmem.reason.tokens import EstimateTokenCounter, TokenizerCounter
from warpmem.types import Hit, MemoryItem, Scope

LLAMA = TokenizerCounter(WordLlamaEmbedder.tokenizer_path(), "llama-2")
WORDS = ["tea", "Porto", "lives", "Mottek", "harbour", "42", "naïve", "\u6e2f\u53e3", "the", "extraordinary"]
T0 = datetime(2026, 3, 4, 9, tzinfo=UTC)


class Recording:
    """Knows how much it was asked to count."""

    name = "recording"

    def __init__(self, counter: TokenCounter) -> None:
        self._counter = counter
        self.characters = 0

    def count(self, text: str) -> int:
        self.characters += len(text)
        return self._counter.count(text)


def make_hit(i: int, text: str, kind: str) -> Hit:
    item = MemoryItem(
        id=f"id{i}", scope=Scope(user_id="u"), kind=kind, text=text, model_id="m", created_at=T0,
        touched_at=T0, valid_from=T0, recorded_at=T0,
    )  # fmt: skip
    return Hit(item, 1.0, {})


def _text(rng: random.Random, size: int) -> str:
    said = []
    while size > 0:
        sentence = " ".join(rng.choices(WORDS, k=rng.randint(3, 15))) + rng.choice([". ", "!\n", "? ", " "])
        said.append(sentence)
        size -= len(sentence)
    return "".join(said)


def _all_of(counter: TokenCounter, text: str, most: int) -> int:
    return counter.count(text)


@pytest.mark.parametrize("counter", [EstimateTokenCounter(), LLAMA], ids=["estimate", "llama"])
@pytest.mark.parametrize("seed", range(3))
def test_contexts_are_those_of_counting_everything(
    counter: TokenCounter, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    hits = []
    for i in range(20):
        text = _text(rng, rng.choice([10, 100, 500, 3_000, 20_000, 40_000]))
        if rng.random() < 0.1:
            text += "</memories>"
        hits.append(make_hit(i, text, rng.choice(["fact", "message"])))
    for most in (30, 100, 500, 2_000, 10_000):
        for cite in ("id", "number"):
            short = pack(hits, most, counter, cite)  # type: ignore[arg-type]
            with monkeypatch.context() as patched:
                patched.setattr(context, "counted", _all_of)
                assert pack(hits, most, counter, cite) == short  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(4))
def test_sentences_are_those_of_counting_everything(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    with warpmem.open(embedder="hashing") as memory:
        for _ in range(8):
            memory.add(_text(rng, rng.choice([50, 2_000, 30_000])), user_id="u")
        for most in (60, 200, 1_000):
            asked = " ".join(rng.choices(WORDS, k=3))
            short = memory.context(asked, user_id="u", max_tokens=most, compress="sentences")
            with monkeypatch.context() as patched:
                patched.setattr(context, "counted", _all_of)
                patched.setattr(condensing, "counted", _all_of)
                assert memory.context(asked, user_id="u", max_tokens=most, compress="sentences") == short
        assert short.citations


@pytest.mark.parametrize("compress", [None, "sentences"])
def test_little_of_what_cannot_fit_is_counted(compress: str | None) -> None:
    """All of it was, a context of twenty texts of a megabyte took 20 s."""
    counter = Recording(EstimateTokenCounter())
    rng = random.Random(5)
    with warpmem.open(embedder="hashing", token_counter=counter) as memory:
        texts = [_text(rng, 200_000) for _ in range(4)]
        memory.add([*texts, "Mottek lives in Porto."], user_id="u")
        block = memory.context("Mottek", user_id="u", max_tokens=200, compress=compress)  # type: ignore[arg-type]
    assert block.citations
    assert counter.characters < sum(map(len, texts)) / 2


@pytest.mark.parametrize("counter", [EstimateTokenCounter(), LLAMA], ids=["estimate", "llama"])
def test_counted(counter: TokenCounter) -> None:
    rng = random.Random(3)
    for size in (0, 10, 1_000, 50_000):
        for text in (_text(rng, size), "x" * size, "\u6e2f" * size):
            exact = counter.count(text)
            for most in (1, 50, exact - 1, exact, exact + 1, 2 * exact):
                found = counted(counter, text, most)
                assert found == exact if exact <= most else found > most


def test_one_line_is_what_its_pattern_says() -> None:
    breaks = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")
    for code in range(sys.maxunicode + 1):
        text = f"a{chr(code)}b"
        assert one_line(text) == breaks.sub(" ", text)
    rng = random.Random(1)
    pieces = ["a", " ", "\n", "\x00", "\x1c", "\x85", "\xa0", "\u2028", "b", "\x7f"]
    for _ in range(500):
        text = "".join(rng.choices(pieces, k=20))
        assert one_line(text) == breaks.sub(" ", text).strip()


@pytest.mark.parametrize("seed", range(50))
def test_joined_is_what_going_through_all_of_them_gives(seed: int) -> None:
    def walked(parts: Sequence[str], kept: Collection[int]) -> str:
        pieces: list[str] = []
        for number, part in enumerate(parts):
            if number in kept:
                pieces.append(part)
            elif not pieces or pieces[-1] != GAP:
                pieces.append(GAP)
        return " ".join(pieces)

    rng = random.Random(seed)
    parts = [rng.choice([f"S{i}.", f"S{i}.", GAP]) for i in range(rng.randint(1, 12))]
    kept = {i for i in range(len(parts)) if rng.random() < rng.choice([0.2, 0.5, 0.9])}
    assert joined(parts, kept) == walked(parts, kept)
