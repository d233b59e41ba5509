"""What a message states, without a model: its sentences, but for those that ask or say nothing.

No list of words of any language is used. A sentence says something when it is long enough to, or names
somebody, something or a number: a capitalised word that does not begin it, or a digit. Questions are left
out, and so are short exclamations and what is only one or two words.
"""

from __future__ import annotations

import re
from typing import Final

_LINE = re.compile(r"[\r\n\u2028\u2029]+")
_END = re.compile(
    r"[.!?\u2026\u061f\u06d4\u0964]+[\"'\u201d\u2019\u00bb)\]]*(?=\s)"
    r"|[\u3002\uff01\uff1f\uff0e\uff61]+[\u300d\u300f\u201d\u2019\uff09\u3011]*"
)
_ABBREVIATED = re.compile(
    r"(?:^|[\s(])(?:[A-Z]|[B-DF-HJ-NP-TV-Z][b-df-hj-np-tv-z]{1,2}|(?:[^\W\d_]{1,3}\.)+[^\W\d_]{1,3})\.$"
    r"|^\s*\d{1,3}\.$"
)
"""What a point does not end: an initial or a title (Dr., St.), letters with points (e.g.), a number alone."""
_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\u0e00-\u0eff\u1000-\u109f]")
_BULLET = re.compile(r"^\s*(?:[-*+\u2022]|\d{1,3}[.)])\s+")
_ASKS: Final = ("?", "\uff1f", "\u061f", "\u037e")
_EXCLAIMS: Final = ("!", "\uff01")
_CLOSING: Final = "\"'\u201d\u2019\u00bb)]\u300d\u300f\uff09\u3011 "

_ENOUGH: Final = 4
"""Words of a sentence that may say something although it names nothing."""
_ENOUGH_CHARACTERS: Final = 7
"""The same in scripts that are written without spaces."""
_EXCLAMATION: Final = 6
"""Words up to which an exclamation that names nothing says nothing."""


def statements(text: str) -> list[str]:
    """The sentences of `text` that state something, each once, in order, as they stand there."""
    return list(dict.fromkeys(one for one in sentences(text) if states(one)))


def sentences(text: str) -> list[str]:
    """The sentences of a text; lines end one, marks of a list do not belong to it."""
    found: list[str] = []
    for line in _LINE.split(text):
        line = _BULLET.sub("", line).strip()
        start = 0
        for match in _END.finditer(line):
            if match[0] == "." and _ABBREVIATED.search(line[start : match.end()]):
                continue
            found.append(line[start : match.end()].strip())
            start = match.end()
        found.append(line[start:].strip())
    return [sentence for sentence in found if sentence]


def states(sentence: str) -> bool:
    """Whether a sentence says something that may be worth keeping."""
    ending = sentence.rstrip(_CLOSING)
    if ending.endswith(_ASKS) or sentence.startswith("\u00bf"):
        return False
    words = _WORD.findall(sentence)
    unspaced = len(_UNSPACED.findall(sentence))
    if unspaced > len(sentence) // 3:
        return unspaced >= _ENOUGH_CHARACTERS and not (
            ending.endswith(_EXCLAIMS) and unspaced < 2 * _ENOUGH_CHARACTERS
        )
    names = _names_something(words)
    if len(words) < (_ENOUGH if not names else 2):
        return False
    return names or not (ending.endswith(_EXCLAIMS) and len(words) <= _EXCLAMATION)


def _names_something(words: list[str]) -> bool:
    return any(any(character.isdigit() for character in word) for word in words) or any(
        len(word) > 1 and word[0].isupper() and not word.isupper() for word in words[1:]
    )
