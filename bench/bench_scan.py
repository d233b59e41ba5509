"""The exact scan, 384 dimensions, k = 10: every backend on the same rows, and faiss-cpu at its best where it
is installed. All must return the same bits, and all of the best rows (gated).

Two environment variables name data: WARPMEM_BENCH_DATA a folder with rows.npy, queries.npy, owners.npy and
query_owners.npy; WARPMEM_BENCH_REAL an .npy file of real embeddings, for the check of recall. Without them
rows are made: clusters, and owners whose sizes follow Zipf's law. Times are informational.
"""

from __future__ import annotations

import importlib
import os
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture
from stores import seconds, unit_rows

from warpmem._cpu import read_bytes
from warpmem.compose import backends
from warpmem.index.cpu import CpuBackend
from warpmem.index.numba_backend import NumbaBackend
from warpmem.protocols import RowPool, SearchBackend
from warpmem.records import SegmentTable

DIMENSION, K = 384, 10
SIZES = (1_000, 10_000, 100_000)
OWNERS = 2_000
DAY = 86_400_000_000
NOW = 10**15
PLAIN: dict[str, Any] = {}
RANKED: dict[str, Any] = {
    "w_similarity": 0.7,
    "w_recency": 0.2,
    "w_priority": 0.1,
    "half_life": 30.0 * DAY,
    "recency_column": 1,
    "priority_column": 2,
    "now": NOW,
}
Report = Callable[[str], None]
Call = Callable[[int], object]


def _faiss() -> ModuleType | None:
    """The peer with one thread, and BLAS for batches of every size."""
    try:
        module = importlib.import_module("faiss")
    except ImportError:
        return None
    module.omp_set_num_threads(1)
    module.cvar.distance_compute_blas_threshold = 20
    return module


faiss = _faiss()
needs_faiss = pytest.mark.skipif(faiss is None, reason="faiss-cpu is not installed")


def _backends() -> dict[str, SearchBackend]:
    return {"numpy": backends()["numpy"], **{f"cpu-{isa}": CpuBackend(isa) for isa in CpuBackend().isas()}}


class Data:
    def __init__(self) -> None:
        folder = os.environ.get("WARPMEM_BENCH_DATA")
        rng = np.random.default_rng(1)
        if folder is not None:
            load = {name: np.load(Path(folder) / f"{name}.npy") for name in ("rows", "queries")}
            self.rows, self.queries = load["rows"], load["queries"]
            self.owners = np.load(Path(folder) / "owners.npy").astype(np.int64)
            self.query_owners = np.load(Path(folder) / "query_owners.npy").astype(np.int64)
        else:
            n, centres = 100_000, unit_rows(2_000, DIMENSION)
            near = centres[rng.integers(0, len(centres), n + 1_000)]
            near += 0.04 * rng.standard_normal(near.shape, np.float32)
            near /= np.linalg.norm(near, axis=1, keepdims=True)
            self.rows, self.queries = np.ascontiguousarray(near[:n]), np.ascontiguousarray(near[n:])
            weight = 1 / np.arange(1, OWNERS + 1)
            self.owners = rng.choice(OWNERS, n, p=weight / weight.sum())
            uniform = rng.integers(0, OWNERS, 1_000)
            self.query_owners = np.where(rng.random(1_000) < 0.5, uniform, rng.choice(self.owners, 1_000))
        n = len(self.rows)
        columns = [
            rng.integers(0, 100, n),
            NOW - rng.integers(0, 1_000 * DAY, n),
            rng.random(n).view(np.int64),
        ]
        self.columns = np.stack(columns, axis=1)


@pytest.fixture(scope="module")
def data() -> Data:
    return Data()


def filled(data: Data, n: int, lists: NDArray[np.int64] | None = None, **options: Any) -> Any:
    backend = options.pop("backend", CpuBackend())
    pool = backend.pool(DIMENSION, 3, **options)
    order = np.arange(n) if lists is None else np.argsort(lists[:n], kind="stable")
    for start in range(0, n, 50_000):
        part = order[start : start + 50_000]
        where = np.zeros(len(part), np.int64) if lists is None else lists[part]
        ordinals = part.astype(np.uint32)
        columns = np.ascontiguousarray(data.columns[part])
        pool.apply([], where, part, ordinals, columns, np.ascontiguousarray(data.rows[part]))
    return pool


def scan_one(pool: RowPool, data: Data, i: int) -> object:
    return pool.scan(data.queries[i : i + 1], one_list(1), K)


def one_list(n_queries: int) -> list[Any]:
    return [(q, 0, 0, (), (), None) for q in range(n_queries)]


def ratios(report: Report, what: str, calls: dict[str, Call], rounds: int, base: str) -> dict[str, float]:
    """Median over the rounds of `base`'s time divided by each call's.

    Every round has its own random order, so that none always follows the one that warmed its rows.
    """
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds):
        for name in rng.permutation(list(calls)).tolist():
            times[name].append(seconds(partial(calls[name], i)))
    found = {
        name: statistics.median(a / b for a, b in zip(times[base], measured, strict=True))
        for name, measured in times.items()
    }
    shown = (f"{name} {statistics.median(times[name]) * 1e3:.3f} ms ({found[name]:.2f}x)" for name in calls)
    report(f"{what}: " + ", ".join(shown))
    return found


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", list(_backends()))
def test_scan(benchmark: BenchmarkFixture, data: Data, name: str, n: int) -> None:
    pool = filled(data, n, backend=_backends()[name])
    benchmark.group = f"scan of {n} x {DIMENSION}"
    query = data.queries[:1]
    rounds = 5 if name == "numpy" else 30
    pedantic: Any = benchmark.pedantic
    found = pedantic(lambda: pool.scan(query, one_list(1), K), rounds=rounds, warmup_rounds=1)
    assert found[4][0] == K


@pytest.mark.parametrize("n", SIZES)
def test_same_bits_and_faster(data: Data, report: Report, n: int) -> None:
    query = data.queries[:1]
    times: dict[str, float] = {}
    answers: dict[str, list[bytes]] = {}
    for name, backend in _backends().items():
        pool = filled(data, n, backend=backend)
        answers[name] = [
            part.tobytes()
            for ranking in (PLAIN, RANKED)
            for part in pool.scan(query, one_list(1), K, **ranking)
        ]
        rounds = 3 if name == "numpy" else 15
        measured = [seconds(partial(pool.scan, query, one_list(1), K)) for _ in range(rounds)]
        times[name] = statistics.median(measured)
    report(f"{n:,} rows: " + ", ".join(f"{name} {t * 1e3:.3f} ms" for name, t in times.items()))
    for name, answer in answers.items():
        assert answer == answers["numpy"], name
        assert name == "numpy" or times[name] < times["numpy"], name


@pytest.mark.parametrize("storage", ["f32", "f16"])
def test_recall_is_one(data: Data, report: Report, storage: str) -> None:
    """Against float64 products of the stored rows, on real embeddings where they are given."""
    path = os.environ.get("WARPMEM_BENCH_REAL")
    rows = data.rows[:30_000] if path is None else np.load(path).astype(np.float32)
    rows = CpuBackend().normalize(np.ascontiguousarray(rows))
    queries, rows = rows[:200], rows[200:]
    n = len(rows)
    pool: Any = CpuBackend().pool(DIMENSION, 0, storage=storage)
    ids = np.arange(n)
    pool.apply(
        [], 0 * ids, ids, ids.astype(np.uint32), np.zeros((n, 0), np.int64), np.ascontiguousarray(rows)
    )
    *found, plan = pool.scan(np.ascontiguousarray(queries), one_list(200), K, explain=True)
    exact = (queries.astype(np.float64) @ pool.vectors(0, ids).astype(np.float64).T).astype(np.float32)
    best = -np.sort(-exact, axis=1)[:, :K]
    report(f"{storage}, {n:,} rows: {plan}")
    assert (found[1] == best).all()
    assert plan["rows_rescored"] < plan["rows_seen"] / 20


def test_rate_of_reading(data: Data, report: Report) -> None:
    """A scan against reading one byte an element: what a screen of int8 codes alone would have to read."""
    n = len(data.rows)
    codes = np.ones((n, DIMENSION), np.int8)
    calls: dict[str, Call] = {"read": lambda i: read_bytes(codes.data)}
    for isa in CpuBackend().isas():
        if isa != "serial":
            pool = filled(data, n, backend=CpuBackend(isa))
            calls[isa] = partial(scan_one, pool, data)
    ratios(report, f"{n:,} rows against reading {codes.nbytes / 1e6:.0f} MB", calls, 40, "read")


@pytest.mark.skipif(NumbaBackend().available() is not None, reason="the package numba is not installed")
def test_numba_beside_cpu(data: Data, report: Report) -> None:
    """One list, and lists of 100 and 1,000 rows, one query or 64 at a time."""
    backends_of: dict[str, SearchBackend] = {"cpu": CpuBackend(), "numba": NumbaBackend()}
    n = min(len(data.rows), 100_000)
    for size in (n, 1_000, 100):
        rows = n if size == n else 20_000
        pools = {
            name: filled(data, rows, np.arange(rows) // size, backend=b) for name, b in backends_of.items()
        }
        for batch in (1, 64):
            table = SegmentTable(np.arange(batch), np.arange(batch) * 7 % (rows // size))

            def call(pool: RowPool, table: SegmentTable, i: int) -> tuple[NDArray[Any], ...]:
                start = i % 8 * len(table.queries)
                return pool.scan(data.queries[start : start + len(table.queries)], table, K)

            calls: dict[str, Call] = {name: partial(call, pool, table) for name, pool in pools.items()}
            for pool in pools.values():
                call(pool, table, 0)  # compiles, or makes the codes
            ratios(report, f"lists of {size:,} rows, batch {batch}", calls, 15, "cpu")
            answers = [b"".join(part.tobytes() for part in call(pool, table, 3)) for pool in pools.values()]
            assert answers[0] == answers[1]


@needs_faiss
@pytest.mark.parametrize("batch", [1, 64])
def test_against_faiss(data: Data, report: Report, batch: int) -> None:
    assert faiss is not None
    n = len(data.rows)
    flat = faiss.IndexFlatIP(DIMENSION)
    flat.add(data.rows)
    half = faiss.IndexScalarQuantizer(DIMENSION, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    half.train(data.rows[:1000])
    half.add(data.rows)
    pool, two = filled(data, n), filled(data, n, threads=2)

    def queries(i: int) -> NDArray[np.float32]:
        start = i * batch % (len(data.queries) - batch)
        found: NDArray[np.float32] = data.queries[start : start + batch]
        return found

    libraries = pytest.importorskip("threadpoolctl").ThreadpoolController().select(user_api="blas")
    faiss.cvar.distance_compute_blas_threshold = 1 if batch > 1 else 20

    def blas(i: int, threads: int = 1) -> object:
        if threads == 1:
            return flat.search(queries(i), K)
        faiss.omp_set_num_threads(threads)
        with libraries.limit(limits=threads):
            found = flat.search(queries(i), K)
        faiss.omp_set_num_threads(1)
        return found

    calls: dict[str, Call] = {
        "ours": lambda i: pool.scan(queries(i), one_list(batch), K),
        "ours, two threads": lambda i: two.scan(queries(i), one_list(batch), K),
        "faiss f32": blas,
        "faiss f32, two threads": partial(blas, threads=2),
        "faiss fp16": lambda i: half.search(queries(i), K),
    }
    ratios(report, f"{n:,} rows, batch {batch}", calls, 30 if batch == 1 else 5, "ours")
    for i in range(3):
        scores = pool.scan(queries(i), one_list(batch), K)[0]
        assert np.abs(scores - flat.search(queries(i), K)[0]).max() < 1e-5


def test_owners(data: Data, report: Report) -> None:
    """One owner a query: alone, with filters, with weights, 64 a call; and lists = owners in faiss."""
    n = len(data.rows)
    pool, two = (filled(data, n, data.owners, threads=threads) for threads in (1, 2))
    words = np.full(n // 64 + 1, (1 << 64) - 1, np.uint64)
    terms = ((0, 0, 0, 98), (1, 0, 0, NOW))
    owners = data.query_owners

    def call(terms: Any = (), bitmap: Any = None, **ranking: Any) -> Call:
        def run(i: int) -> object:
            segment = (0, int(owners[i]), 0, terms, (), bitmap)
            return pool.scan(data.queries[i : i + 1], [segment], K, **ranking)

        return run

    calls = {"ours": call(), "terms": call(terms), "bitmap": call((), words), "both": call(terms, words)}
    calls["ranked"] = call(**RANKED)
    if faiss is not None:
        coarse = faiss.IndexFlatIP(DIMENSION)
        coarse.add(np.zeros((OWNERS, DIMENSION), np.float32))
        lists = faiss.IndexIVFFlat(coarse, DIMENSION, OWNERS, faiss.METRIC_INNER_PRODUCT)
        lists.is_trained = True
        ids = np.arange(n)
        lists.add_core(n, faiss.swig_ptr(data.rows), faiss.swig_ptr(ids), faiss.swig_ptr(data.owners))
        zero = np.zeros((1, 1), np.float32)
        calls["faiss"] = lambda i: lists.search_preassigned(
            data.queries[i : i + 1], K, owners[i : i + 1, None], zero
        )
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(len(data.queries)):
        for name in rng.permutation(list(calls)).tolist():
            times[name].append(seconds(partial(calls[name], i)))
    for name, measured in times.items():
        rate = len(measured) / sum(measured)
        p50, p99 = np.percentile(measured, (50, 99)) * 1e3
        report(f"{name:7s} {rate:8.0f} QPS, p50 {p50:.3f} ms, p99 {p99:.3f} ms")

    def batch(pool: Any) -> Call:
        def run(i: int) -> object:
            start = i * 64 % (len(data.queries) - 64)
            table = SegmentTable(np.arange(64), owners[start : start + 64])
            return pool.scan(data.queries[start : start + 64], table, K)

        return run

    def singles(i: int) -> None:
        for j in range(64):
            calls["ours"]((i * 64 + j) % len(data.queries))

    many: dict[str, Call] = {"64 calls": singles, "one call": batch(pool), "two threads": batch(two)}
    ratios(report, "64 owners", many, 30, "64 calls")


def test_changes(data: Data, report: Report) -> None:
    """Single adds, adds of 100 and deletes through Pool.apply, in pools of two sizes."""
    none = np.zeros(0, np.int64)
    for n in (1_000, 90_000):
        pool = filled(data, n, data.owners)

        def add(first: int, count: int, i: int) -> Any:
            ids = first + np.arange(count)
            where = np.full(count, i % 20)
            return [], where, ids, ids.astype(np.uint32), data.columns[:count], data.rows[i : i + count]

        one = [add(10**6 + i, 1, i) for i in range(2_000)]
        hundred = [add(2 * 10**6 + 100 * i, 100, i) for i in range(50)]
        gone = [
            ([(i % 20, 10**6 + i)], none, none, none.astype(np.uint32), data.columns[:0], data.rows[:0])
            for i in range(2_000)
        ]  # fmt: skip
        added, deleted, many = (
            [seconds(partial(pool.apply, *change)) for change in changes] for changes in (one, gone, hundred)
        )
        adds, rows = 1 / statistics.mean(added), 100 / statistics.mean(many)
        delete = statistics.mean(deleted) * 1e6
        report(f"{n:,} rows: {adds:,.0f} adds/s, delete {delete:.1f} us, adds of 100: {rows:,.0f} rows/s")
        assert pool.stats()["rows"] == n + 5_000
