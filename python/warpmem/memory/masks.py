"""Which rows of an owner pass a filter that the index cannot decide, kept until his rows change."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..policy.filters import CompiledFilter
from ..protocols import Index, Log
from ..records import RowChange
from .cache import ItemCache

_MASKS = 256
_FETCH = 1024


class Mask(NamedTuple):
    """Which of an owner's first `rows` rows pass a filter. Rows never change, so this stays true."""

    generation: int
    rows: int
    words: NDArray[np.uint64]

    def bitmap(self, spare: int) -> NDArray[np.uint64]:
        """The rows that pass and all of the next `spare` rows."""
        if not spare:
            return self.words
        words = np.full((self.rows + spare + 63) // 64, ~np.uint64(0))
        words[: len(self.words)] = self.words
        if self.rows % 64:
            words[self.rows // 64] |= ~np.uint64(0) << np.uint64(self.rows % 64)
        return words


class FilterMasks:
    """The masks of one index. Thread-safe."""

    def __init__(self, log: Log, index: Index, cache: ItemCache) -> None:
        self._log = log
        self._index = index
        self._cache = cache
        self._lock = threading.Lock()
        self._masks: OrderedDict[tuple[int, bytes], Mask] = OrderedDict()

    def get(self, owner: int, compiled: CompiledFilter) -> Mask:
        """The rows whose item version passes a filter."""
        name = (owner, compiled.canonical)
        cacheable = "touched_at" not in compiled.fields
        with self._lock:
            cached = self._masks.get(name)
            if cached is not None:
                self._masks.move_to_end(name)
        if cacheable and cached is not None and cached.generation == self._index.generation(owner):
            return cached
        generation, names = self._index.row_keys(owner)
        bits = np.zeros((len(names) + 63) // 64 * 64, np.uint8)
        live = [(row_id, row_name) for row_id, row_name in enumerate(names) if row_name is not None]
        for start in range(0, len(live), _FETCH):
            chunk = live[start : start + _FETCH]
            for (row_id, (key, version)), current in zip(
                chunk, self._cache.fetch([key for _, (key, _) in chunk]), strict=True
            ):
                record = current
                if record is not None and record.item.version != version:
                    record = self._log.get_version(key, version)
                if record is not None and record.item.version == version and compiled.matches(record.item):
                    bits[row_id] = 1
        mask = Mask(generation, len(names), np.packbits(bits, bitorder="little").view(np.uint64))
        if cacheable:
            with self._lock:
                self._masks[name] = mask
                while len(self._masks) > _MASKS:
                    self._masks.popitem(last=False)
        return mask

    def forget(self, changes: Sequence[RowChange]) -> None:
        """Drop the masks of owners of whom something was erased: a filter may have asked for it by name."""
        erased = {change.owner for change in changes if change.erased}
        if erased:
            with self._lock:
                for name in [name for name in self._masks if name[0] in erased]:
                    del self._masks[name]
