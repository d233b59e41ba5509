"""Every owner's rows over a backend's row pool: loaded from the log when first needed, kept in step by
commits.

An owner has two lists, and two more of the same for rows that wait for their vectors, which only searches by
words read. Rows that may be visible now stand in the current list; rows whose truth or knowledge
has ended stand in the past list, which a search reads only when it asks for a moment before the last ending.
So an ordinary search costs nothing for history.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import IndexCorrupt
from ..ops.ids import owner_of
from ..ops.progress import Progress
from ..protocols import RowPool, SearchBackend
from ..records import (
    Match,
    Row,
    RowBlock,
    RowChange,
    RowHeader,
)
from . import tiers
from .checkpoint_file import CheckpointFile
from .item_columns import ItemColumns
from .loading import take_in
from .owner_names import NameSource
from .owner_words import TextSource
from .partition import Partition, lists_of, next_generation
from .prepared_partitions import PreparedPartitions
from .row_columns import N_COLUMNS, RowTable, table

_SPARE_NAMES = 4096
"""An owner with more names of removed rows than this, and than rows, is read anew: a name takes some 170
bytes, and thousands of owners change all day."""
_NOWHERE = (-1, -1)


class PartitionedIndex(PreparedPartitions):
    """Implements protocols.Index."""

    def __init__(
        self,
        backend: SearchBackend,
        dimension: int,
        load: Callable[[int], Iterable[RowBlock]],
        checkpoint: CheckpointFile | None = None,
        columns: Mapping[str, str] | None = None,
        progress: Callable[[int], Progress] | None = None,
        texts: TextSource | None = None,
        space: int = 0,
        naming: NameSource | None = None,
        budget: int = 0,
        items: Callable[[int], int] = lambda owner: 0,
    ) -> None:
        """load: owner -> its rows, with metadata if there are `columns`, the declared metadata keys and their
        types ("number", "string", "boolean"). progress: owner -> who is told how far loading its rows is.
        texts: for searches by words and neighbours. space: the number of the one whose rows it takes in.
        naming: for entities. budget: bytes of memory for owners, see ResidentPartitions; 0 is no bound.
        items: owner -> how many items he has, roughly."""
        self._backend = backend
        self._dimension = dimension
        self._load_rows = load
        self._progress = progress or (lambda owner: Progress(None, "", None))
        self._checkpoint = checkpoint
        self._texts = texts
        self._space = space
        self._naming = naming
        self._columns = ItemColumns(columns or {}, N_COLUMNS)
        self._n_columns = N_COLUMNS + len(self._columns)
        self._lock = threading.Lock()
        self._kinds: dict[str, int] = {}
        self._partitions: dict[int, Partition] = {}
        self._unsaved = 0  # rows that changes brought or took since the checkpoint
        self._reside(budget)
        self._reading(items)
        self._restore()

    def discard(self) -> None:
        if self._checkpoint is not None:
            self._checkpoint.discard()

    # ------------------------------------------------------------------------------------- changes

    def apply(self, changes: Sequence[RowChange]) -> None:
        for change in changes:
            if change.erased:
                self._ahead.forget(change.owner)
            partition = self._partitions.get(change.owner)
            if partition is None:
                continue
            with partition.lock:
                if partition.state == "loading":
                    partition.waiting.append(change)
                elif partition.state == "ready" and change.erased:
                    self._drop(change.owner, partition)
                elif partition.state == "ready":
                    self._apply(partition, change)

    def _apply(self, partition: Partition, change: RowChange) -> None:
        """Take in a change to a loaded partition, or drop the partition: the log rebuilds it when needed."""
        whole = False
        try:
            self._change(change.owner, partition, change.remove, change.add)
            whole = len(partition.names) <= 2 * len(self._places(change.owner, partition)) + _SPARE_NAMES
        except (MemoryError, IndexCorrupt):
            pass  # the change is durable; the log gives it back when memory allows
        finally:
            if not whole:
                self._drop(change.owner, partition)

    def _drop(self, owner: int, partition: Partition) -> None:
        """For holders of its lock. Where memory does not allow it, who next asks for the owner does it."""
        with self._lock:
            # First of all: a search that finds no rows must see why.
            partition.state = "dropped"
            partition.generation = next_generation()
            # Else the rows in the pool are those of another.
            if self._partitions.get(owner) is partition:
                self._pool.drop(lists_of(owner))
                del self._partitions[owner]

    def _partition(self, owner: int) -> Partition:
        """The loaded partition of an owner."""
        partition = self._partitions.get(owner)
        while partition is None or partition.state != "ready":
            with self._lock:
                partition = self._partitions.setdefault(owner, Partition())
            with self._ahead.held(partition.load_lock):
                if partition.state == "cold":
                    self._load(owner, partition)
                    self._charge(len(partition.names))
                elif partition.state == "dropped":
                    with partition.lock:
                        self._drop(owner, partition)
            partition.used = next(self._uses)
            self._within_budget((owner,))
        partition.used = next(self._uses)
        return partition

    def _load(self, owner: int, partition: Partition) -> None:
        """Read an owner's rows. Commits do not wait for it: their changes queue up and are applied at the
        end. A change that the scan saw already is applied twice, which is the same as once."""
        try:
            with partition.lock:
                partition.state = "loading"
                pool = self._pool
            progress = self._progress(owner)
            began = time.perf_counter()

            def taken(rows: int) -> None:
                self._ahead.check()
                progress.at(rows)

            take_in(
                pool,
                partition,
                self._load_rows(owner),
                functools.partial(self._table, owner, partition),
                taken,
            )
            progress.end(len(partition.names))
            self._ahead.took("rows", len(partition.names), time.perf_counter() - began)
            partition.unsaved = len(partition.names)
            partition.generation = next_generation()
            while True:
                with partition.lock:
                    waiting, partition.waiting = partition.waiting, []
                    if pool is not self._pool or any(change.erased for change in waiting):
                        self._drop(owner, partition)  # and the caller begins again
                        return
                    if not waiting and self._ready(partition, pool):
                        self._ahead.came(owner, "rows")
                        return
                for change in waiting:
                    self._change(owner, partition, change.remove, change.add)
        except BaseException:
            with partition.lock:
                self._drop(owner, partition)
            raise

    def _ready(self, partition: Partition, pool: RowPool) -> bool:
        """Let searches have a partition that was loaded into `pool`, unless that is another by now."""
        with self._lock:
            if pool is self._pool:
                partition.state = "ready"
            return pool is self._pool

    def _table(
        self,
        owner: int,
        partition: Partition,
        rows: Sequence[Row | RowHeader],
        metadata: Sequence[Any],
        vectors: NDArray[np.float32],
    ) -> RowTable:
        return table(owner, partition, rows, metadata, vectors, self._columns, self._kind_code)

    def _change(
        self, owner: int, partition: Partition, remove: Sequence[tuple[bytes, int]], add: Sequence[Row]
    ) -> None:
        add = [row for row in add if row.space == self._space]
        places = self._places(owner, partition)
        gone = [name for name in remove if name in places]
        # A row that is added again takes a new row id, so that the old place must go.
        gone += [name for row in add if (name := (row.key, row.version)) in places]
        removes = list({places[name] for name in gone})
        n = len(add)
        next_id = len(partition.names)
        vectors = np.array([row.vector for row in add], np.float32).reshape(n, self._dimension)
        made = self._table(owner, partition, add, [row.metadata for row in add], vectors)
        # Names come first: a search may return a row the moment the pool publishes it.
        partition.names.extend((row.key, row.version) for row in add)
        partition.changes += 1
        if removes or n:
            self._pool.apply(
                removes,
                made.list_ids,
                np.arange(next_id, next_id + n, dtype=np.int64),
                made.ordinals,
                made.columns,
                vectors,
            )
        if partition.words is not None or partition.entities is not None:
            self._change_kept(partition, [places[name][1] for name in gone], next_id, add, made)
        partition.changes += 1
        for name in gone:
            places.pop(name, None)
        for i, (row, list_id) in enumerate(zip(add, made.list_ids.tolist(), strict=True)):
            places[row.key, row.version] = (list_id, next_id + i)
        partition.past_until = made.past_until
        self._unsaved += len(gone) + n
        self._charge(n)
        partition.generation = next_generation()

    def _kind_code(self, kind: str) -> int:
        code = self._kinds.get(kind)
        if code is None:
            with self._lock:
                code = self._kinds.setdefault(kind, len(self._kinds))
        return code

    # --------------------------------------------------------------------------------------- other

    def row_keys(
        self, owner: int, generation: int = 0, rows: int = 0
    ) -> tuple[int, int, Sequence[tuple[bytes, int] | None]]:
        while True:
            partition = self._partition(owner)
            with partition.lock:
                first = 0 if generation < partition.born else rows
                try:
                    places = self._places(owner, partition)
                except IndexCorrupt:
                    self._give_up(owner, partition)
                    continue
                except IndexError:  # of rows of another partition, which took its place
                    if partition.state == "ready":
                        raise
                    continue
                if partition.state != "ready":
                    continue
                names = partition.names.several(np.arange(first, len(partition.names)))
                live = [
                    name if places.get(name, _NOWHERE)[1] == row_id else None
                    for row_id, name in enumerate(names, first)
                ]
                return partition.generation, first, live

    def decides(self, owner: int, node: Any) -> bool:
        return bool(self._columns) and self._columns.decides(node, self._partition(owner))

    def rows_since(self, owner: int, generation: int, rows: int) -> int | None:
        partition = self._partition(owner)
        return None if generation < partition.born else len(partition.names) - rows

    def vector(self, match: Match) -> NDArray[np.float32] | None:
        key, version = match[2:4]
        owner = owner_of(key)
        partition = self._partition(owner)
        try:
            with partition.lock:
                place = self._places(owner, partition).get((key, version))
            if place is None:
                return None
            found: NDArray[np.float32] = self._pool.vectors(place[0], np.array([place[1]], np.int64))[0]
        except (KeyError, IndexCorrupt):
            return None
        except IndexError:  # as in row_keys
            if partition.state == "ready":
                raise
            return None
        # Else another's row may stand there by now.
        return found if partition.state == "ready" else None

    def to_device(self, arrays: Sequence[NDArray[np.float32]]) -> list[Any]:
        return tiers.put(self._pool, arrays)

    def warm(self, owner: int, *, words: bool, entities: bool, wait: bool) -> int:
        while True:
            self._have(owner, "rows")
            if words:
                self._have(owner, "words")
            if entities:
                self._have(owner, "entities")
            try:
                return tiers.warm(self._pool, np.array(lists_of(owner)[:2], np.int64), wait=wait)
            except IndexCorrupt:
                partition = self._partition(owner)
                with partition.lock:
                    self._give_up(owner, partition)

    def evict(self, owner: int) -> None:
        tiers.evict(self._pool, np.array(lists_of(owner), np.int64))

    def rebuild_device(self) -> bool:
        return tiers.rebuild(self._pool)

    def stop(self) -> None:
        self._ahead.stop()
        tiers.stop(self._pool)

    def close(self) -> None:
        self._ahead.close()
        tiers.close(self._pool)

    def compact(self, owner: int) -> int:
        partition = self._partitions.get(owner)
        if partition is None:
            return 0
        with partition.lock:
            if partition.state != "ready":
                return 0
            pool = self._pool
            before = pool.stats()["dead"]
            try:
                for list_id in lists_of(owner):
                    pool.compact(list_id)
            except IndexCorrupt:
                self._give_up(owner, partition)
            return max(0, before - pool.stats()["dead"])

    def plan(self) -> str:
        said = f"exact scan, {self._backend.name}/{self._pool.isa}, float32 rows in pages of 64"
        failure = tiers.failure(self._pool)
        return said if failure is None else f"{said}; the device does not answer, the CPU does: {failure}"

    def stats(self) -> dict[str, int]:
        pages = int(self.tiers().get("pages", 0))
        held = {"owners": len(self._partitions), "unloaded": self.unloaded, "device_pages": pages}
        return {**self._pool.stats(), **held}

    def tiers(self) -> dict[str, Any]:
        return tiers.tiers(self._pool)
