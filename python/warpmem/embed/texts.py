"""The check that every embedder makes on its input."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from ..errors import InputError, InvalidText

_BLANK = frozenset(("Cc", "Cf", "Cs", "Zs", "Zl", "Zp"))
"""Unicode categories that no reader sees: control, format, surrogate, and the separators."""


def check_texts(texts: Sequence[str]) -> list[str]:
    """The texts as a list.

    Raises InputError when `texts` is a single string, InvalidText (with the position) when an element is not
    a string, is not valid Unicode, or has nothing but whitespace, control and format characters: some
    tokenizers make tokens even of those, and the vectors mean nothing.
    """
    if isinstance(texts, (str, bytes)):
        raise InputError(f"texts must be a sequence of strings, not one {type(texts).__name__}")
    checked = list(texts)
    for i, text in enumerate(checked):
        where = f"text {i + 1} of {len(checked)}"
        if not isinstance(text, str):
            raise InvalidText(f"{where} must be a string, not {type(text).__name__}")
        if is_blank(text):
            raise InvalidText(f"{where} holds no token; give it at least one visible character")
        if not text.isascii():
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                raise InvalidText(
                    f"{where} has a lone surrogate at character {error.start}, not valid Unicode"
                ) from None
    return checked


def is_blank(text: str) -> bool:
    """Whether a text has no visible character."""
    return all(c.isspace() or unicodedata.category(c) in _BLANK for c in text)
