"""The check that every embedder makes on its input, and what that costs where the embedder does not say."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from ..errors import InvalidText
from ..ops.texts import check_sequence, check_text

_BLANK = frozenset(("Cc", "Cf", "Cs", "Zs", "Zl", "Zp"))
"""Unicode categories that no reader sees: control, format, surrogate, and the separators."""


def check_texts(texts: Sequence[str]) -> list[str]:
    """The texts as a list.

    Raises InputError when `texts` is a single string, InvalidText (with the position) when an element is not
    a string, is not valid Unicode, or has nothing but whitespace, control and format characters: some
    tokenizers make tokens even of those, and the vectors mean nothing.
    """
    checked = check_sequence(texts)
    for i, text in enumerate(checked):
        where = f"text {i + 1} of {len(checked)}"
        if isinstance(text, str) and is_blank(text):
            raise InvalidText(f"{where} holds no token; give it at least one visible character")
        check_text(text, where)
    return checked


def estimated_tokens(texts: Sequence[str]) -> list[int]:
    """What each text costs: a token for four bytes, at least one."""
    return [max(1, _size(text) // 4) for text in texts]


def is_blank(text: str) -> bool:
    """Whether a text has no visible character."""
    return all(c.isspace() or unicodedata.category(c) in _BLANK for c in text)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
