"""The words of a text: scripts, forms, marks; what a query says meets what a document says."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpmem.ingest.words import words
from word_model import terms_of

SCRIPTS = st.sampled_from(
    "abzAZ09_- .'éÉßñŁЖжΣςσا٣अक़्िไทยั한글ㅏ漢字々かガｶﾞＡ１①ﬁ❤\ufe0f\u200d\u00ad👍🏽\u0301"
)
TEXTS = st.one_of(st.text(max_size=30), st.text(SCRIPTS, max_size=30))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("Hello, World! x2", "hello world x2"),
        ("snake_case kebab-case 3.11.7 a@b.org", "snake case kebab case 3 11 7 a b org"),
        ("Don't", "don t"),
        ("Don\u2019t \u00e9", "don t e"),
        ("ÉTÉ e\u0301te\u0301", "ete ete"),
        ("café naïve Ångström Май", "cafe naive angstrom маи"),
        ("STRASSE straße", "strasse strasse"),
        ("\uff21\uff22\uff11 \ufb01ne", "ab1 fine"),
        ("ΣΊΣΥΦΟΣ", "σισυφοσ"),
        ("Привет, МИР", "привет мир"),
        ("東", "東"),
        ("東京都", "東 京 都 東京 京都"),
        ("人々", "人 々 人々"),
        ("東京、大阪", "東 京 東京 大 阪 大阪"),
        ("\uff76\uff9e\uff77", "ガ キ ガキ"),
        ("日本2024年abc", "日 本 日本 2024 年 abc"),
        ("ไทย", "ไ ท ย ไท ทย"),
        ("한국", "한 국 한국"),
        ("\u1112\u1161\u11ab국", "한 국 한국"),
        ("नमस्ते दुनिया", "नमस्ते दुनिया"),
        ("क\u094d\u200dष क\u094dष", "क्ष क्ष"),
        ("مرحبا ٣", "مرحبا ٣"),
        ("naïve_東", "naive 東"),
        ("co\u00adoperate \ufeffé", "cooperate e"),
        ("葛\U000e0100飾", "葛 飾 葛飾"),
        ("I \u2764\ufe0f it 👍🏽 \U0001f468\u200d\U0001f469", "i it"),
        ("1\ufe0f\u20e3 st", "1 st"),
        ("\u0301", ""),
    ],
)
def test_words_of(text: str, expected: str) -> None:
    assert terms_of(words(text)) == terms_of(expected)


@given(TEXTS)
def test_other_forms_of_a_text_have_its_words(text: str) -> None:
    expected = terms_of(words(text))
    for form in ("NFC", "NFD", "NFKC"):
        assert terms_of(words(unicodedata.normalize(form, text))) == expected
    assert terms_of(words(f"  {text}\n")) == expected


@given(st.text(st.sampled_from("abZ09 _-.,é Éßжअक्षिا٣\u0301\u200d")))
def test_words_of_words_are_the_same(text: str) -> None:
    """Not so in scripts without spaces, where neighbours make pairs."""
    assert terms_of(words(words(text))) == terms_of(words(text))


@given(TEXTS, TEXTS)
def test_texts_side_by_side_have_the_words_of_both(left: str, right: str) -> None:
    """So a query of some of a document's words meets them."""
    assert terms_of(words(f"{left} | {right}")) == terms_of(words(left)) + terms_of(words(right))


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_is_parted_as_any_text(text: str) -> None:
    assert terms_of(words(text + " é")) == [*terms_of(words(text)), "e"]


@given(st.text("東京都大阪", min_size=1, max_size=8), st.integers(0, 7), st.integers(1, 8))
def test_a_part_of_unspaced_text_is_met(text: str, start: int, length: int) -> None:
    part = text[start : start + length]
    assert set(terms_of(words(part))) <= set(terms_of(words(f"ab {text}")))


@given(TEXTS)
def test_nothing_but_words_comes_out(text: str) -> None:
    for word in words(text).split():
        assert unicodedata.category(word[0])[0] in "LNM" or text.isascii()


def test_very_long_texts() -> None:
    assert len(words("Alpha beta. " * 100_000).split()) == 200_000
    assert len(words("été " * 100_000).split()) == 100_000
    assert len(words("東" * 100_000).split()) == 199_999
    assert words("a" * 1_000_000) == "a" * 1_000_000
