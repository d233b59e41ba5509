"""Which owners of an approximate index hold rows: asked by every search over everybody, so not looked for in
the cells each time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from warpmem.index import ivf

DIM = 96


class Asked:
    """A native pool that counts how often it lists its cells."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.times = 0

    def lists(self) -> Any:
        self.times += 1
        return self._pool.lists()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


def change(pool: Any, removes: list[tuple[int, int]], owner: int, ids: list[int]) -> None:
    rows = np.random.default_rng(sum(ids)).standard_normal((len(ids), DIM), np.float32)
    where, numbers = np.full(len(ids), owner, np.int64), np.array(ids, np.int64)
    pool.apply(removes, where, numbers, numbers.astype(np.uint32), np.zeros((len(ids), 0), np.int64), rows)


def test_owners_are_looked_for_only_after_their_first_or_last_row() -> None:
    rng = np.random.default_rng(5)
    books = rng.standard_normal((DIM // 4, 16, 4), np.float32)
    pool = ivf.IvfPool(DIM, 0, storage="f32", metric="dot", codebooks=books)
    for owner in (3, 8):
        middles = rng.standard_normal((6, DIM), np.float32)
        pool.add_cells(owner, middles, spherical=True, n_probes=2, refine=2)
    assert pool.lists().tolist() == []
    change(pool, [], 3, [1, 2])
    assert pool.lists().tolist() == [3]
    asked: list[Asked] = []

    def wrap(native: Any) -> Asked:
        asked.append(Asked(native))
        return asked[-1]

    pool.tier(wrap)
    cells = asked[0]
    for removes, ids in (([], [4]), ([], [5, 6]), ([(3, 1), (3, 99)], []), ([(3, 4)], [7, 1, 4])):
        change(pool, removes, 3, ids)
        assert pool.lists().tolist() == [3]
    assert cells.times == 0
    change(pool, [], 8, [9])
    assert pool.lists().tolist() == [3, 8]
    change(pool, [(3, i) for i in (1, 2, 4, 5, 6)], 8, [10])
    assert pool.lists().tolist() == [3, 8]
    change(pool, [(3, 7)], 8, [])
    assert pool.lists().tolist() == [8]
    change(pool, [], 2, [11])
    assert pool.lists().tolist() == [2, 8]
    change(pool, [], 3, [12])
    assert pool.lists().tolist() == [2, 3, 8]
    pool.drop([8])
    assert pool.lists().tolist() == [2, 3]


@pytest.mark.parametrize("owners", [[3], [3, 8]])
def test_a_scan_beside_a_drop(owners: list[int]) -> None:
    """Cells were asked of an owner who had lost them since the scan began: a KeyError."""
    rng = np.random.default_rng(6)
    pool = ivf.IvfPool(
        DIM, 0, storage="f32", metric="dot", codebooks=rng.standard_normal((DIM // 4, 16, 4), np.float32)
    )
    for owner in (3, 8):
        middles = rng.standard_normal((6, DIM), np.float32)
        pool.add_cells(owner, middles, spherical=True, n_probes=2, refine=2)
        change(pool, [], owner, [owner * 10, owner * 10 + 1])
    scan: Any = pool._cells.scan

    def late(*arguments: Any, **options: Any) -> Any:
        pool.drop([3])
        return scan(*arguments, **options)

    pool._cells.scan = late  # type: ignore[method-assign]
    segments = [(query, owner, 0, (), (), None) for query in (0, 1) for owner in owners]
    found = pool.scan(rng.standard_normal((2, DIM), np.float32), segments, 4)
    assert found[4].tolist() == [2 * (len(owners) - 1)] * 2 and 3 not in found[2]
