"""Which list an id stands in: a map from int64 to int64 over arrays.

The native module's map is used where there is one; `DictIdMap` serves elsewhere and says what is expected.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from . import cpu

I64 = NDArray[np.int64]


class IdMap(Protocol):
    """Keys and values are int64 (n,). Thread-safe; a call that fails for want of memory changes nothing."""

    def put(self, keys: I64, values: I64) -> None: ...
    def get(self, keys: I64, default: int) -> I64: ...
    def pop(self, keys: I64, default: int) -> I64: ...
    def contains(self, keys: I64) -> NDArray[np.bool_]: ...
    def __len__(self) -> int: ...


class DictIdMap:
    """IdMap over a dict."""

    def __init__(self) -> None:
        self._lists: dict[int, int] = {}

    def put(self, keys: I64, values: I64) -> None:
        self._lists.update(zip(keys.tolist(), values.tolist(), strict=True))

    def get(self, keys: I64, default: int) -> I64:
        get = self._lists.get
        return np.array([get(key, default) for key in keys.tolist()], np.int64)

    def pop(self, keys: I64, default: int) -> I64:
        pop = self._lists.pop
        return np.array([pop(key, default) for key in keys.tolist()], np.int64)

    def contains(self, keys: I64) -> NDArray[np.bool_]:
        lists = self._lists
        return np.array([key in lists for key in keys.tolist()], np.bool_)

    def __len__(self) -> int:
        return len(self._lists)


def make_id_map() -> IdMap:
    """An empty map."""
    module, _ = cpu._load()
    native = getattr(module, "IdMap", None)
    made: IdMap = DictIdMap() if native is None else native()
    return made
