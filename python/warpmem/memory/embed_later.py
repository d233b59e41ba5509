"""Embedding what was stored without a vector, by whichever model is in use when its turn comes."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import Final

from ..errors import Overloaded
from ..ops.ids import owner_of
from ..protocols import Log, Transaction
from ..records import Work, WorkKind
from ..types import PendingWork
from .serving import Current, Serving
from .stored_texts import embed_stored

_BATCH: Final = 64


class EmbedLater:
    """Implements pending.Task. Thread-safe."""

    def __init__(self, log: Log, current: Current) -> None:
        self._log = log
        self._current = current

    def run(self, again: bool) -> Iterator[int]:
        vectors = self._current.now.vectors
        if not vectors.embeds and not again:
            return  # who opened the store brings vectors; the model that is asked may come another time
        waiting = (work for work in self._log.work.walk("embed") if again or work.refused != vectors.model_id)
        spent: Overloaded | None = None
        while batch := list(islice(waiting, _BATCH)):
            try:
                yield self._current.write(functools.partial(self._embed, batch), own_vectors=False)
            except Overloaded as error:  # perhaps of one owner alone, whose budget is spent
                if len({owner_of(work.key) for work in batch}) == 1:
                    spent = error
                    continue
                for _, of_one in groupby(sorted(batch, key=_owner), _owner):
                    try:
                        some = functools.partial(self._embed, list(of_one))
                        yield self._current.write(some, own_vectors=False)
                    except Overloaded as other:
                        spent = other
        if spent is not None:
            raise spent

    def _embed(self, batch: Sequence[Work], serving: Serving) -> int:
        """How many of them have their vectors now."""
        vectors = serving.vectors
        names = [(work.key, work.version) for work in batch]
        if not vectors.embeds:
            vectors.embed([""], "document")  # it says what is missing
        made = embed_stored(self._log, vectors, names, lambda item, error: None, "embed")

        def change(transaction: Transaction) -> int:
            vectors.confirm(self._log, transaction)
            done = 0
            for name, vector in made.items():
                if vector is None:
                    transaction.refuse("embed", *name, vectors.model_id)
                else:
                    done += transaction.embed(*name, vector)
            return done

        return self._log.transact(change, size=4 * vectors.dimension * len(made))

    def status(self, failure: str | None) -> PendingWork:
        """What waits now."""
        return status_of(self._log, "embed", failure)


def _owner(work: Work) -> int:
    return owner_of(work.key)


def status_of(log: Log, kind: WorkKind, failure: str | None) -> PendingWork:
    """What waits now, of one kind."""
    waiting = refused = 0
    since: int | None = None
    for work in log.work.all(kind):
        waiting += 1
        refused += bool(work.refused)
        since = work.since if since is None else min(since, work.since)
    seconds = 0.0 if since is None else max(0, log.now() - since) / 1e6
    return PendingWork(waiting, refused, seconds, failure)
