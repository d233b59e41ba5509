"""Tokens of texts that may be far longer than any budget."""

from __future__ import annotations

from typing import Final

from ..protocols import TokenCounter

_CHARACTERS: Final = 10
"""So many characters have more than two tokens in nearly every text."""
_LEAST: Final = 4096
"""Characters that are counted at once in any case."""


def counted(counter: TokenCounter, text: str, most: int) -> int:
    """The tokens of `text` where they are at most `most`; else some number above that.

    Of a text that is much longer its beginning is counted: one with more than twice as many tokens is
    evidence enough, for a text does not have half as few as its beginning.
    """
    size = max(_LEAST, _CHARACTERS * most)
    while 2 * size < len(text):
        found = counter.count(text[:size])
        if found > 2 * most:
            return found
        size *= 4
    return counter.count(text)
