"""ingest/chunks.py: nothing is lost, budgets hold, and cuts fall where a reader would make them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpmem.errors import InputError, InvalidText
from warpmem.ingest.blocks import FORMATS, Format, format_of, log_facts
from warpmem.ingest.chunks import Chunk, chunks
from warpmem.reason.tokens import EstimateTokenCounter

COUNTER = EstimateTokenCounter()


class Words:
    """Counts words."""

    name = "words"

    def count(self, text: str) -> int:
        return len(text.split())


WORDS = Words()


def pieces(
    text: str, format: Format, max_tokens: int, counter: EstimateTokenCounter | Words = WORDS
) -> list[str]:
    return [text[chunk.start : chunk.end] for chunk in chunks(text, format, counter, max_tokens)]


def check(text: str, found: list[Chunk], counter: EstimateTokenCounter | Words, max_tokens: int) -> None:
    assert "".join(text[chunk.start : chunk.end] for chunk in found) == text
    assert [chunk.start for chunk in found] == [0, *(chunk.end for chunk in found[:-1])]
    for chunk in found:
        shown = text[chunk.start : chunk.end].strip("\n\t\r\x85\u2028\u200b ")
        assert shown and (counter.count(shown) <= max_tokens or len(shown) == 1)


PARTS = st.sampled_from(
    [
        "word", "Word.", "two words", " ", "\n", "\n\n", "\t", "    indented", "# Title", "## Part\n", "====",
        "---", "```", "```py\n", "- item\n", "2026-01-31 10:00:00 ERROR broken\n", "INFO fine\n",
        '{"a": 1}\n', "\u3002", "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3067\u3059\u3002", "e\u0301",
        "\u200b", "x" * 60,
        "\U0001f469\u200d\U0001f469\u200d\U0001f467", "\u061f ", "\u2026", "def f():\n", "}\n", "\r\n",
        "\x85", "\u2028",
    ]
)  # fmt: skip


@given(st.lists(PARTS, max_size=60).map("".join), st.sampled_from(FORMATS), st.integers(8, 60))
def test_chunks_are_the_document_and_keep_the_budget(text: str, format: Format, max_tokens: int) -> None:
    for counter in (COUNTER, Words()):
        try:
            found = chunks(text, format, counter, max_tokens)
        except InvalidText:
            assert not any(character.isalnum() for character in text)
            continue
        check(text, found, counter, max_tokens)


def test_markdown_goes_by_its_headings() -> None:
    text = (
        "intro\n\n# One\n\nfirst\n\nsecond\n\n## Deep #\n```\n# no heading\n\nstill code\n```\n"
        "Two\n===\n\n### Deeper\nlast\n\nTable\n-----\n| a |\n| - |\n"
    )
    found = chunks(text, "markdown", COUNTER, 1000)
    assert [(chunk.path, text[chunk.start : chunk.end].split("\n")[0]) for chunk in found] == [
        ((), "intro"),
        (("One",), "# One"),
        (("One", "Deep"), "## Deep #"),
        (("Two", "Deeper"), "Two"),
        (("Two", "Table"), "Table"),
    ]
    text = "# One\n\nfirst of the paragraphs\n\nsecond of the paragraphs\n"
    assert pieces(text, "markdown", 8) == [
        "# One\n\nfirst of the paragraphs\n\n",
        "second of the paragraphs\n",
    ]


def test_text_goes_by_paragraphs_then_sentences_then_words() -> None:
    paragraph = "The first sentence is here. The second one follows! And a third?"
    text = f"{paragraph}\n\nshort one\n\nshort two\n"
    assert pieces(text, "text", 13) == [f"{paragraph}\n\n", "short one\n\nshort two\n"]
    assert pieces(text, "text", 9) == [
        "The first sentence is here. The second one follows! ",
        "And a third?\n\n",
        "short one\n\nshort two\n",
    ]
    assert pieces("a b c d e f g h i\nj k l", "text", 8) == ["a b c d e f g h ", "i\n", "j k l"]


def test_scripts_without_spaces_are_cut_at_their_sentences() -> None:
    text = "彼女はポルトに住んでいます。猫を二匹飼っています。「元気ですか。」と聞きました。"
    assert pieces(text, "text", 24, COUNTER) == [
        "彼女はポルトに住んでいます。", "猫を二匹飼っています。", "「元気ですか。」", "と聞きました。",
    ]  # fmt: skip


def test_characters_that_belong_together_stay_together() -> None:
    found = pieces("e\u0301" * 40, "text", 9, COUNTER)
    assert all(piece.startswith("e") for piece in found) and len(found) > 2


def test_code_goes_by_what_stands_at_the_margin() -> None:
    text = (
        "import os\n\n\ndef one():\n    a = 1\n\n    return a\n\n\nclass Two:\n    x = 1 + 2\n\n"
        "    def m(self):\n"
        "        pass\n\nif (\n    one()\n\n):\n    pass\n"
    )
    assert pieces(text, "code", 8) == [
        "import os\n\n\n",
        "def one():\n    a = 1\n\n    return a\n\n\n",
        "class Two:\n    x = 1 + 2\n\n",
        "    def m(self):\n        pass\n\n",
        "if (\n    one()\n\n):\n    pass\n",
    ]


def test_logs_keep_an_entry_with_what_it_carries() -> None:
    text = (
        "2026-01-31 10:00:00,123 INFO started\n2026-01-31 10:00:01,000 ERROR failed\nTraceback:\n  File x\n"
        "Warning signs are prose here\n[2026-01-31T10:00:02Z] debug: retry\nFATAL: gone\n"
    )
    assert pieces(text, "log", 13) == [
        "2026-01-31 10:00:00,123 INFO started\n",
        "2026-01-31 10:00:01,000 ERROR failed\nTraceback:\n  File x\nWarning signs are prose here\n",
        "[2026-01-31T10:00:02Z] debug: retry\nFATAL: gone\n",
    ]
    assert log_facts(text) == {"time": "2026-01-31 10:00:00,123", "level": "fatal"}
    assert log_facts("nothing here\n") == {}


def test_lines_of_json_stay_whole() -> None:
    lines = [f'{{"n": {n}, "text": "line"}}\n' for n in range(6)]
    assert all(
        piece in "".join(lines) and piece.count("{") == piece.count("}")
        for piece in pieces("".join(lines), "jsonl", 9)
    )


@pytest.mark.parametrize("text", ["", " \n\n\t", "\u200b\ufeff"])
def test_what_shows_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidText):
        chunks(text, "text", COUNTER, 100)


def test_a_budget_has_a_least_size() -> None:
    with pytest.raises(InputError, match="max_tokens"):
        chunks("text", "text", COUNTER, 7)


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a/b.md", "markdown"),
        ("x.PY", "code"),
        ("x.log", "log"),
        ("x.jsonl", "jsonl"),
        ("x.txt", "text"),
        ("x", "text"),
    ],
)
def test_the_format_follows_from_the_name(name: str, format: Format) -> None:
    assert format_of(name) == format


def test_a_long_document_takes_a_time_in_proportion() -> None:
    rng = random.Random(1)
    words = [f"w{rng.randrange(10_000)}" for _ in range(40_000)]
    text = " ".join(words)
    found = chunks(text, "text", COUNTER, 200)
    check(text, found, COUNTER, 200)


@pytest.mark.parametrize("letter", ["x", "\u4e2d"])
def test_text_without_a_gap_is_not_counted_to_its_end_for_every_piece(letter: str) -> None:
    class Measured(EstimateTokenCounter):
        seen = 0

        def count(self, text: str) -> int:
            self.seen += len(text)
            return super().count(text)

    seen = []
    for length in (5_000, 10_000, 20_000):
        counter = Measured()
        text = letter * length
        check(text, chunks(text, "text", counter, 64), counter, 64)
        seen.append(counter.seen)
    assert seen[2] - seen[1] <= 2.1 * (seen[1] - seen[0])
