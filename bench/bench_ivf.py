"""Approximate search, 384 dimensions, k = 10, tuned to recall 0.95: IvfPool beside faiss-cpu's inverted files.

WARPMEM_BENCH_DATA and WARPMEM_BENCH_REAL are those of bench_scan.py; queries that are rows of the real set count
as real, the others as made. Every index is tuned on the same queries: the cheapest of a grid that reaches the
recall. Peers get IvfPool's centroids, so that only what happens in the cells is compared. Recall is gated, times
are informational.
"""

from __future__ import annotations

import importlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from stores import unit_rows

from warpmem.index import ivf
from warpmem.index.cpu import CpuBackend
from warpmem.records import SegmentTable

DIMENSION, K, WANTED = 384, 10, 0.95
THREADS = 2  # of building; searching has one
PROBES = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
REFINES = (2, 4, 6, 8, 10, 12, 16, 20, 30, 40)
Report = Callable[[str], None]
Search = Callable[[NDArray[np.float32]], NDArray[np.int64]]


def _faiss() -> ModuleType | None:
    try:
        return importlib.import_module("faiss")
    except ImportError:
        return None


faiss: Any = _faiss()


class Data:
    """rows, queries, which queries are real, and the true neighbours."""

    def __init__(self) -> None:
        folder, real = os.environ.get("WARPMEM_BENCH_DATA"), os.environ.get("WARPMEM_BENCH_REAL")
        if folder is not None:
            self.rows: NDArray[np.float32] = np.load(f"{folder}/rows.npy")
            self.queries: NDArray[np.float32] = np.load(f"{folder}/queries.npy")
        else:
            rng = np.random.default_rng(1)
            centres = unit_rows(2_000, DIMENSION)
            near = centres[rng.integers(0, len(centres), 100_400)]
            near += 0.06 * rng.standard_normal(near.shape, np.float32)
            near /= np.linalg.norm(near, axis=1, keepdims=True)
            self.rows, self.queries = np.ascontiguousarray(near[400:]), np.ascontiguousarray(near[:400])
        self.real = np.zeros(len(self.queries), bool)
        if real is not None:
            known = np.load(real).astype(np.float32)
            known /= np.linalg.norm(known, axis=1, keepdims=True)
            for first in range(0, len(known), 5_000):
                self.real |= (self.queries @ known[first : first + 5_000].T).max(axis=1) > 0.9999
        self.exact = CpuBackend().pool(DIMENSION, 0, threads=THREADS)
        for first in range(0, len(self.rows), 50_000):
            part = self.rows[first : first + 50_000]
            ids = np.arange(first, first + len(part))
            nowhere = np.zeros((len(part), 0), np.int64)
            self.exact.apply([], np.zeros(len(part), np.int64), ids, ids.astype(np.uint32), nowhere, part)
        segments = [(i, 0, 0, (), (), None) for i in range(len(self.queries))]
        self.truth = self.exact.scan(self.queries, segments, K)[3]

    def recall(self, found: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of each query."""
        return (found[:, None, :] == self.truth[:, :, None]).any(axis=2).mean(axis=1)


@pytest.fixture(scope="module")
def data() -> Data:
    return Data()


@pytest.fixture(scope="module")
def built(data: Data) -> tuple[ivf.IvfPool, float]:
    start = time.perf_counter()
    made = ivf.build_ivf(
        data.exact, recall=WANTED, storage="f32", metric="dot", threads=THREADS, search_threads=1
    )
    assert made is not None
    return made, time.perf_counter() - start


def _tune(
    data: Data, settings: Iterator[tuple[str, Callable[[], None]]], search: Search
) -> tuple[str, Callable[[], None]]:
    """The first of the settings in order of cost that reaches the recall."""
    for name, choose in settings:
        choose()
        if data.recall(search(data.queries)).mean() >= WANTED:
            return name, choose
    raise AssertionError("no setting reaches the recall")


def _grid(n_probes: Any, refines: Any, code_bytes: float, rows_a_cell: float) -> list[tuple[int, int]]:
    """(n_probes, refine) by what they read."""
    price = {
        (p, r): p * rows_a_cell * code_bytes + 4 * r * K * DIMENSION * 4 for p in n_probes for r in refines
    }
    return sorted(price, key=lambda pair: price[pair])


def _peers(data: Data, centroids: NDArray[np.float32]) -> Iterator[tuple[str, float, Any, Search, list[Any]]]:
    """name, bytes a row beside the rows, index, search, settings as (label, function)."""
    quantizer = faiss.IndexFlatIP(DIMENSION)
    quantizer.add(centroids)
    shape = (quantizer, DIMENSION, len(centroids))
    metric = faiss.METRIC_INNER_PRODUCT
    rows_a_cell = len(data.rows) / len(centroids)
    kinds: dict[str, tuple[Callable[[], Any], float]] = {
        "IVFFlat": (lambda: faiss.IndexIVFFlat(*shape, metric), 8.0),
        "IVFPQFastScan 96x4": (lambda: faiss.IndexIVFPQFastScan(*shape, 96, 4, metric), 56.0),
        "IVFPQFastScan 128x4": (lambda: faiss.IndexIVFPQFastScan(*shape, 128, 4, metric), 72.0),
    }
    if hasattr(faiss, "IndexIVFRaBitQFastScan"):
        kinds["IVFRaBitQFastScan"] = (lambda: faiss.IndexIVFRaBitQFastScan(*shape, metric), 72.0)
    for name, (make, size) in kinds.items():
        faiss.omp_set_num_threads(THREADS)
        base = make()
        base.cp.niter, base.own_fields = 0, False
        base.train(data.rows[:: max(1, len(data.rows) // 65_536)])
        base.add(data.rows)
        faiss.omp_set_num_threads(1)
        if name == "IVFFlat":

            def flat(queries: Any, base: Any = base) -> Any:
                return base.search(queries, K)[1]

            settings = [(f"nprobe {p}", (lambda base=base, p=p: setattr(base, "nprobe", p))) for p in PROBES]
            yield name, size, base, flat, settings
            continue
        flat_rows = faiss.IndexFlat(DIMENSION, metric)
        flat_rows.add(data.rows)
        refined = faiss.IndexRefine(base, flat_rows)

        def both(queries: Any, refined: Any = refined) -> Any:
            return refined.search(queries, K)[1]

        def choose(p: int, r: int, base: Any = base, refined: Any = refined) -> None:
            base.nprobe, refined.k_factor = p, r

        pairs = _grid(PROBES, REFINES, size - 8, rows_a_cell)
        yield (
            name,
            size,
            refined,
            both,
            [(f"nprobe {p} k_factor {r}", (lambda p=p, r=r, c=choose: c(p, r))) for p, r in pairs],
        )


def _rate(search: Search, queries: NDArray[np.float32], batch: int) -> float:
    """Queries a second, median of three passes."""
    spent = []
    for _ in range(3):
        start = time.perf_counter()
        for first in range(0, len(queries), batch):
            search(queries[first : first + batch])
        spent.append(time.perf_counter() - start)
    return len(queries) / statistics.median(spent)


def _show(
    data: Data, name: str, size: float, setting: str, search: Search, report: Report
) -> dict[int, float]:
    shares = data.recall(search(data.queries))
    rates = {batch: _rate(search, data.queries, batch) for batch in (1, len(data.queries))}
    real = (
        f"{shares[data.real].mean():.3f} real, {shares[~data.real].mean():.3f} made"
        if data.real.any()
        else "made"
    )
    report(
        f"{name:26} recall {shares.mean():.3f} ({real}), {size:5.1f} B a row, QPS one by one {rates[1]:6.0f}, "
        f"all at once {rates[len(data.queries)]:6.0f}; {setting}"
    )
    return rates


def _searcher(pool: ivf.IvfPool, **options: int) -> Search:
    def search(queries: NDArray[np.float32]) -> NDArray[np.int64]:
        if len(queries) == 1:
            found: NDArray[np.int64] = pool.scan(queries, [(0, 0, 0, (), (), None)], K, **options)[3]
            return found
        table = SegmentTable(np.arange(len(queries)), np.zeros(len(queries), np.int64))
        all_found: NDArray[np.int64] = pool.scan(queries, table, K, **options)[3]
        return all_found

    return search


def test_build(data: Data, built: tuple[ivf.IvfPool, float], report: Report) -> None:
    pool, spent = built
    cells = pool.owners[0]
    stats = pool.stats()
    beside = (stats["bytes"] - stats["pages"] * 64 * DIMENSION * 4) / stats["rows"]
    report(
        f"{len(data.rows):,} rows: built in {spent:.1f} s on {THREADS} threads, {len(cells.centroids)} cells, "
        f"{beside:.1f} bytes a row beside the rows; chosen n_probes {cells.n_probes}, refine {cells.refine}, "
        f"recall {cells.recall:.3f} on middles, {cells.recall_rows:.3f} on rows"
    )


def test_recall_and_rate(data: Data, built: tuple[ivf.IvfPool, float], report: Report) -> None:
    pool, _ = built
    cells = pool.owners[0]
    size = pool.codebooks.shape[0] / 2 + 12.0
    own = _show(
        data,
        "warpmem, chosen by itself",
        size,
        f"n_probes {cells.n_probes} refine {cells.refine}",
        _searcher(pool),
        report,
    )
    assert data.recall(_searcher(pool)(data.queries)).mean() >= WANTED
    if data.real.any():
        assert data.recall(_searcher(pool)(data.queries))[data.real].mean() >= WANTED
    best: dict[int, float] = {}
    for p, r in _grid(PROBES, REFINES, size - 12, len(data.rows) / len(cells.centroids)):
        if data.recall(_searcher(pool, n_probes=p, refine=r)(data.queries)).mean() >= WANTED:
            best = _show(
                data,
                "warpmem",
                size,
                f"n_probes {p} refine {r}",
                _searcher(pool, n_probes=p, refine=r),
                report,
            )
            break
    if faiss is None:
        return
    peers: dict[str, dict[int, float]] = {}
    for name, peer_size, _index, search, settings in _peers(data, cells.centroids):
        setting, _ = _tune(data, iter(settings), search)
        peers[name] = _show(data, name, peer_size, setting, search, report)
    for batch in best:
        rival = max(rates[batch] for rates in peers.values())
        report(
            f"batch {batch}: {best[batch] / rival:.2f} of the best faiss, {own[batch] / rival:.2f} as chosen by itself"
        )
