"""What changes of the log mean for whoever keeps something that follows from them."""

from __future__ import annotations

from collections.abc import Iterable

from ..protocols import Log
from ..records import LogEntry, RowChange
from .ids import owner_of


def touched(entries: Iterable[LogEntry]) -> dict[int, dict[bytes, int]]:
    """By owner, the item keys that changes touched and the largest version each reached."""
    found: dict[int, dict[bytes, int]] = {}
    for entry in entries:
        keys = found.setdefault(owner_of(entry.key), {})
        keys[entry.key] = max(entry.version, keys.get(entry.key, 0))
    return found


def row_changes(log: Log, owner: int, keys: dict[bytes, int], *, metadata: bool) -> RowChange:
    """The change that brings an owner's rows from before some changes, which `touched` these keys, to now."""
    remove = [(key, version + 1) for key, last in keys.items() for version in range(last)]
    add = [row for key in keys for row in log.item_rows(key, metadata=metadata)]
    return RowChange(owner, tuple(keys), remove, add)
