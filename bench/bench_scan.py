"""The exact scan, k = 10, one query: every backend on the same rows. All must return the same bits (gated).

Times are informational, but the native scan must beat the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from stores import seconds, unit_rows

from warpmem.compose import backends
from warpmem.index.cpu import CpuBackend
from warpmem.protocols import RowPool, SearchBackend

DIMENSION, K = 384, 10
SIZES = (1_000, 10_000, 100_000)
PLAIN: dict[str, Any] = {}
RANKED: dict[str, Any] = {
    "w_recency": 0.3,
    "w_priority": 0.2,
    "half_life": 1e9,
    "priority_column": 1,
    "now": 10**9,
}


def _backends() -> dict[str, SearchBackend]:
    return {"numpy": backends()["numpy"], **{f"cpu-{isa}": CpuBackend(isa) for isa in CpuBackend().isas()}}


@pytest.fixture(scope="module")
def rows() -> Any:
    return unit_rows(max(SIZES) + 1, DIMENSION)


def filled(backend: SearchBackend, rows: Any, n: int) -> RowPool:
    pool = backend.pool(DIMENSION, 2)
    ids = np.arange(n, dtype=np.int64)
    columns = np.stack([ids * 1_000, ids % 7], axis=1)
    pool.apply([], np.ones(n, np.int64), ids, ids.astype(np.uint32), columns, rows[:n])
    return pool


def scan(pool: RowPool, query: Any, ranking: dict[str, Any]) -> Any:
    return pool.scan(query, [(0, 1, 0, (), (), None)], K, **ranking)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", list(_backends()))
def test_scan(benchmark: BenchmarkFixture, rows: Any, name: str, n: int) -> None:
    pool = filled(_backends()[name], rows, n)
    benchmark.group = f"scan of {n} x {DIMENSION}"
    found = benchmark.pedantic(
        scan, (pool, rows[-1:], PLAIN), rounds=5 if name == "numpy" else 30, warmup_rounds=1
    )
    assert found[4][0] == K


@pytest.mark.parametrize("n", SIZES)
def test_same_bits_and_faster(rows: Any, report: Callable[[str], None], n: int) -> None:
    query = rows[-1:]
    times: dict[str, float] = {}
    answers: dict[str, list[bytes]] = {}
    for name, backend in _backends().items():
        pool = filled(backend, rows, n)
        answers[name] = [part.tobytes() for ranking in (PLAIN, RANKED) for part in scan(pool, query, ranking)]
        rounds = 3 if name == "numpy" else 15
        times[name] = sorted(seconds(lambda pool=pool: scan(pool, query, PLAIN)) for _ in range(rounds))[
            rounds // 2
        ]
    report(f"{n:,} rows: " + ", ".join(f"{name} {t * 1e3:.3f} ms" for name, t in times.items()))
    for name, answer in answers.items():
        assert answer == answers["numpy"], name
        assert name == "numpy" or times[name] < times["numpy"], name
