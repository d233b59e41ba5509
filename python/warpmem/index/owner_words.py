"""The words of one owner's rows, and which row follows which: what a search by words and neighbours asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .cpu import make_postings
from .owner_rows import OwnerRows, Placed
from .partition import Name
from .row_columns import AGENT, KIND, RUN

NO_RUN, OF_THE_PAST = -1, -2


class TextSource(NamedTuple):
    """Where the texts of rows come from. load: the texts of (item key, version), None for what was erased.
    words: a text's words, as `_cpu.Postings` takes them."""

    load: Callable[[Sequence[Name]], Sequence[str | None]]
    words: Callable[[str], str]


class Sums(NamedTuple):
    """By row id, each (n,) float32; rows behind the end have 0. totals = w_lexical * lexical + w_adjacent *
    adjacent."""

    totals: NDArray[np.float32]
    lexical: NDArray[np.float32]
    adjacent: NDArray[np.float32]

    def parts(self, row_id: int) -> tuple[float, float]:
        """(lexical, adjacent) of a row."""
        known = row_id < len(self.totals)
        return (float(self.lexical[row_id]), float(self.adjacent[row_id])) if known else (0.0, 0.0)


class OwnerWords(OwnerRows):
    """Postings of one owner.

    A row follows another when both are current and of one kind, agent and run."""

    def __init__(self, source: TextSource) -> None:
        super().__init__()
        self.postings = make_postings()
        self._source = source
        self._runs: dict[tuple[int, ...], int] = {}

    def score(
        self, text: str, w_lexical: float, w_adjacent: float, most: int, also: NDArray[np.int64]
    ) -> tuple[int, bool, NDArray[np.int64], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """`_cpu.Postings.score` of a query's text."""
        found: Any = self.postings.score(
            self._source.words(text), w_lexical, w_adjacent, most, np.ascontiguousarray(also)
        )
        return found  # type: ignore[no-any-return]

    def sums(self, text: str, w_lexical: float, w_adjacent: float) -> Sums:
        """What a query's text says of every row."""
        return Sums(*self.postings.sums(self._source.words(text), w_lexical, w_adjacent))

    def memory(self) -> int:
        return int(self.postings.stats()["bytes"])

    def _remove(self, row_ids: NDArray[np.int64]) -> None:
        self.postings.remove(row_ids)

    def _put(self, rows: Placed) -> None:
        texts = list(rows.texts)
        lacking = [i for i, text in enumerate(texts) if text is None]
        if lacking:
            for i, text in zip(lacking, self._source.load([rows.names[i] for i in lacking]), strict=True):
                texts[i] = text
        keep = [i for i, text in enumerate(texts) if text is not None]
        self.postings.put(
            np.ascontiguousarray(rows.row_ids[keep]),
            np.array(self._numbers(rows.list_ids[keep], rows.columns[keep]), np.int64),
            np.ascontiguousarray(rows.ordinals[keep]),
            [self._source.words(texts[i] or "") for i in keep],
        )

    def _numbers(self, list_ids: NDArray[np.int64], columns: NDArray[np.int64]) -> list[int]:
        """The numbers of rows' runs. Rows of the past list follow none, and do not count."""
        numbers = []
        cells = columns[:, [KIND, AGENT, RUN]].tolist()
        for past, (kind, agent, run) in zip((list_ids % 2).tolist(), cells, strict=True):
            if past:
                numbers.append(OF_THE_PAST)
            elif run < 0:
                numbers.append(NO_RUN)
            else:
                numbers.append(self._runs.setdefault((kind, agent, run), len(self._runs)))
        return numbers
