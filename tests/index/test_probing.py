"""Searches that are wanted within some time read fewer cells, and say so."""

from __future__ import annotations

import functools
import time
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from warpmem.errors import InputError
from warpmem.index import VectorIndex, ivf
from warpmem.index.ivf_pool import IvfPool

DIM, ROWS = 16, 12_000
RNG = np.random.default_rng(5)
CENTRES = RNG.standard_normal((60, DIM), np.float32)


def rows(n: int, seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return CENTRES[rng.integers(0, 60, n)] + 0.9 * rng.standard_normal((n, DIM), np.float32)


@pytest.fixture(scope="module")
def index() -> VectorIndex:
    made = VectorIndex(DIM, recall=0.95, backend="cpu", threads=1)
    made.add(rows(ROWS, 1), owners=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ivf, "build_ivf", functools.partial(ivf.build_ivf, min_rows=1000))
        made.optimise()
    assert made._store.serving.approximate, "there are too few rows"
    return made


class Slow:
    """Scans take so many seconds more for each cell that a query may read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tuned: int) -> None:
        self.seconds = 0.0
        self.read: list[int] = []
        plain = IvfPool.scan

        def scan(pool: IvfPool, queries: Any, *arguments: Any, **options: Any) -> Any:
            most = min(tuned, options.get("most_probes") or tuned)
            self.read.append(most)
            time.sleep(self.seconds * most * len(queries))
            return plain(pool, queries, *arguments, **options)

        monkeypatch.setattr(IvfPool, "scan", scan)


def test_as_many_cells_as_there_is_time_for(index: VectorIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = index._store.serving.pool.owners[0].n_probes  # type: ignore[attr-defined]
    assert tuned >= 4
    queries, slow = rows(8, 2), Slow(monkeypatch, tuned)
    exact = index.search(queries, owners=0, n_probes=1 << 20).ids
    whole = index.search(queries, owners=0)
    assert whole.degraded == ()
    slow.seconds = 0.05 / tuned  # of a query: 50 ms with all cells
    for _ in range(12):
        index.search(queries[0], owners=0)
    slow.read.clear()
    assert index.search(queries[0], owners=0, within=1.0).degraded == ()
    began = time.perf_counter()
    less = index.search(queries, owners=0, within=timedelta(milliseconds=200), explain=True)
    took = time.perf_counter() - began
    assert less.degraded == ("probes",)
    assert less.plan is not None and 1 <= less.plan["n_probes"] < tuned
    assert slow.read == [tuned, less.plan["n_probes"]]
    assert took < 0.35, "all of them take 400 ms"
    found = [len(set(a) & set(b)) for a, b in zip(less.ids.tolist(), exact.tolist(), strict=True)]
    assert sum(found) >= 8, "what it says are neighbours, near ones first"
    assert index.search(queries[0], owners=0, n_probes=tuned, within=1e-6).degraded == (), "as asked for"
    slow.seconds = 0.0
    outcomes = [index.search(queries, owners=0, within=0.2).degraded for _ in range(40)]
    assert outcomes[-1] == (), "that it became faster is found out"


def test_one_cell_is_always_read(index: VectorIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = index._store.serving.pool.owners[0].n_probes  # type: ignore[attr-defined]
    slow = Slow(monkeypatch, tuned)
    slow.seconds = 0.001
    for _ in range(4):
        index.search(rows(1, 3), owners=0)
    slow.read.clear()
    result = index.search(rows(1, 3), owners=0, within=1e-9)
    assert (result.degraded, slow.read) == (("probes",), [1])
    assert (result.ids >= 0).all(), "k rows are found whatever it takes"


def test_an_exact_index_leaves_nothing_out() -> None:
    index = VectorIndex(DIM, backend="cpu")
    index.add(rows(500, 1), owners=0)
    for _ in range(4):
        assert index.search(rows(2, 2), owners=0, within=1e-9).degraded == ()
    for wrong in (0, -1.0, True, "1", float("nan")):
        with pytest.raises(InputError, match="within must be seconds"):
            index.search(rows(1, 2), owners=0, within=wrong)  # type: ignore[arg-type]
