"""The form of a text in which duplicates are recognised."""

from __future__ import annotations

import unicodedata


def normalize_text(text: str) -> str:
    """Texts that differ only in case, in compatibility forms (full-width letters, ligatures, decomposed
    accents) or in whitespace have the same normal form. Idempotent.

    Unicode compatibility caseless matching (Unicode Standard 3.13, D146) in composed form, with whitespace
    runs as one space and none at the ends.
    """
    if text.isascii():
        return " ".join(text.lower().split())
    folded = text
    for form in ("NFD", "NFKD", "NFKD"):  # D146: folding can undo normalisation, and the other way round
        folded = unicodedata.normalize(form, folded).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())
