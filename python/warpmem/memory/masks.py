"""Which rows of an owner pass a filter that the index cannot decide, kept until his rows change."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DeadlineExceeded
from ..policy.filters import CompiledFilter
from ..protocols import Index, Log
from ..records import RowChange, VersionName
from .cache import ItemCache
from .deadline import Deadline

_MASKS = 256
_FETCH = 1024
_STAGE = "the filter was applied to all of the owner's items; what it knows so far is kept"
_STAGE_ANEW = "the filter was applied to all of the owner's items"


class Mask(NamedTuple):
    """Which of an owner's first `rows` rows pass a filter. A row never changes, it goes and another comes, so
    this stays true until his rows are numbered anew.

    generation: they have not been since
    """

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

    def get(self, owner: int, compiled: CompiledFilter, deadline: Deadline) -> Mask:
        """The rows whose item version passes a filter. Only those are read that came since it was asked for
        last. Raises DeadlineExceeded; the next search goes on from there."""
        name = (owner, compiled.canonical)
        kept = "touched_at" not in compiled.fields  # which changes without a new row
        with self._lock:
            mask = self._masks.get(name, _NOTHING)
            if mask is not _NOTHING:
                self._masks.move_to_end(name)
        generation, first, names = self._index.row_keys(owner, mask.generation, mask.rows)
        if first == mask.rows and not names:
            return mask._replace(generation=generation)
        bits = np.zeros((first + len(names) + 63) // 64 * 64, np.uint8)
        bits[:first] = np.unpackbits(mask.words.view(np.uint8), count=first, bitorder="little")
        for start in range(0, len(names), _FETCH):
            try:
                deadline.check(_STAGE if kept else _STAGE_ANEW)
            except DeadlineExceeded:
                self._keep(name, Mask(generation, first + start, _packed(bits, first + start)), kept)
                raise
            self._apply(compiled, names[start : start + _FETCH], bits[first + start :])
        mask = Mask(generation, first + len(names), _packed(bits, first + len(names)))
        self._keep(name, mask, kept)
        return mask

    def _apply(
        self, compiled: CompiledFilter, names: Sequence[VersionName | None], bits: NDArray[np.uint8]
    ) -> None:
        """Set the bits of those that pass."""
        live = [(place, name) for place, name in enumerate(names) if name is not None]
        records = self._cache.fetch([key for _, (key, _) in live])
        for (place, (key, version)), record in zip(live, records, strict=True):
            if record is not None and record.item.version != version:
                record = self._log.get_version(key, version)
            if record is not None and record.item.version == version and compiled.matches(record.item):
                bits[place] = 1

    def _keep(self, name: tuple[int, bytes], mask: Mask, kept: bool) -> None:
        if kept:
            with self._lock:
                self._masks[name] = mask
                while len(self._masks) > _MASKS:
                    self._masks.popitem(last=False)

    def forget(self, changes: Sequence[RowChange]) -> None:
        """Drop the masks of owners of whom something was erased: a filter may have asked for it by name."""
        erased = {change.owner for change in changes if change.erased}
        if erased:
            with self._lock:
                for name in [name for name in self._masks if name[0] in erased]:
                    del self._masks[name]


def _packed(bits: NDArray[np.uint8], rows: int) -> NDArray[np.uint64]:
    """Of the first `rows`."""
    return np.packbits(bits[: (rows + 63) // 64 * 64], bitorder="little").view(np.uint64)


_NOTHING: Final = Mask(0, 0, np.zeros(0, np.uint64))
