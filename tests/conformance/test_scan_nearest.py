"""One call for a query over the lists nearest to it: what the two scans give that it stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from warpmem import _cpu

DIM, LISTS, OWNER = 48, 60, 7
F32 = NDArray[np.float32]


def unit(n: int, seed: int) -> F32:
    rows = np.random.default_rng(seed).standard_normal((n, DIM), np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def pools(n: int, isa: str = "auto", metric: str = "dot", storage: str = "f32") -> tuple[Any, Any]:
    """Rows in the lists whose centroids they are nearest to, and these centroids."""
    books = np.random.default_rng(1).standard_normal((16, 16, 4), np.float32) / 4  # DIM is padded to 64
    options: dict[str, Any] = {"screen": "pq", "codebooks": books, "isa": isa, "metric": metric}
    pool, coarse = _cpu.Pool(DIM, 2, storage=storage, **options), _cpu.Pool(DIM, 0, **options)
    centroids, rows, rng = unit(LISTS, 2), unit(n, 3), np.random.default_rng(4)
    lists = np.argmax(rows @ centroids.T, axis=1) + 100
    columns = rng.integers(0, 1000, (n, 2))
    pool.apply([], lists, np.arange(n), rng.permutation(n).astype(np.uint32), columns, rows)
    order = np.arange(LISTS, dtype=np.uint32)
    nothing = np.zeros((LISTS, 0), np.int64)
    coarse.apply([], np.full(LISTS, OWNER), np.arange(100, 100 + LISTS), order, nothing, centroids)
    return pool, coarse


WEIGHTS: tuple[dict[str, Any], ...] = (
    {},
    {"min_similarity": 0.1},
    {"w_recency": 0.3, "half_life": 400.0, "now": 1000, "priority_column": 1, "w_priority": 1e-16},
)


@pytest.mark.parametrize("isa", _cpu.isas())
@pytest.mark.parametrize(
    ("metric", "storage"), [("dot", "f32"), ("dot", "f16"), ("l2", "f32"), ("dot", "pq")]
)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_it_is_the_two_scans(isa: str, metric: str, storage: str, weights: dict[str, Any]) -> None:
    pool, coarse = pools(3000, isa, metric, storage)
    for place, query in enumerate(unit(8, 5)):
        n_lists, group, k = 1 + 7 * place, place % 2 * 3, (1, 10, 200)[place % 3]
        asked = query[None]
        nearest = coarse.scan(asked, [(0, OWNER, 0, (), (), None)], n_lists, refine=2)[3][0]
        segments = [(0, cell, group, (), (), None) for cell in nearest.tolist()]
        options = {**weights, "refine": 3, "explain": True}
        wanted = pool.scan(asked, segments, k, **options)
        found = pool.scan_nearest(asked, coarse, OWNER, group, n_lists, 2, k, **options)
        for at in (0, 1, 3, 4):
            assert found[at].tobytes() == wanted[at].tobytes()
        assert (found[2] == np.where(wanted[2] >= 0, OWNER, -1)).all() and found[5] == wanted[5]
        assert len(pool.scan_nearest(asked, coarse, OWNER, group, n_lists, 2, k, refine=3)) == 5


def test_where_there_is_little_or_nothing() -> None:
    pool, coarse = pools(5)
    query = unit(1, 6)
    found = pool.scan_nearest(query, coarse, OWNER, 0, LISTS, 1, 10)
    assert found[4].tolist() == [5] and sorted(found[3][0, :5].tolist()) == [0, 1, 2, 3, 4]
    assert found[2].tolist() == [[OWNER] * 5 + [-1] * 5] and (found[0][0, 5:] == -np.inf).all()
    for owner in (OWNER + 1, -1):
        assert pool.scan_nearest(query, coarse, owner, 0, 3, 1, 10)[4].tolist() == [0]
    assert pool.scan_nearest(query, coarse, OWNER, 0, 4096, 1, 10)[4].tolist() == [5]


def test_what_is_refused() -> None:
    pool, coarse = pools(1000)
    query = unit(1, 7)
    right: dict[str, Any] = {"queries": query, "coarse": coarse, "owner": OWNER, "group": 0}
    right |= {"n_lists": 3, "coarse_refine": 2, "k": 5}
    assert pool.scan_nearest(**right)[4].tolist() == [5]
    wrongs: tuple[tuple[dict[str, Any], str], ...] = (
        ({"queries": unit(2, 7)}, "queries: expected 1"),
        ({"queries": query[:, :9].copy()}, "queries: expected 48"),
        ({"queries": query * np.nan}, "queries: row 0"),
        ({"group": -1}, "group must be"),
        ({"group": 1 << 32}, "group must be"),
        ({"n_lists": 0}, "n_lists must be"),
        ({"n_lists": 4097}, "n_lists must be"),
        ({"coarse_refine": 0}, "coarse_refine must be"),
        ({"k": 0}, "k must be"),
        ({"k": 4097}, "k must be"),
        ({"refine": 0}, "refine must be"),
        ({"min_similarity": np.nan}, "min_similarity must not be NaN"),
        ({"half_life": 0.0}, "half_life must be above"),
        ({"coarse": _cpu.Pool(DIM + 1, 0)}, "coarse must have the dimensions"),
        ({"w_recency": 1.0, "recency_column": 2}, "recency_column is 2"),
    )
    for wrong, message in wrongs:
        with pytest.raises(ValueError, match=message):
            pool.scan_nearest(**{**right, **wrong})
    for of_type in ({"queries": query.tolist()}, {"coarse": None}, {"owner": "7"}, {"k": 2.5}):
        with pytest.raises(TypeError):
            pool.scan_nearest(**{**right, **of_type})
