"""What the partitioned index keeps of owners beside their rows, words and names: read when a search first
asks, kept in step by commits."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import numpy as np

from ..errors import WarpmemError
from ..records import Row
from .owner_rows import OwnerRows, Placed
from .owner_words import OwnerWords, TextSource
from .partition import NamesOf, Partition, lists_of
from .read_ahead import ReadAhead
from .resident_partitions import ResidentPartitions
from .row_columns import RowTable

Kept = TypeVar("Kept", bound=OwnerRows)


class WordedPartitions(ResidentPartitions):
    """The part of PartitionedIndex that knows words."""

    _texts: TextSource | None
    _ahead: ReadAhead

    def _words(self, owner: int, partition: Partition) -> OwnerWords:
        assert self._texts is not None, "an index without texts was asked for words"
        return self._kept(owner, partition, "words", functools.partial(OwnerWords, self._texts))

    def _kept(
        self, owner: int, partition: Partition, name: Literal["words", "entities"], make: Callable[[], Kept]
    ) -> Kept:
        """What is kept under a name, read when it is first asked for. Commits do not wait for it."""
        with self._ahead.held(partition.words_lock):
            with partition.lock:
                known: Kept | None = getattr(partition, name)
                if known is not None:
                    return known
                kept = make()
                if partition.state != "ready":
                    return kept  # the search will be made again
                rows = self._placed(owner, partition)
                setattr(partition, name, kept)
            began = time.perf_counter()
            try:
                kept.build(rows, self._ahead.check)
            except BaseException:
                with partition.lock:
                    setattr(partition, name, None)
                raise
            self._ahead.took(name, len(rows.names), time.perf_counter() - began)
            self._ahead.came(owner, name)
            self._charge(len(rows.names), words=True)
            return kept

    def _placed(self, owner: int, partition: Partition) -> Placed:
        """Every live row, by its id. For holders of the partition's lock."""
        found = [(list_id, self._pool.rows(list_id)) for list_id in lists_of(owner)]
        row_ids = np.concatenate([rows[0] for _, rows in found])
        order = np.argsort(row_ids)
        row_ids = row_ids[order]
        unknown = [None] * len(row_ids)
        return Placed(
            NamesOf(partition.names, row_ids),
            row_ids,
            np.concatenate([np.full(len(rows[0]), list_id, np.int64) for list_id, rows in found])[order],
            np.concatenate([rows[1] for _, rows in found])[order],
            np.concatenate([rows[2] for _, rows in found])[order],
            unknown,
            unknown,
        )

    def _change_kept(
        self, partition: Partition, gone: Sequence[int], next_id: int, add: Sequence[Row], made: RowTable
    ) -> None:
        """Take a change in, or forget what is kept: it is read again when it is next asked for."""
        removed = np.array(gone, np.int64)
        added = Placed(
            [(row.key, row.version) for row in add],
            np.arange(next_id, next_id + len(add), dtype=np.int64),
            made.list_ids,
            made.ordinals,
            made.columns,
            [row.text for row in add],
            [row.entities for row in add],
        )
        for name in ("words", "entities"):
            kept: OwnerRows | None = getattr(partition, name)
            try:
                if kept is not None:
                    kept.change(removed, added if add else None)
            except (MemoryError, WarpmemError):
                setattr(partition, name, None)
