"""Long items, cut down to the sentences that a query asks for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from ..embed.given import GivenVectors
from ..errors import DeadlineExceeded, InputError, InvalidText, ModelError, Overloaded, WarpmemError
from ..ingest.words import words
from ..ops import cancel
from ..policy.context import long, one_line
from ..policy.counting import counted
from ..policy.sentences import best, joined, sentences
from ..protocols import LanguageModel, TokenCounter
from ..reason.extract import pick_sentences
from ..types import MemoryItem
from .bounded import Bounded
from .deadline import Deadline
from .paid import Paid
from .serving import Serving

WAYS: Final = ("sentences", "model")

_ITEMS: Final = 20
"""Long items that are cut, the best ones."""
_SENTENCES: Final = 128
"""Of an item: so many sentences, those with most of the query's words, a model looks at."""
_PREFIX: Final = 4
"""Letters by which a word is met, as in search by words."""


_FAULTS: Final = (ModelError, Overloaded, DeadlineExceeded)


class _Long(NamedTuple):
    """An item that is cut, its sentences, and of each the share of the query's words that it has."""

    item: MemoryItem
    parts: list[str]
    by_words: list[float]


def check_way(compress: Any, query: str | None) -> None:
    """Raises InputError when `compress` is none, or has no query to go by."""
    if compress is None:
        return
    if not isinstance(compress, str) or compress not in WAYS:
        raise InputError(f"compress must be None or one of {', '.join(map(repr, WAYS))}")
    if query is None:
        raise InputError("compress needs a query text")


class Condenser:
    """Cuts the long items of one context. Used once.

    model     makes the one that picks the sentences, else the query's words and vector do
    asking    by which the model is made and asked
    deadline  when the model has to have been made, and it and the embedder to have answered
    degrade   where the model or the embedder is overloaded, late or fails, go on without it and name it in
              `degraded`; else that is an error
    degraded  "model": sentences were picked without it; "similarity": by words alone
    """

    def __init__(
        self,
        counter: TokenCounter,
        serving: Serving,
        model: Callable[[], LanguageModel] | None,
        asking: Bounded,
        deadline: Deadline,
        *,
        degrade: bool,
    ) -> None:
        self._counter = counter
        self._serving = serving
        self._model = model
        self._asking = asking
        self._deadline = deadline
        self._degrade = degrade
        self.degraded: tuple[str, ...] = ()

    def shown(self, query: str, items: Sequence[MemoryItem], max_tokens: int) -> dict[str, str]:
        """By id, the sentences that stand for an item whose text is long for the budget; never a part of one:
        as many as an item's share of the budget holds, one at least. Raises what the models raise."""
        most = long(max_tokens)
        cut: list[_Long] = []
        for item in items:
            if len(cut) == _ITEMS:
                break
            if counted(self._counter, one_line(item.text), most) <= most:
                continue
            parts = sentences(item.text)
            if len(parts) > 1:
                cut.append(_Long(item, parts, _shared_words(query, parts)))
        if not cut:
            return {}
        chosen = None if self._model is None else self._picked(self._model, query, cut)
        if chosen is None:
            count = functools.partial(counted, self._counter, most=most)
            chosen = [best(each.parts, self._worths(query, each), most, count) for each in cut]
        return {each.item.id: joined(each.parts, kept) for each, kept in zip(cut, chosen, strict=True)}

    def _picked(
        self, make: Callable[[], LanguageModel], query: str, cut: Sequence[_Long]
    ) -> list[set[int]] | None:
        """What the language model picks; None where it is done without."""
        looked = [_most(each.by_words) for each in cut]
        passages = [[each.parts[i] for i in kept] for each, kept in zip(cut, looked, strict=True)]
        owner = cut[0].item.scope.owner

        def pick() -> list[set[int]]:
            model = make()
            self._deadline.check("the language model was asked")  # by then nobody may wait for it any more
            paid = Paid(model, self._serving.costs, owner, "interactive", "context")
            return pick_sentences(paid, query, passages)

        try:
            picked = self._asking.within(self._deadline, pick)
        except _FAULTS as error:
            self._leave_out("model", error)
            return None
        return [{kept[i] for i in some} for kept, some in zip(looked, picked, strict=True)]

    def _worths(self, query: str, long: _Long) -> list[float]:
        """Shared words and similarity together; words alone where the store's vectors are given."""
        worths = list(long.by_words)
        if isinstance(self._serving.embedder, GivenVectors) or "similarity" in self.degraded:
            return worths
        vectors, owner = self._serving.vectors, (long.item.scope.owner,)
        looked = [i for i in _most(long.by_words) if any(map(str.isalnum, long.parts[i]))]
        texts = [long.parts[i] for i in looked]
        try:
            self._deadline.check("embedding the sentences")
            asked = vectors.embed([query], "query", [owner], timeout=self._deadline.left())
            rows = vectors.embed(texts, "document", [owner] * len(texts), timeout=self._deadline.left())
        except InvalidText:  # without a token for this model
            return worths
        except _FAULTS as error:
            self._leave_out("similarity", error)
            return worths
        similarities = vectors.normalize(rows) @ vectors.normalize(asked)[0]
        for i, similarity in zip(looked, np.asarray(similarities).tolist(), strict=True):
            worths[i] += similarity
        return worths

    def _leave_out(self, part: str, error: WarpmemError) -> None:
        """Go on without what raised. Raises that where nothing may be left out, and DeadlineExceeded where
        nobody waits for the context any more."""
        if not self._degrade:
            raise error
        cancellation = cancel.current.get()
        if cancellation is not None:
            cancellation.check()
        self.degraded += (part,)


def _most(by_words: Sequence[float]) -> list[int]:
    """The numbers of the sentences that are looked at, ascending."""
    order = sorted(range(len(by_words)), key=lambda i: (-by_words[i], i))
    return sorted(order[:_SENTENCES])


def _shared_words(query: str, parts: Sequence[str]) -> list[float]:
    """The share of the query's words that each sentence has, in [0, 1]."""
    asked = _stems(words(query))
    shares = []
    for part in parts:
        said = words(part)
        met = any(stem in said for stem in asked)  # nearly never, in a text that is long
        shares.append(len(asked & _stems(said)) / len(asked) if met else 0.0)
    return shares


def _stems(said: str) -> set[str]:
    return {word[:_PREFIX] for word in said.split()}
