"""BM25 by others in its own process: rank_bm25 plain, and bm25s with Snowball stems and English stop words.

python peer_bm25.py
"""

from __future__ import annotations

import re

import bm25s
import numpy as np
import Stemmer
from rank_bm25 import BM25Okapi
from served import serve

_WORD = re.compile(r"\w+")


def plain(texts: list[str], queries: list[str], k: int) -> list[list[int]]:
    """For each query the numbers of the k best texts, by lower-case words."""
    index = BM25Okapi([_WORD.findall(text.lower()) for text in texts])
    found = [index.get_scores(_WORD.findall(query.lower())) for query in queries]
    return [np.argsort(-scores, kind="stable")[:k].tolist() for scores in found]


def stemmed(texts: list[str], queries: list[str], k: int) -> list[list[int]]:
    """The same by stems without stop words, with bm25s's defaults."""
    stem = Stemmer.Stemmer("english")

    def tokens(some: list[str]) -> object:
        return bm25s.tokenize(some, stopwords="en", stemmer=stem, show_progress=False, return_ids=False)

    index = bm25s.BM25()
    index.index(tokens(texts), show_progress=False)
    found, _ = index.retrieve(tokens(queries), k=min(k, len(texts)), show_progress=False)
    return np.asarray(found).tolist()  # type: ignore[no-any-return]


serve({"plain": plain, "stemmed": stemmed})
