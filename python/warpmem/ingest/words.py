"""The form of a text in which its words are told apart, for lexical search."""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Final

from .normalize import normalize_text

# Scripts that are written without spaces, or whose words grow by endings without bound: Han, kana, Hangul,
# Thai, Lao, Myanmar, Khmer.
UNSPACED: Final = (
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    "\u1100-\u11ff\uac00-\ud7af\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
)

# What shapes a word and is no part of it: soft hyphens, joiners, variation selectors.
_INVISIBLE: Final = re.compile("[\u00ad\u034f\u200c\u200d\u2060\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef]")

_ACCENTS: Final = re.compile("[\u0300-\u036f]")


def words(text: str) -> str:
    """What `_cpu.Postings` takes: caseless words, parted by characters that are neither letters nor digits.

    A run of characters of a script without spaces becomes its characters and its pairs of neighbours
    (the overlapping bigrams of most CJK search engines). Accents are left out, so that "cafe" finds "café";
    other combining marks belong to their letters.
    """
    if text.isascii():
        return text.lower()
    apart = unicodedata.normalize("NFD", normalize_text(_INVISIBLE.sub("", text)))
    runs = _patterns()[0].findall(unicodedata.normalize("NFC", _ACCENTS.sub("", apart)))
    return " ".join(piece for run in runs for piece in _pieces(run))


def _pieces(run: str) -> list[str]:
    if run.isascii():
        return [run]
    pieces = []
    for part in _patterns()[1].findall(run):
        if part[0] and len(part[0]) > 1:
            pieces += part[0]
            pieces += [part[0][i : i + 2] for i in range(len(part[0]) - 1)]
        else:
            pieces.append(part[0] or part[1])
    return pieces


@functools.cache
def marks() -> str:
    """Combining marks that belong to their letters, for a character class; not those that enclose them."""
    return "".join(
        re.escape(chr(code)) for code in range(0x10000) if unicodedata.category(chr(code)) in ("Mn", "Mc")
    )


@functools.cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """(runs of letters and digits with their marks; within one: unspaced, other)."""
    return re.compile(rf"[^\W_](?:[^\W_]|[{marks()}])*"), re.compile(rf"([{UNSPACED}]+)|([^{UNSPACED}]+)")
