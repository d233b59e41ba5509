"""Which items name which as their sources, of a whole store in little memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .ids import KEY_BYTES


class Naming:
    """Pairs of a source and an item that names it, by their keys. Takes 48 bytes a pair; a dict of lists
    would take several hundred."""

    def __init__(self) -> None:
        self._sources = bytearray()
        self._items = bytearray()
        self._order: np.ndarray[tuple[int], np.dtype[np.intp]] | None = None

    def add(self, source: bytes, item: bytes) -> None:
        """Take in a pair. Before the first question."""
        self._sources += source
        self._items += item

    def add_newer(self, source: bytes, item: bytes) -> None:
        """Take in a pair where a walk by keys meets the source behind the item."""
        if source > item:
            self.add(source, item)

    def of(self, source: bytes) -> Iterator[bytes]:
        """The items that name a source, in the order in which they came."""
        keys = np.frombuffer(self._sources, f"S{KEY_BYTES}")  # of one length: NULs at the end do no harm
        if self._order is None:
            self._order = np.argsort(keys, kind="stable")
        first, last = (
            int(np.searchsorted(keys, np.bytes_(source), side, sorter=self._order))
            for side in ("left", "right")
        )
        for at in self._order[first:last].tolist():
            yield bytes(self._items[at * KEY_BYTES : (at + 1) * KEY_BYTES])
