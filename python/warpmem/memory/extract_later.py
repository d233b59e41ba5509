"""Memories of messages that were stored first, made by the language model in the background or on demand."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Final

from ..errors import EmbeddingError, InputError, ModelError, ModelUnavailable, Overloaded
from ..ops.ids import owner_of
from ..protocols import LanguageModel, Log, TokenCounter, Transaction
from ..records import Work
from ..types import AddResult, Extraction, PendingWork
from .embed_later import status_of
from .serving import Current, Serving
from .side_by_side import SideBySide
from .vectors import background

_BATCH: Final = 32


class ExtractLater:
    """Implements pending.Task. Thread-safe.

    model: raises InputError when the store has none; then nothing is done. pausing: JobRunner.pausing."""

    def __init__(
        self,
        log: Log,
        current: Current,
        model: Callable[[], LanguageModel],
        counter: TokenCounter,
        pausing: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._pausing = pausing
        self._log = log
        self._current = current
        self._model = model
        self._counter = counter
        self._round: SideBySide[list[Work], int | None] | None = None
        log.work.subscribe(self._look_again)  # what comes meanwhile need not wait for the slowest answer

    def run(self, again: bool) -> Iterator[int]:
        if next(self._log.work.all("extract"), None) is None:
            return
        try:
            model = self._model()
        except InputError:
            return  # who opens the store with one will go on
        passed: dict[int, bytes] = {}
        failed: set[int] = set()  # of whom nothing more is read in this round, so that all is read in order

        def groups() -> Iterator[tuple[int, list[Work]]]:
            all_works = self._log.work.walk("extract", passed)
            waiting = (work for work in all_works if again or work.refused != model.model_id)
            for owner, works in itertools.groupby(waiting, lambda work: owner_of(work.key)):
                for batch in _batches(works):
                    if owner not in failed:
                        yield owner, batch

        def read_batch(batch: list[Work]) -> int | None:
            owner = owner_of(batch[0].key)
            if owner in failed:
                return None
            try:
                return self._extract(batch, model)
            except (Overloaded, ModelUnavailable):
                failed.add(owner)
                raise

        error: ModelUnavailable | Overloaded | None = None
        in_a_row = 0
        at_a_time = max(1, int(getattr(model, "parallel", 1)))
        self._round = SideBySide(read_batch, at_a_time)
        with contextlib.closing(self._round.run(groups)) as ended:
            for future in ended:
                try:
                    read = future.result()
                except Overloaded as overloaded:  # his budget is spent, perhaps, and not that of the next
                    error = overloaded
                except ModelUnavailable as away:
                    error, in_a_row = away, in_a_row + 1
                    if in_a_row >= at_a_time:  # else it may have failed this one alone
                        raise
                else:
                    if read is not None:
                        in_a_row = 0
                        yield read
        if error is not None:
            raise error

    def _look_again(self) -> None:
        if self._round is not None:
            self._round.look_again()

    def _extract(self, batch: Sequence[Work], model: LanguageModel) -> int:
        """How many messages were read. An answer that is none is noted, and the messages wait."""
        try:
            with background("infer"):
                self.extract([work.key for work in batch], model, waiting=True)
        except (ModelUnavailable, EmbeddingError):
            raise
        except ModelError:
            self._log.transact(lambda transaction: _refuse(transaction, batch, model.model_id))
        return sum(not self._log.work.has("extract", work.key, work.version) for work in batch)

    def extract(
        self,
        keys: Sequence[bytes],
        model: LanguageModel,
        *,
        waiting: bool,
        wanted: Extraction | None = None,
    ) -> list[AddResult]:
        """See Inferring.extract."""

        def change(serving: Serving) -> list[AddResult]:
            return serving.inferring.extract(
                keys, model, self._counter, lambda: self._current.reading(serving), self._pausing,
                waiting=waiting, wanted=wanted,
            )  # fmt: skip

        return self._current.write(change, own_vectors=False)

    def status(self, failure: str | None) -> PendingWork:
        """What waits now."""
        return status_of(self._log, "extract", failure)


def _refuse(transaction: Transaction, batch: Sequence[Work], model_id: str) -> None:
    for work in batch:
        transaction.refuse("extract", work.key, work.version, model_id)


def _batches(works: Iterator[Work]) -> Iterator[list[Work]]:
    while batch := list(itertools.islice(works, _BATCH)):
        yield batch
