"""Owners of the partitioned index who are not read yet, and searches that have little time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from ..errors import IndexCorrupt
from .named_partitions import NamedPartitions
from .partition import Partition
from .read_ahead import ReadAhead, Unread, What


class PreparedPartitions(NamedPartitions):
    """The part of PartitionedIndex that reads an owner for a search before it is made, if there is time.

    A search is late by what is read at once at most, some thousand rows or texts: where an owner has more of
    them than items, too. What is unloaded or dropped between this and the search is read by the search, for
    as long as it takes.
    """

    _items: Callable[[int], int]
    """How many items an owner has."""

    def _reading(self, items: Callable[[int], int]) -> None:
        self._items = items
        self._ahead = ReadAhead(self._have)

    def prepare(self, owners: Iterable[int], what: What, within: float, *, patient: bool) -> bool:
        until = time.monotonic() + within
        unread = []
        for owner in owners:
            partition = self._partitions.get(owner)
            if partition is None or partition.state != "ready":
                unread.append(Unread(owner, what, self._items(owner)))
            elif what != "rows":
                kept = partition.words if what == "words" else partition.entities
                if kept is None or not kept.whole:
                    unread.append(Unread(owner, what, len(partition.names)))
        return not unread or (
            self._ahead.within(unread, within, patient=patient) and self._ahead.read(unread, until)
        )

    def _unload(self, owner: int, partition: Partition) -> bool:
        unloaded = super()._unload(owner, partition)
        if unloaded:
            self._ahead.forget(owner)
        return unloaded

    def _have(self, owner: int, what: What) -> None:
        """Read it, if it is not there."""
        while True:
            partition = self._partition(owner)
            try:
                if what == "words":
                    self._words(owner, partition)
                elif what == "entities":
                    self._names(owner, partition)
                return
            except IndexCorrupt:
                with partition.lock:
                    self._give_up(owner, partition)
            except IndexError:  # as in row_keys
                if partition.state == "ready":
                    raise
