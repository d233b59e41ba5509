"""Long items, cut down to the sentences that a query asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ..embed.given import GivenVectors
from ..errors import InputError, InvalidText
from ..ingest.words import words
from ..policy.context import long, one_line
from ..policy.sentences import best, joined, sentences
from ..protocols import LanguageModel, TokenCounter
from ..reason.extract import pick_sentences
from ..types import MemoryItem
from .paid import Paid
from .serving import Serving

WAYS: Final = ("sentences", "model")

_ITEMS: Final = 20
"""Long items that are cut, the best ones."""
_SENTENCES: Final = 128
"""Of an item: so many sentences, those with most of the query's words, a model looks at."""
_PREFIX: Final = 4
"""Letters by which a word is met, as in search by words."""


def check_way(compress: Any, query: str | None) -> None:
    """Raises InputError when `compress` is none, or has no query to go by."""
    if compress is None:
        return
    if not isinstance(compress, str) or compress not in WAYS:
        raise InputError(f"compress must be None or one of {', '.join(map(repr, WAYS))}")
    if query is None:
        raise InputError("compress needs a query text")


def condensed(
    query: str,
    items: Sequence[MemoryItem],
    max_tokens: int,
    counter: TokenCounter,
    serving: Serving,
    model: LanguageModel | None,
) -> dict[str, str]:
    """By id, the sentences that stand for an item whose text is long for the budget; never a part of one.

    model: picks them, else the query's words and vector do: as many as an item's share of the budget holds,
    one at least. Raises what the models raise.
    """
    most = long(max_tokens)
    cut: list[tuple[MemoryItem, list[str], list[float]]] = []
    for item in items:
        if len(cut) == _ITEMS:
            break
        parts = sentences(item.text)
        if len(parts) > 1 and counter.count(one_line(item.text)) > most:
            cut.append((item, parts, _shared_words(query, parts)))
    if not cut:
        return {}
    if model is not None:
        looked = [_most(by_words) for _, _, by_words in cut]
        passages = [[parts[i] for i in kept] for (_, parts, _), kept in zip(cut, looked, strict=True)]
        paid = Paid(model, serving.costs, items[0].scope.owner, "interactive", "context")
        picked = pick_sentences(paid, query, passages)
        chosen = [{kept[i] for i in some} for kept, some in zip(looked, picked, strict=True)]
    else:
        chosen = [
            best(parts, _worths(query, item, parts, by_words, serving), most, counter.count)
            for item, parts, by_words in cut
        ]
    return {item.id: joined(parts, kept) for (item, parts, _), kept in zip(cut, chosen, strict=True)}


def _most(by_words: Sequence[float]) -> list[int]:
    """The numbers of the sentences that are looked at, ascending."""
    order = sorted(range(len(by_words)), key=lambda i: (-by_words[i], i))
    return sorted(order[:_SENTENCES])


def _shared_words(query: str, parts: Sequence[str]) -> list[float]:
    """The share of the query's words that each sentence has, in [0, 1]."""
    asked = _stems(query)
    return [len(asked & _stems(part)) / max(1, len(asked)) for part in parts]


def _stems(text: str) -> set[str]:
    return {word[:_PREFIX] for word in words(text).split()}


def _worths(
    query: str, item: MemoryItem, parts: Sequence[str], by_words: Sequence[float], serving: Serving
) -> list[float]:
    """Shared words and similarity together; words alone where the store's vectors are given."""
    worths = list(by_words)
    if isinstance(serving.embedder, GivenVectors):
        return worths
    vectors, owner = serving.vectors, (item.scope.owner,)
    looked = [i for i in _most(by_words) if any(map(str.isalnum, parts[i]))]
    try:
        asked = vectors.embed([query], "query", [owner])
        rows = vectors.embed([parts[i] for i in looked], "document", [owner] * len(looked))
    except InvalidText:  # without a token for this model
        return worths
    similarities = vectors.normalize(rows) @ vectors.normalize(asked)[0]
    for i, similarity in zip(looked, np.asarray(similarities).tolist(), strict=True):
        worths[i] += similarity
    return worths
