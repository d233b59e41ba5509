"""The index of a store between its openings, and after an erasure: restored, saved, begun anew."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Literal

from ..errors import IndexCorrupt, StoreError
from ..protocols import RowPool, SearchBackend
from ..records import RowChange
from .checkpoint_file import CheckpointFile, Restored
from .partition import Partition, lists_of, next_generation


class SavedPartitions:
    """The part of PartitionedIndex that knows its checkpoint."""

    _backend: SearchBackend
    _dimension: int
    _n_columns: int
    _checkpoint: CheckpointFile | None
    _lock: threading.Lock
    _kinds: dict[str, int]
    _partitions: dict[int, Partition]
    _pool: RowPool
    _unsaved: int
    restored = "no checkpoint"

    def apply(self, changes: Sequence[RowChange]) -> None: ...
    def _drop(self, owner: int, partition: Partition) -> None: ...

    def _restore(self) -> None:
        """Start from a checkpoint, or from nothing: what it cannot give, the log can."""
        found = None if self._checkpoint is None else self._read(self._checkpoint)
        if found is None:
            self._pool = self._backend.pool(self._dimension, self._n_columns)
            return
        self._pool, self._kinds, self._partitions, changes = found
        self.apply(changes)
        self.restored = f"{len(found.partitions)} owners from the checkpoint, {len(changes)} changed since"

    def _read(self, checkpoint: CheckpointFile) -> Restored | None:
        try:
            return checkpoint.read(self._dimension, self._n_columns)
        except FileNotFoundError:
            return None
        except (StoreError, ValueError) as error:
            self.restored = f"checkpoint not used: {error}"
            return None

    def checkpoint(self, least_changes: int = 0) -> bool:
        if least_changes:
            least_changes = max(least_changes, self._pool.stats()["rows"] // 10)
        before = self._unsaved
        # Who was read and forgotten again is nothing that a checkpoint could hold.
        read = [(part, part.unsaved) for part in list(self._partitions.values()) if part.state == "ready"]
        if self._checkpoint is None or before + sum(rows for _, rows in read) < least_changes:
            return False
        try:
            written = self._checkpoint.write(self._pool, self._kinds, dict(self._partitions))
        except IndexCorrupt:
            # Pages of the last checkpoint are damaged. All owners are read from the log when next needed.
            for owner, partition in list(self._partitions.items()):
                with partition.lock:
                    self._give_up(owner, partition)
            written = self._checkpoint.write(self._pool, self._kinds, dict(self._partitions))
        if written:
            self._unsaved -= before
            for partition, rows in read:
                partition.unsaved -= rows
        return written

    def _give_up(self, owner: int, partition: Partition) -> None:
        """Drop a partition with a damaged page, unless that was done. For holders of its lock."""
        if partition.state == "ready":
            self._drop(owner, partition)

    def renew(self) -> Literal["none", "rewritten", "removed"]:
        checkpoint = self._checkpoint
        if checkpoint is None or not checkpoint.exists():
            return "none"
        try:
            written = self.checkpoint()
        except (StoreError, MemoryError):
            written = False
        if not written:
            checkpoint.between_changes(checkpoint.remove)
        checkpoint.between_changes(self._exchange)
        return "rewritten" if written else "removed"

    def _exchange(self) -> None:
        """Go on with a pool that maps the checkpoint as it is now, or with an empty one: the one before maps
        a file that has no name any more, whose bytes stay on the disk until nobody maps it."""
        checkpoint = self._checkpoint
        found = None if checkpoint is None else self._read(checkpoint)
        if found is None:
            found = Restored(self._backend.pool(self._dimension, self._n_columns), {}, {}, [])
        with self._lock:
            loading = {o: part for o, part in self._partitions.items() if part.state in ("cold", "loading")}
            # One that is about to be read from the log comes into lists that are empty, as any other.
            found.pool.drop([one for owner in loading for one in lists_of(owner)])
            # Searches that have one of these begin again; loads of the others do, when they end.
            for partition in self._partitions.values():
                if partition.state == "ready":
                    partition.state = "dropped"
                    partition.generation = next_generation()
            for partition in found.partitions.values():
                partition.renewed()  # else a mask of rows that were read meanwhile passes for one of theirs
            # In this order: who reads rows into the new pool numbers their kinds as it does.
            self._kinds = found.kinds
            self._pool = found.pool
            self._partitions = {**found.partitions, **loading}
        self.apply(found.changes)
