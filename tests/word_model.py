"""Words as plain Python scores them: BM25 and the words of neighbours, over rows in a dict. Shares no code
with the package. `number=float` is as exact as float64; np.float32 rounds where the definition rounds."""

from __future__ import annotations

import collections
import math
import re
from typing import Any, NamedTuple

import numpy as np

K1, B = 1.2, 0.4
WORD = "[0-9a-zA-Z\x80-\U0010ffff]+"


class Doc(NamedTuple):
    """One row: the run it stands in, None for none, its place there and its terms with repetitions; whether
    it counts in the weights of words."""

    run: Any
    ordinal: int
    terms: collections.Counter[str]
    counts: bool


def terms_of(words: str) -> list[str]:
    """Words, and behind a longer one without digits its first four letters."""
    found = []
    for word in re.findall(WORD, words):
        found.append(word)
        if len(word) > 4 and not re.search("[0-9]", word):
            found.append(word[:4])
    return found


class WordModel:
    """The rows of one owner by any sortable name."""

    def __init__(self) -> None:
        self.docs: dict[Any, Doc] = {}

    def put(self, row: Any, run: Any, ordinal: int, words: str, *, counts: bool = True) -> None:
        self.docs[row] = Doc(run, ordinal, collections.Counter(terms_of(words)), counts)

    def lexical(self, query: str, number: Any = float) -> dict[Any, Any]:
        """Of every row."""
        sums = {row: number(0) for row in self.docs}
        counted = [doc for doc in self.docs.values() if doc.counts]
        if not any(doc.terms for doc in counted):
            counted = list(self.docs.values())
        length = sum(doc.terms.total() for doc in counted)
        if not length:
            return sums
        words = set(re.findall(WORD, query))
        weights = {}
        for term in dict.fromkeys(terms_of(query)):
            if term in words or any(term in doc.terms for doc in self.docs.values()):
                held = max(1, sum(term in doc.terms for doc in counted))
                idf = math.log(1.0 + (len(counted) - held + 0.5) / (held + 0.5))
                weights[term] = (2.0 if re.search("[0-9]", term) else 1.0) * idf * idf
        whole = 0.0
        for value in weights.values():
            whole += value
        for term, value in weights.items():
            for row, doc in self.docs.items():
                count = doc.terms[term]
                if count:
                    longer = 1.0 - B + B * doc.terms.total() / (length / len(counted))
                    sums[row] += number(value / whole) * number(count / (count + K1 * longer))
        return sums

    def adjacent(self, lexical: dict[Any, Any], number: Any = float) -> dict[Any, Any]:
        """Of every row."""
        runs: dict[Any, list[Any]] = {}
        for row, doc in sorted(self.docs.items(), key=lambda entry: (entry[1].ordinal, entry[0])):
            if doc.run is not None:
                runs.setdefault(doc.run, []).append(row)
        sums = {row: number(0) for row in self.docs}
        for rows in runs.values():
            for i, row in enumerate(rows):
                for offset, share in ((-2, 0.5), (-1, 1), (1, 1), (2, 0.5)):
                    if 0 <= i + offset < len(rows):
                        sums[row] += number(share) * lexical[rows[i + offset]]
        return sums

    def totals(self, query: str, w_lexical: float, w_adjacent: float) -> dict[Any, tuple[Any, Any, Any]]:
        """(total, lexical, adjacent) of every row, float32 to the bit; adjacent is 0 without a weight."""
        single = np.float32
        lexical = self.lexical(query, single)
        adjacent = self.adjacent(lexical, single) if w_adjacent else dict.fromkeys(lexical, single(0))
        return {
            row: (
                single(w_lexical) * lexical[row] + single(w_adjacent) * adjacent[row],
                lexical[row],
                adjacent[row],
            )
            for row in self.docs
        }
