"""What is kept of one owner's rows beside the pool: built when first asked for, changed by commits."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .partition import Name

_BATCH = 1024


class Placed(NamedTuple):
    """n rows that came: names, row_ids (n,) int64, list_ids (n,) int64, ordinals (n,) uint32, columns (n,
    n_columns) int64, and their texts and entities where they are known."""

    names: Sequence[Name]
    row_ids: NDArray[np.int64]
    list_ids: NDArray[np.int64]
    ordinals: NDArray[np.uint32]
    columns: NDArray[np.int64]
    texts: Sequence[str | None]
    entities: Sequence[Sequence[str] | None]

    def part(self, rows: slice) -> Placed:
        return Placed(
            self.names[rows],
            self.row_ids[rows],
            self.list_ids[rows],
            self.ordinals[rows],
            self.columns[rows],
            self.texts[rows],
            self.entities[rows],
        )


class OwnerRows(ABC):
    """Of one owner. `build` reads what is there; changes that come meanwhile wait for its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[NDArray[np.int64], Placed | None]] | None = []

    @abstractmethod
    def _remove(self, row_ids: NDArray[np.int64]) -> None: ...
    @abstractmethod
    def _put(self, rows: Placed) -> None: ...

    @abstractmethod
    def memory(self) -> int:
        """Bytes, roughly."""

    @property
    def whole(self) -> bool:
        """Whether it is built."""
        return self._waiting is None

    def build(self, rows: Placed, check: Callable[[], None] = lambda: None) -> None:
        """Take in the rows there were when this object began to be told of changes. check: called from time
        to time, and may end it by what it raises."""
        for start in range(0, len(rows.names), _BATCH):
            check()
            self._put(rows.part(slice(start, start + _BATCH)))
        while True:
            with self._lock:
                waiting, self._waiting = self._waiting or [], []
                if not waiting:
                    self._waiting = None
                    return
            for removed, added in waiting:
                self._take(removed, added)

    def change(self, removed: NDArray[np.int64], added: Placed | None) -> None:
        """Take in one change: row ids that went, then rows that came. In the order of the changes."""
        with self._lock:
            if self._waiting is not None:
                self._waiting.append((removed, added))
                return
        self._take(removed, added)

    def _take(self, removed: NDArray[np.int64], added: Placed | None) -> None:
        if len(removed):
            self._remove(removed)
        if added is not None:
            self._put(added)
