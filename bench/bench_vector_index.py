"""VectorIndex beside the pool it works on: what its Python costs a search and a change (gated), and rates."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from stores import alternate, unit_rows

from warpmem import VectorIndex
from warpmem.index.backends import choose

DIM, ROWS, OWNERS = 384, 20_000, 200
MAX_OVERHEAD, MAX_DELETE, MIN_SHARE = 15e-6, 15e-6, 0.5

X = unit_rows(ROWS, DIM)
WHOSE = np.arange(ROWS, dtype=np.int64) % OWNERS


def make() -> VectorIndex:
    index = VectorIndex(DIM, columns={"n": "int64"}, threads=1)
    index.add(X, owners=WHOSE, attributes={"n": np.arange(ROWS)})
    return index


@pytest.mark.parametrize("condition", [None, {"n": {"gte": 10}}], ids=["plain", "filtered"])
def test_search_overhead(condition: dict[str, object] | None) -> None:
    index = make()
    pool = index._store.serving.pool
    terms = ((0, 0, 10, 2**63 - 1),) if condition else ()

    def search(i: int) -> None:
        index.search(X[i], 10, owners=i % OWNERS, filter=condition)

    def scan(i: int) -> None:
        pool.scan(X[i : i + 1], [(0, i % OWNERS, 0, terms, (), None)], 10)

    whole, bare = alternate([search, scan], rounds=3_000)
    print(f"\nsearch {whole * 1e6:.1f} us, scan alone {bare * 1e6:.1f} us")
    if condition is None:
        assert whole - bare <= MAX_OVERHEAD


@pytest.mark.parametrize("n", [1, 100])
def test_adds(n: int) -> None:
    index = VectorIndex(DIM, threads=1)
    backend, _ = choose("cpu")
    pool = backend.pool(DIM, 0)
    ids = itertools.count(0, n)

    def add(i: int) -> None:
        at = i * n % (ROWS - n)
        index.add(X[at : at + n], owners=WHOSE[at : at + n])

    def apply(i: int) -> None:
        at, first = i * n % (ROWS - n), next(ids)
        row_ids = np.arange(first, first + n)
        columns = np.zeros((n, 0), np.int64)
        pool.apply((), WHOSE[at : at + n], row_ids, row_ids.astype(np.uint32), columns, X[at : at + n])

    whole, bare = alternate([add, apply], rounds=4_000 // n + 200)
    print(f"\nadds of {n}: {n / whole:,.0f} rows/s normalised; the pool alone {n / bare:,.0f} rows/s")
    if n > 1:
        assert bare / whole >= MIN_SHARE
    assert len(index) == index.stats()["rows"]


def test_delete() -> None:
    index = make()
    (one,) = alternate([lambda i: index.remove(i * 3)], rounds=3_000)
    print(f"\nremove: {one * 1e6:.1f} us")
    assert one <= MAX_DELETE
    assert len(index) == ROWS - 3_020
