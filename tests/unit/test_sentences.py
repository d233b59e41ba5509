"""policy/sentences.py: a text's sentences, none broken, and a choice of them."""

from __future__ import annotations

import random

import pytest

from warpmem.policy.sentences import GAP, best, joined, sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Dr. Smith came at 5 p.m. today. He left.", ["Dr. Smith came at 5 p.m. today.", "He left."]),
        ('"Really?" she asked. He said "Go." Then he went.', [
            '"Really?" she asked.', 'He said "Go."', "Then he went."
        ]),
        ("J. R. R. Tolkien wrote version 3.5 of it, e.g. this.", [
            "J. R. R. Tolkien wrote version 3.5 of it, e.g. this."
        ]),
        ("No. It is No. 5 of Mr. Li. Yes.", ["No.", "It is No. 5 of Mr. Li.", "Yes."]),
        ("first line\nsecond line\r\n\r\n third", ["first line", "second line", "third"]),
        ("\u6ca1\u6709\u4eba\u3002\u597d\u7684\uff01ok", [
            "\u6ca1\u6709\u4eba\u3002", "\u597d\u7684\uff01", "ok"
        ]),
        ("Wait... what? See http://a.example/b.c now.", ["Wait... what?", "See http://a.example/b.c now."]),
        ("...", ["..."]),
        (" \n ", []),
        ("", []),
    ],
)  # fmt: skip
def test_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@pytest.mark.parametrize("seed", range(50))
def test_nothing_but_white_space_is_lost(seed: int) -> None:
    rng = random.Random(seed)
    pieces = [
        "word",
        "Dr.",
        "5 p.m.",
        "end.",
        "Why?",
        '"Go!"',
        "\u3002",
        "\n",
        "  ",
        "\u2026",
        "A.",
        "\u2028",
    ]
    text = " ".join(rng.choices(pieces, k=60))
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())


def test_what_is_left_out_leaves_a_mark() -> None:
    parts = ["A.", "B.", "C.", "D.", "E."]
    assert joined(parts, {0, 1, 2, 3, 4}) == "A. B. C. D. E."
    assert joined(parts, {1, 4}) == f"{GAP} B. {GAP} E."
    assert joined(parts, {0}) == f"A. {GAP}"


def test_the_best_that_fit_and_the_best_in_any_case() -> None:
    parts = ["a" * 9 + ".", "b" * 39 + ".", "c" * 9 + "."]
    assert best(parts, [1, 3, 2], 1000, len) == {0, 1, 2}
    assert best(parts, [1, 3, 2], 56, len) == {1, 2}
    assert best(parts, [3, 1, 2], 25, len) == {0, 2}
    assert best(parts, [1, 3, 2], 5, len) == {1}
    assert best(parts, [1, 1, 1], 5, len) == {0}
