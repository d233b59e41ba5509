"""How many owners the partitioned index keeps in memory: as many as a budget of bytes holds."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

from .partition import Name, Partition
from .saved_partitions import SavedPartitions

_PAGE_ROWS: Final = 64
_LISTS: Final = 2  # of an owner that begin a page of their own
_ROW_OF_WORDS: Final = 500  # bytes, roughly


class ResidentPartitions(SavedPartitions):
    """The part of PartitionedIndex that forgets owners: those that were asked for longest ago, whose rows the
    log gives again. Of an owner whose rows are all mapped from the checkpoint it forgets what it made of
    them: the system takes the file's pages back by itself.

    Memory is added up when enough may have come since it last was; nobody waits for that, and what is in use
    stays. A search that finds an owner forgotten under it begins again, and while it does so all stay, as
    while the index is saved: what is saved must not change."""

    _budget: int
    """Bytes; 0 is no bound."""
    _slack: int
    """That may come before memory is added up."""
    _uses: Iterator[int]
    _stuck: tuple[int, frozenset[int]] | None
    """What was to come and who was wanted when last nobody else could be forgotten and it was too much."""
    unloaded: int

    def _reside(self, budget: int) -> None:
        self._budget = self._slack = budget
        self._uses = itertools.count(1)
        self._staying = 0  # searches that began again, and savings
        self._stuck = None
        self._trimming = threading.Lock()
        self.unloaded = 0

    def _charge(self, rows: int, *, words: bool = False) -> None:
        """So many rows of an owner came into memory, or what was made of their texts. A guess."""
        if self._budget and words:
            self._slack -= rows * _ROW_OF_WORDS
        elif self._budget:
            self._slack -= _pages(rows) * _PAGE_ROWS * (5 * self._dimension + 8 * self._n_columns + 16)

    def _places(self, owner: int, partition: Partition) -> dict[Name, tuple[int, int]]:
        """As Partition.places, and takes down what that brings into memory."""
        placed = partition.placed()
        found = partition.places(owner, self._pool)
        if not placed:
            self._charge(len(found), words=True)
        return found

    def _stay(self, callers: int) -> None:
        """So many more callers want everybody to stay, or fewer."""
        with self._lock:
            self._staying += callers

    @contextmanager
    def staying(self) -> Iterator[None]:
        self._stay(1)
        try:
            yield
        finally:
            self._stay(-1)

    def checkpoint(self, least_changes: int = 0) -> bool:
        with self.staying():
            return super().checkpoint(least_changes)

    def _within_budget(self, wanted: Collection[int]) -> None:
        """Forget owners where there are more than the budget holds, but not those who are wanted."""
        if self._slack >= 0 or not self._budget or self._staying:
            return
        stuck = self._stuck
        if stuck is not None and stuck[0] == self._slack and stuck[1].issubset(wanted):
            return  # as it was then
        if not self._trimming.acquire(blocking=False):
            return
        try:
            self._trim(wanted)
        finally:
            self._trimming.release()

    def _trim(self, wanted: Collection[int]) -> None:
        stats = self._pool.stats()
        page = stats["bytes"] / max(1, stats["pages"])
        found = []
        total = 0.0
        left = 0  # who might have gone, and did not
        for owner, partition in list(self._partitions.items()):
            names = partition.names
            rows = names.came() if partition.mapped else len(names)
            own = partition.memory() + (page * _pages(rows) if rows else 0)
            total += own
            if owner not in wanted:
                found.append((partition.used, owner, partition, own))
        if total > self._budget:
            for _, owner, partition, own in sorted(found, key=lambda one: one[0]):
                if total <= self._budget * 7 // 8:
                    break
                if own and self._unload(owner, partition):
                    total -= own
                elif own:
                    left += 1
        self._slack = int(self._budget - total)
        self._stuck = None if left else (self._slack, frozenset(wanted))

    def _unload(self, owner: int, partition: Partition) -> bool:
        if not partition.lock.acquire(blocking=False):
            return False
        try:
            if partition.state != "ready":
                return False
            if partition.mapped and not partition.names.came():
                partition.forget()
            else:
                self._drop(owner, partition)
        except MemoryError:
            return False
        finally:
            partition.lock.release()
        self.unloaded += 1
        return True


def _pages(rows: int) -> int:
    return rows // _PAGE_ROWS + _LISTS
