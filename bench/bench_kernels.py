"""select_k, k-means and product quantisation against faiss and torch: one thread, ratios within one run.

Peers that are not installed are left out: pip install faiss-cpu torch. A ratio above 1 means that the other
takes longer. Gated: every instruction set gives the same bits. Rows are WARPMEM_BENCH_ROWS, a (n, 384) .npy
file of real embeddings, else random clusters of unit length. faiss clusters all rows (its default takes 256 a
centroid) and starts from random rows, as we do here.
"""

from __future__ import annotations

import importlib
import os
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from stores import seconds

from warpmem.index import kernels

DIM, K = 384, 10
Calls = dict[str, Callable[[], object]]


def peer(name: str) -> Any | None:
    try:
        module = importlib.import_module(name)
    except ImportError:
        return None
    (module.omp_set_num_threads if name == "faiss" else module.set_num_threads)(1)
    return module


faiss, torch = peer("faiss"), peer("torch")


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float32]:
    path = os.environ.get("WARPMEM_BENCH_ROWS")
    if path is not None:
        return np.ascontiguousarray(np.load(path, allow_pickle=False)[:30_000], np.float32)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((500, DIM), np.float32)[rng.integers(0, 500, 30_000)]
    x += rng.standard_normal(x.shape, np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def compare(report: Callable[[str], None], what: str, calls: Calls, rounds: int) -> None:
    """Ratios to "ours", calls taking turns; medians are printed.

    Short ones run once untimed, so that none pays for the last one's use of the caches.
    """
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            if rounds > 3:
                call()
            times[name].append(seconds(call))
    medians = {name: statistics.median(measured) for name, measured in times.items()}
    ratios = {
        name: statistics.median(a / b for a, b in zip(measured, times["ours"], strict=True))
        for name, measured in times.items()
    }
    shown = ", ".join(f"{name} {medians[name] * 1e3:.3f} ms ({ratios[name]:.2f}x)" for name in calls)
    report(f"{what}: {shown}")


@pytest.mark.parametrize(
    ("n", "columns", "k"),
    [(1, 100_000, 10), (1, 100_000, 4096), (64, 100_000, 10), (64, 10_000, 100), (1000, 1000, 10)],
)
def test_select_k(report: Callable[[str], None], n: int, columns: int, k: int) -> None:
    scores = np.random.default_rng(0).standard_normal((n, columns), np.float32)
    calls: Calls = {"ours": lambda: kernels.select_k(scores, k)}
    for isa in kernels.isas()[1:]:
        calls[isa] = lambda isa=isa: kernels.select_k(scores, k, isa=isa)
    if torch is not None:
        tensor = torch.from_numpy(scores)
        calls["torch.topk"] = lambda: torch.topk(tensor, k)
    if faiss is not None:

        def heap() -> None:
            values, indexes = np.empty((n, k), np.float32), np.empty((n, k), np.int64)
            best = faiss.float_minheap_array_t()
            best.ids, best.val, best.nh, best.k = faiss.swig_ptr(indexes), faiss.swig_ptr(values), n, k
            best.heapify()
            best.addn(columns, faiss.swig_ptr(scores))
            best.reorder()

        calls["faiss heap"] = heap
    calls["numpy argpartition"] = lambda: np.argpartition(scores, columns - k, axis=1)
    compare(report, f"select_k {n} x {columns}, k {k}", calls, 9)
    found = [kernels.select_k(scores, k, isa=isa) for isa in kernels.isas()]
    assert len({values.tobytes() + indexes.tobytes() for values, indexes in found}) == 1


@pytest.mark.parametrize("k", [256, 1024])
def test_kmeans(report: Callable[[str], None], rows: NDArray[np.float32], k: int) -> None:
    costs: dict[str, float] = {}

    def ours(init: Any) -> None:
        costs[init] = kernels.kmeans(rows, k, iterations=10, seed=1, init=init)[2]

    calls: Calls = {"ours": lambda: ours("random"), "ours, k-means++": lambda: ours("k-means++")}
    if faiss is not None:

        def theirs() -> None:
            clusters = faiss.Kmeans(DIM, k, niter=10, seed=1, max_points_per_centroid=10**7)
            clusters.cp.min_points_per_centroid = 1
            clusters.train(rows)
            costs["faiss"] = float(clusters.index.search(rows, 1)[0].sum())

        calls["faiss"] = theirs
    compare(report, f"kmeans {len(rows)} x {DIM}, k {k}, 10 iterations", calls, 2)
    report("  objective " + ", ".join(f"{name} {cost:.1f}" for name, cost in costs.items()))
    centroids = np.ascontiguousarray(rows[:k])
    calls = {"ours": lambda: kernels.kmeans_assign(rows, centroids)}
    if faiss is not None:
        index = faiss.IndexFlatL2(DIM)
        index.add(centroids)
        calls["faiss"] = lambda: index.search(rows, 1)
    if torch is not None:
        x, y = torch.from_numpy(rows), torch.from_numpy(centroids)
        calls["torch mm + max"] = lambda: (x @ y.T).max(1)
    compare(report, f"assign {len(rows)} x {k}", calls, 3)


@pytest.mark.parametrize(("pq_dim", "bits"), [(96, 4), (192, 4), (48, 8), (96, 8)])
def test_pq(report: Callable[[str], None], rows: NDArray[np.float32], pq_dim: int, bits: int) -> None:
    shape, sample = f"{pq_dim} x {bits} bits", rows[:10_000]
    many = rows[np.random.default_rng(2).integers(0, len(rows), 300_000)]
    books = kernels.pq_train(sample, pq_dim, bits, iterations=10)
    blocks = kernels.pq_interleave(kernels.pq_encode(many, books), pq_dim, bits)
    train: Calls = {"ours": lambda: kernels.pq_train(sample, pq_dim, bits, iterations=10)}
    encode: Calls = {"ours": lambda: kernels.pq_encode(rows, books)}
    index = None
    if faiss is not None:
        pq = faiss.ProductQuantizer(DIM, pq_dim, bits)
        pq.cp.niter, pq.cp.max_points_per_centroid = 10, 10**7
        train["faiss"], encode["faiss"] = lambda: pq.train(sample), lambda: pq.compute_codes(rows)
        kind = faiss.IndexPQFastScan if bits == 4 else faiss.IndexPQ
        index = kind(DIM, pq_dim, bits, faiss.METRIC_INNER_PRODUCT)
        index.train(sample)
        index.add(many)
    compare(report, f"pq_train 10000, {shape}", train, 1)
    compare(report, f"pq_encode {len(rows)}, {shape}", encode, 3)
    for n in (1, 32):
        queries = rows[:n]

        def scan(isa: str = "auto", queries: Any = queries) -> object:
            luts = kernels.pq_lut(queries, books, isa=isa)
            return kernels.pq_scan(blocks, luts, K, rows=len(many), isa=isa)

        calls: Calls = {"ours": scan}
        for isa in kernels.isas()[1:]:
            calls[isa] = lambda isa=isa, scan=scan: scan(isa)
        if index is not None:
            calls["faiss"] = lambda queries=queries: index.search(queries, K)
        found: list[Any] = [scan(isa) for isa in kernels.isas()]
        assert len({values.tobytes() + indexes.tobytes() for values, indexes in found}) == 1
        compare(report, f"lut + scan of {len(many)}, {shape}, {n} queries", calls, 9 if n == 1 else 3)
