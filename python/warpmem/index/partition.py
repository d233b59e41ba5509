"""One owner's bookkeeping in the partitioned index: which row is which version of which item."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, overload

import numpy as np
from numpy.typing import NDArray

from ..protocols import RowPool
from ..records import RowChange

Name = tuple[bytes, int]
"""(item key, version)."""

KEY_BYTES = 20
NAME_BYTES = KEY_BYTES + 4
_PACKED: Final = np.dtype([("key", f"V{KEY_BYTES}"), ("version", ">u4")])
PAST = 1
_TAIL_BYTES = 170  # of a name that came by itself, roughly, and of its place
_PLACE_BYTES = 250
BLANK = 1 << 40
"""What the ids of an owner's lists add to that of his current one: above every owner's."""
_generations = itertools.count()


def next_generation() -> int:
    """A number that no partition had before."""
    return next(_generations)


class Names:
    """The name of every row id ever given out. Only grows, so that readers need no lock.

    The first names may lie in the bytes of a checkpoint: 24 each, key and big-endian version.
    """

    __slots__ = ("_base", "_n_base", "_tail")

    def __init__(self, base: memoryview | bytes = b"") -> None:
        self._base: memoryview | bytes | bytearray = base
        self._n_base = len(base) // NAME_BYTES
        self._tail: list[Name] = []

    def __len__(self) -> int:
        return self._n_base + len(self._tail)

    def __getitem__(self, row_id: int) -> Name:
        at = row_id - self._n_base
        if at >= 0:
            return self._tail[at]
        start = row_id * NAME_BYTES
        split = start + KEY_BYTES
        return bytes(self._base[start:split]), int.from_bytes(self._base[split : split + 4], "big")

    def several(self, row_ids: NDArray[np.int64]) -> list[Name]:
        """The names of row ids, (n,)."""
        if not len(row_ids) or row_ids.max() >= self._n_base:
            return [self[row_id] for row_id in row_ids.tolist()]
        found = np.frombuffer(self._base, _PACKED, self._n_base)[row_ids]
        return list(zip(found["key"].tolist(), found["version"].tolist(), strict=True))

    def extend(self, names: Iterable[Name]) -> None:
        self._tail.extend(names)

    def begin(self, names: bytes) -> None:
        """Append names as the constructor takes them, before the first extend()."""
        if self._tail:
            raise ValueError("names were appended one by one before")
        if not isinstance(self._base, bytearray):
            self._base = bytearray(self._base)
        self._base += names
        self._n_base = len(self._base) // NAME_BYTES

    def came(self) -> int:
        """How many came one by one: with a checkpoint's, since it was written."""
        return len(self._tail)

    def memory(self) -> int:
        """Bytes, roughly, without a checkpoint's."""
        own = len(self._base) if isinstance(self._base, bytearray) else 0
        return own + _TAIL_BYTES * len(self._tail)

    def tobytes(self) -> bytes:
        """What the constructor takes."""
        tail = b"".join(key + version.to_bytes(4, "big") for key, version in self._tail)
        return bytes(self._base) + tail


class NamesOf(Sequence[Name]):
    """Those of row ids, (n,), looked up some at a time: of all of an owner's rows it takes a while."""

    __slots__ = ("_names", "_row_ids")

    def __init__(self, names: Names, row_ids: NDArray[np.int64]) -> None:
        self._names = names
        self._row_ids = row_ids

    def __len__(self) -> int:
        return len(self._row_ids)

    @overload
    def __getitem__(self, at: int) -> Name: ...
    @overload
    def __getitem__(self, at: slice) -> list[Name]: ...
    def __getitem__(self, at: int | slice) -> Name | list[Name]:
        if isinstance(at, slice):
            return self._names.several(self._row_ids[at])
        return self._names[int(self._row_ids[at])]


class Partition:
    """One owner. Changed under `lock`, and while it is "loading" by the loading thread alone.

    Readers look at `state`, `generation` and `names` without the lock. `waiting` takes the changes that are
    committed during the load; `words` is an OwnerWords once a search asked for it, `entities` an OwnerNames,
    both made under `words_lock`. `changes` is odd while pool and these take in a change, and counts them.
    `codes` numbers the strings of attributes and declared keys; `inexact` are the
    declared keys with a value that no cell can hold. `blank` tells that rows may wait for their vectors.
    `used` grows with each use; `mapped`: rows lie in a checkpoint's file; `unsaved`: how many were read from
    the log and are in no checkpoint.
    """

    __slots__ = (
        "_places",
        "blank",
        "born",
        "changes",
        "codes",
        "entities",
        "generation",
        "inexact",
        "load_lock",
        "lock",
        "mapped",
        "names",
        "past_until",
        "state",
        "unsaved",
        "used",
        "waiting",
        "words",
        "words_lock",
    )  # fmt: skip

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.load_lock = threading.Lock()
        self.words_lock = threading.Lock()
        self.words: Any = None
        self.entities: Any = None
        self.used = self.unsaved = 0
        self.mapped = self.blank = False
        self.state: Literal["cold", "loading", "ready", "dropped"] = "cold"
        self.waiting: list[RowChange] = []
        self.generation = self.born = next_generation()
        self.changes = 2 * self.born  # as those of no partition before: one may take another's place
        self.names = Names()
        self.codes: dict[str, int] = {}
        self.inexact: set[int] = set()
        self.past_until = -(1 << 63)
        self._places: dict[Name, tuple[int, int]] | None = {}

    @classmethod
    def restored(cls, names: Names, codes: dict[str, int], inexact: set[int], past_until: int) -> Partition:
        """A ready partition whose rows stand in the pool; where each stands is looked up when needed."""
        partition = cls()
        partition.names, partition.past_until = names, past_until
        partition.codes, partition.inexact = codes, inexact
        partition._places = None
        partition.state, partition.mapped = "ready", True
        return partition

    def renewed(self) -> None:
        """Count as younger than all that any partition was until now."""
        self.generation = self.born = next_generation()
        self.changes = 2 * self.born

    def memory(self) -> int:
        """Bytes beside the pool's, roughly."""
        known, words, entities = self._places, self.words, self.entities  # once: they may go meanwhile
        places = 0 if known is None else len(known) * _PLACE_BYTES
        made = 0 if words is None else int(words.memory())
        return self.names.memory() + places + made + (0 if entities is None else int(entities.memory()))

    def forget(self) -> None:
        """What was made of the rows, which is made again when it is needed. For holders of `lock`. Searches
        that have it and meet a change begin again."""
        self.words = self.entities = self._places = None
        self.changes += 2

    def placed(self) -> bool:
        """Whether it is known where each row stands."""
        return self._places is not None

    def loaded(self) -> None:
        """Rows came into the pool with names and nothing else: where each stands is looked up when needed."""
        self._places = None

    def places(self, owner: int, pool: RowPool) -> dict[Name, tuple[int, int]]:
        """(list id, row id) of every live row, by name. For holders of `lock` and the loading thread."""
        if self._places is None:
            self._places = {
                self.names[row_id]: (list_id, row_id)
                for list_id in lists_of(owner)
                for row_id in pool.rows(list_id)[0].tolist()
            }
        return self._places


def lists_of(owner: int) -> tuple[int, ...]:
    """The lists of an owner: rows that may be visible now, rows whose truth or knowledge has ended; and of
    both those that wait for their vectors."""
    current = 2 * owner
    return current, current + PAST, current + BLANK, current + PAST + BLANK


def owners_of(lists: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whose lists these are, (n,) int64."""
    owners: NDArray[np.int64] = (lists & (BLANK - 1)) >> 1
    return owners
