"""Approximate search, 384 dimensions, k = 10, tuned to recall 0.95: IvfPool and faiss-cpu's inverted files.

WARPMEM_BENCH_DATA and WARPMEM_BENCH_REAL are those of bench_scan.py; queries that are rows of the real set
count as real, the others as made. Every index is tuned on the same queries: the cheapest of a grid that
reaches the recall. Peers get IvfPool's centroids, so that only what happens in the cells is compared; so does
an exact pool with its int8 screen whose lists are the cells. Recall is gated, times are informational.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from stores import unit_rows

from warpmem.index import ivf
from warpmem.index.cpu import CpuBackend
from warpmem.records import SegmentTable

DIMENSION, K, WANTED = 384, 10, 0.95
THREADS = 2  # of building; searching has one
ROUNDS = 5
PROBES = (4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 64, 96, 128)
REFINES = (2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 30, 40)
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
        shares: NDArray[np.float64] = (found[:, None, :] == self.truth[:, :, None]).any(axis=2).mean(axis=1)
        return shares


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
    flat_rows = faiss.IndexFlat(DIMENSION, metric)
    flat_rows.add(data.rows)
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


class Entry(NamedTuple):
    name: str
    bytes_a_row: float
    setting: str
    search: Search


def _rates(entries: list[Entry], queries: NDArray[np.float32]) -> dict[int, NDArray[np.float64]]:
    """Queries a second by batch size, (rounds, entries). Entries take turns, so a slow moment hits all."""
    rates = {1: np.zeros((ROUNDS, len(entries))), len(queries): np.zeros((ROUNDS, len(entries)))}
    for batch, table in rates.items():
        asked = queries if batch > 1 else queries[:: max(1, len(queries) // 250)]
        for i in range(ROUNDS):
            for j, entry in enumerate(entries):
                start = time.perf_counter()
                for first in range(0, len(asked), batch):
                    entry.search(asked[first : first + batch])
                table[i, j] = len(asked) / (time.perf_counter() - start)
    return rates


def _searcher(pool: ivf.IvfPool, n_probes: int | None = None, refine: int | None = None) -> Search:
    def search(queries: NDArray[np.float32]) -> NDArray[np.int64]:
        n = len(queries)
        table: Any = [(0, 0, 0, (), (), None)]
        if n > 1:
            table = SegmentTable(np.arange(n), np.zeros(n, np.int64))
        found: NDArray[np.int64] = pool.scan(queries, table, K, n_probes=n_probes, refine=refine)[3]
        return found

    return search


class _Screened:
    """The exact scan of the nearest cells: two pools, no codes of product quantisation."""

    def __init__(self, data: Data, centroids: NDArray[np.float32], pool: ivf.IvfPool) -> None:
        self.n_probes = 1
        self._cells, self._coarse = CpuBackend().pool(DIMENSION, 0), CpuBackend().pool(DIMENSION, 0)
        n = len(centroids)
        ids = np.arange(n)
        self._coarse.apply([], ids * 0, ids, ids.astype(np.uint32), np.zeros((n, 0), np.int64), centroids)
        cells = pool.assign(0, data.rows, THREADS)
        order = np.argsort(cells, kind="stable")
        for first in range(0, len(order), 50_000):
            part = order[first : first + 50_000]
            nothing = np.zeros((len(part), 0), np.int64)
            self._cells.apply([], cells[part], part, part.astype(np.uint32), nothing, data.rows[part])

    def __call__(self, queries: NDArray[np.float32]) -> NDArray[np.int64]:
        n = len(queries)
        nearest = self._coarse.scan(
            queries, SegmentTable(np.arange(n), np.zeros(n, np.int64)), self.n_probes
        )[3]
        table = SegmentTable(np.repeat(np.arange(n), self.n_probes), nearest.ravel())
        return self._cells.scan(queries, table, K)[3]


def test_build(data: Data, built: tuple[ivf.IvfPool, float], report: Report) -> None:
    pool, spent = built
    cells = pool.owners[0]
    stats = pool.stats()
    beside = (stats["bytes"] - stats["pages"] * 64 * DIMENSION * 4) / stats["rows"]
    report(
        f"{len(data.rows):,} rows: built in {spent:.1f} s on {THREADS} threads, "
        f"{cells.n_cells} cells, {beside:.1f} bytes a row beside the rows; "
        f"chosen n_probes {cells.n_probes}, refine {cells.refine}, "
        f"recall {cells.recall:.3f} on middles, {cells.recall_rows:.3f} on rows"
    )


def test_recall_and_rate(data: Data, built: tuple[ivf.IvfPool, float], report: Report) -> None:
    pool, _ = built
    cells = pool.owners[0]
    size = pool.codebooks.shape[0] / 2 + 12.0
    own = _searcher(pool)
    shares = data.recall(own(data.queries))
    assert shares.mean() >= WANTED
    assert not data.real.any() or shares[data.real].mean() >= WANTED
    rows_a_cell = len(data.rows) / cells.n_cells
    entries = [Entry("warpmem, by itself", size, f"n_probes {cells.n_probes} refine {cells.refine}", own)]
    for p, r in _grid(PROBES, REFINES, size - 12, rows_a_cell):
        search = _searcher(pool, p, r)
        if data.recall(search(data.queries)).mean() >= WANTED:
            entries.append(Entry("warpmem", size, f"n_probes {p} refine {r}", search))
            break
    screened = _Screened(data, pool.centroids(0), pool)
    for screened.n_probes in PROBES:
        if data.recall(screened(data.queries)).mean() >= WANTED:
            setting = f"n_probes {screened.n_probes}"
            entries.append(Entry("int8 screen in cells", DIMENSION + 32.0, setting, screened))
            break
    ours = len(entries)
    for name, peer_size, _index, search, settings in (
        _peers(data, pool.centroids(0)) if faiss is not None else ()
    ):
        setting, _ = _tune(data, iter(settings), search)
        entries.append(Entry(name, peer_size, setting, search))
    rates = _rates(entries, data.queries)
    for j, entry in enumerate(entries):
        shares = data.recall(entry.search(data.queries))
        kinds = f"{shares[~data.real].mean():.3f} made"
        if data.real.any():
            kinds = f"{shares[data.real].mean():.3f} real, {kinds}"
        speed = ", ".join(f"{np.median(table[:, j]):6.0f} QPS by {batch}" for batch, table in rates.items())
        report(
            f"{entry.name:20} recall {shares.mean():.3f} ({kinds}), {entry.bytes_a_row:5.1f} B a row, {speed}"
            f"; {entry.setting}"
        )
    for batch, table in rates.items() if len(entries) > ours else ():
        best = table[:, ours:].max(axis=1)
        ratios = [f"{entries[j].name} {np.median(table[:, j] / best):.2f}" for j in range(ours)]
        report(f"of the best faiss, by {batch}: " + ", ".join(ratios))
