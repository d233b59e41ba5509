"""A bounded cache of decoded items, filled by readers and emptied by commits."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ..ops.ids import owner_of
from ..protocols import Log
from ..records import Record, RowChange, VersionName
from ..types import MemoryItem


class ItemCache:
    """Current records by key; the oldest entries leave first.

    A reader that fetched a record before a commit must not put it back after it: `put` is told the log's
    epoch at which the fetch began and does nothing when a change has landed since.
    """

    def __init__(self, log: Log, capacity: int) -> None:
        self._log = log
        self._capacity = capacity
        self._lock = threading.Lock()
        self._records: dict[bytes, Record] = {}
        self.hits = 0
        self.misses = 0

    def fetch(self, keys: Sequence[bytes]) -> list[Record | None]:
        """Current records, from the cache where it has them and from the log where not."""
        records = self._records
        found = [records.get(key) for key in keys]
        if None not in found:
            self.hits += len(keys)
            return found
        missing = [i for i, record in enumerate(found) if record is None]
        self.hits += len(keys) - len(missing)
        if missing:
            self.misses += len(missing)
            epoch = self._log.epoch
            fresh = self._log.get_many([keys[i] for i in missing])
            for i, record in zip(missing, fresh, strict=True):
                found[i] = record
            self._put((record for record in fresh if record is not None), epoch)
        return found

    def _put(self, records: Iterable[Record], epoch: int) -> None:
        with self._lock:
            if epoch != self._log.epoch:
                return
            for record in records:
                if len(self._records) >= self._capacity:
                    del self._records[next(iter(self._records))]
                self._records[record.key] = record

    def forget(self, changes: Sequence[RowChange]) -> None:
        """Drop every item that committed changes touched."""
        with self._lock:
            for change in changes:
                if change.erased:
                    for key in [key for key in self._records if owner_of(key) == change.owner]:
                        del self._records[key]
                for key in change.keys:
                    self._records.pop(key, None)

    def sizes(self) -> dict[str, float]:
        """items, capacity, hits, misses, hit_rate."""
        return {
            "items": len(self._records),
            "capacity": self._capacity,
            "hits": self.hits,
            "misses": self.misses,
            "hit_rate": self.hits / max(1, self.hits + self.misses),
        }


def own(item: MemoryItem) -> MemoryItem:
    """A copy for a caller, whose changes to its metadata must not reach what others read."""
    copied = copy.copy(item)
    msgspec.structs.force_setattr(copied, "metadata", _plain(item.metadata))
    return copied


def _plain(value: Any) -> Any:
    if type(value) is dict:
        return {key: _plain(entry) for key, entry in value.items()}
    if type(value) is list:
        return [_plain(entry) for entry in value]
    return value


def entities_of(log: Log, names: Sequence[VersionName]) -> list[Sequence[str] | None]:
    """What item versions name; None for one that was erased."""
    return [None if item is None else item.entities for item in versions_of(log, names)]


def versions_of(log: Log, names: Sequence[VersionName]) -> list[MemoryItem | None]:
    """Item versions; None for one that was erased."""
    found = log.get_many([key for key, _ in names])
    items: list[MemoryItem | None] = []
    for (key, version), record in zip(names, found, strict=True):
        if record is None or record.item.version != version:
            record = log.get_version(key, version)
        items.append(None if record is None else record.item)
    return items
