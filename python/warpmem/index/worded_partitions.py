"""The words of the partitioned index: read when a search first asks, kept in step by commits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import WarpmemError
from ..records import Row
from .owner_words import OwnerWords, Placed, TextSource
from .partition import Partition, lists_of
from .row_columns import RowTable
from .saved_partitions import SavedPartitions


class WordedPartitions(SavedPartitions):
    """The part of PartitionedIndex that knows words."""

    _texts: TextSource | None

    def _words(self, owner: int, partition: Partition) -> OwnerWords:
        """An owner's words, read when they are first asked for. Commits do not wait for it."""
        with partition.words_lock:
            with partition.lock:
                known: OwnerWords | None = partition.words
                if known is not None:
                    return known
                assert self._texts is not None, "an index without texts was asked for words"
                words = OwnerWords(self._texts)
                if partition.state != "ready":
                    return words  # the search will be made again
                rows = self._placed(owner, partition)
                partition.words = words
            try:
                words.build(rows)
            except BaseException:
                with partition.lock:
                    partition.words = None
                raise
            return words

    def _placed(self, owner: int, partition: Partition) -> Placed:
        """Every live row. For holders of the partition's lock."""
        found = [(list_id, self._pool.rows(list_id)) for list_id in lists_of(owner)]
        row_ids = np.concatenate([rows[0] for _, rows in found])
        return Placed(
            [partition.names[row_id] for row_id in row_ids.tolist()],
            row_ids,
            np.concatenate([np.full(len(rows[0]), list_id, np.int64) for list_id, rows in found]),
            np.concatenate([rows[1] for _, rows in found]),
            np.concatenate([rows[2] for _, rows in found]),
            [None] * len(row_ids),
        )

    def _change_words(
        self, partition: Partition, gone: Sequence[int], next_id: int, add: Sequence[Row], made: RowTable
    ) -> None:
        """Take a change in, or forget the words: they are read again when they are next asked for."""
        words = partition.words
        n = len(add)
        try:
            words.change(
                np.array(gone, np.int64),
                Placed(
                    [(row.key, row.version) for row in add],
                    np.arange(next_id, next_id + n, dtype=np.int64),
                    made.list_ids,
                    made.ordinals,
                    made.columns,
                    [row.text for row in add],
                )
                if n
                else None,
            )
        except (MemoryError, WarpmemError):
            partition.words = None
