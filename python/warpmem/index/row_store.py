"""The rows of a VectorIndex in a pool: which list an id stands in, the order of addition, and one writer at a
time.

Arguments come checked. A change reaches the pool in one `RowPool.apply`, so a search sees all of it or
nothing, and one that fails leaves everything as it was. While `replace_pool` builds another pool, changes are
also written to a journal, which is played to the new pool before it takes over."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, NotFound
from ..protocols import RowPool
from . import pool_copies
from .columns import Checked, Columns
from .id_map import IdMap, make_id_map
from .inputs import F32, I64, MAX_ID

MAX_ORDINALS = 1 << 32
_RENUMBER_FROM = 1 << 31
_CATCH_UP_ROUNDS = 16
_FEW_CHANGES = 64


class Serving(NamedTuple):
    """The pool that searches read, and whether its answers are approximate. Replaced as a whole."""

    pool: RowPool
    approximate: bool


class _Change(NamedTuple):
    """The arguments of one RowPool.apply."""

    removes: Sequence[tuple[int, int]]
    lists: I64
    ids: I64
    ordinals: NDArray[np.uint32]
    columns: I64
    vectors: F32


class RowStore:
    """Rows by id. Thread-safe: changes take turns on a lock, reads take none."""

    def __init__(self, serving: Serving, columns: Columns, dim: int, storage: str) -> None:
        self.serving = serving
        self.next_id = 0
        self.next_ordinal = 0
        self.count = serving.pool.stats()["rows"]
        self._columns = columns
        self._dim = dim
        self._storage = storage
        # For rows that are there already the map is built by the first call that needs it.
        self._ids: IdMap | None = None if self.count else make_id_map()
        self._writer = threading.Lock()
        self._replacing = threading.Lock()
        self._journal: list[_Change] | None = None

    # -------------------------------------------------------------------------------------- changes

    def add(self, rows: F32, lists: I64, given: I64 | None, checked: dict[str, Checked]) -> I64:
        """Add n rows; their ids: `given`, or the next free ones. Raises InputError."""
        n = len(rows)
        with self._writer:
            ids = self._free_ids(n) if given is None else self._unused(given)
            first = self.next_ordinal
            if first + n > MAX_ORDINALS:
                raise InputError(
                    f"{n} rows are more than the {MAX_ORDINALS - first} places left in the order of "
                    "addition; call compact(), which numbers the rows anew"
                )
            if n == 0:
                return ids
            ordinals = np.arange(first, first + n, dtype=np.int64).astype(np.uint32)
            change = _Change((), lists, ids, ordinals, self._columns.images(checked, n), rows)
            known = self._ids
            if known is not None:
                known.put(ids, lists)
            try:
                self._apply(change)
            except BaseException:
                if known is not None:
                    known.pop(ids, -1)
                raise
            self.next_id = max(self.next_id, int(ids[0] if n == 1 else ids.max()) + 1)
            self.next_ordinal = first + n
            self.count += n
        return ids

    def remove(self, ids: I64) -> int:
        """Remove the rows that are there of distinct ids; how many there were."""
        with self._writer:
            known = self._map()
            lists = known.get(ids, -1)
            if len(ids) != 1 or lists[0] < 0:
                here = lists >= 0
                ids, lists = ids[here], lists[here]
                if len(ids) == 0:
                    return 0
            self._apply(self._removal(list(zip(lists.tolist(), ids.tolist(), strict=True))))
            known.pop(ids, -1)
            self.count -= len(ids)
        return len(ids)

    def update(self, ids: I64, rows: F32 | None, checked: dict[str, Checked]) -> None:
        """Replace vectors (None keeps them) and some columns of n distinct ids. Raises NotFound."""
        n = len(ids)
        with self._writer:
            lists = _lists(self._map(), ids)
            if n == 0 or (rows is None and not checked):
                return
            pool = self.serving.pool
            ordinals, columns = pool_copies.headers(pool, lists, ids, len(self._columns))
            if rows is None:
                rows = pool_copies.storable(pool_copies.vectors(pool, lists, ids, self._dim), self._storage)
            self._apply(_Change((), lists, ids, ordinals, self._columns.images(checked, n, columns), rows))

    def restart(self, serving: Serving) -> None:
        """Serve an empty pool instead of one without rows. Raises InputError when there are rows."""
        with self._writer:
            if self.count:
                raise InputError(f"the index holds {self.count} rows in the codes it has; train a new one")
            self.serving = serving

    def _apply(self, change: _Change) -> None:
        journal = self._journal
        if journal is None:
            self.serving.pool.apply(*change)
            return
        # Copies: what a caller gave may change when its call has returned.
        journal.append(
            _Change(
                change.removes,
                change.lists.copy(),
                change.ids.copy(),
                change.ordinals.copy(),
                change.columns.copy(),
                change.vectors.copy(),
            )
        )
        try:
            self.serving.pool.apply(*change)
        except BaseException:
            journal.pop()
            raise

    def _removal(self, pairs: Sequence[tuple[int, int]]) -> _Change:
        return _Change(
            pairs,
            np.zeros(0, np.int64),
            np.zeros(0, np.int64),
            np.zeros(0, np.uint32),
            np.zeros((0, len(self._columns)), np.int64),
            np.zeros((0, self._dim), np.float32),
        )

    def _free_ids(self, n: int) -> I64:
        first = self.next_id
        if first + n - 1 > MAX_ID:
            raise InputError(f"{MAX_ID + 1 - first} ids are left above those in use, not {n}; pass ids")
        return np.arange(first, first + n, dtype=np.int64)

    def _unused(self, ids: I64) -> I64:
        taken = self._map().contains(ids)
        if taken.any():
            raise InputError(
                f"ids: {int(taken.sum())} of the {len(ids)} ids are in the index, {int(ids[taken][0])} among "
                "them; update() changes a row"
            )
        return ids

    # ---------------------------------------------------------------------------------------- reads

    def vectors(self, ids: I64) -> F32:
        """(n, dim) float32 as kept. Raises NotFound."""
        try:
            return pool_copies.vectors(self.serving.pool, self._lists_of(ids), ids, self._dim)
        except KeyError:  # removed, or carried to another pool, between the two looks
            with self._writer:
                return pool_copies.vectors(self.serving.pool, _lists(self._map(), ids), ids, self._dim)

    def holds(self, ids: I64) -> NDArray[np.bool_]:
        """(n,) whether a row has each id."""
        known = self._ids
        if known is None:
            with self._writer:
                known = self._map()
        return known.contains(ids)

    def _lists_of(self, ids: I64) -> I64:
        known = self._ids
        if known is None:
            with self._writer:
                known = self._map()
        return _lists(known, ids)

    def _map(self) -> IdMap:
        """Which list each id stands in. Only for the writer."""
        if self._ids is None:
            built = make_id_map()
            pool = self.serving.pool
            for list_id in pool.lists().tolist():
                ids, _, _ = pool.rows(list_id)
                built.put(ids, np.full(len(ids), list_id, np.int64))
            self._ids = built
        return self._ids

    # --------------------------------------------------------------------------------------- upkeep

    @contextmanager
    def still(self) -> Iterator[RowPool]:
        """The pool, which no change alters meanwhile."""
        with self._writer:
            yield self.serving.pool

    def compact(self) -> None:
        """Give back the memory of removed rows, and number rows anew when the order of addition runs out."""
        with self._writer:
            pool = self.serving.pool
            if self.next_ordinal > _RENUMBER_FROM:
                for change in pool_copies.renumbered(pool, self._dim, self._storage):
                    self._apply(_Change((), *change))
                self.next_ordinal = self.count
        for list_id in pool.lists().tolist():
            pool.compact(list_id)

    def replace_pool(self, build: Callable[[RowPool], RowPool | None]) -> bool:
        """Build another pool from this one beside searches and changes, and let it take over. False when
        `build` returned None. Changes wait only while the last few of them are carried over."""
        with self._replacing:
            with self._writer:
                self._journal = []
            try:
                built = build(self.serving.pool)
                if built is None:
                    return False
                for _ in range(_CATCH_UP_ROUNDS):
                    with self._writer:
                        pending, self._journal = self._journal, []
                    _play(built, pending)
                    if len(pending) <= _FEW_CHANGES:
                        break
                with self._writer:
                    _play(built, self._journal)
                    self.serving = Serving(built, True)
                    self._journal = None
                return True
            finally:
                with self._writer:
                    self._journal = None


def _play(pool: RowPool, changes: Sequence[_Change]) -> None:
    for change in changes:
        pool.apply(*change)


def _lists(known: IdMap, ids: I64) -> I64:
    lists = known.get(ids, -1)
    if len(ids) and lists.min() < 0:
        raise NotFound(f"{int((lists < 0).sum())} of the {len(ids)} ids are not in the index")
    return lists
