"""Exact search of all rows: one query a call and more, each system beside warpmem."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from data import Data
from systems import DIMENSION, F32, I64, K, package
from timing import ratio, rounds

import warpmem

ROUNDS = {1: 40, 64: 4}
Search = Callable[[F32], I64]


def _ours(data: Data, storage: Any) -> Search:
    index = warpmem.VectorIndex(DIMENSION, storage=storage, threads=1)
    for first in range(0, len(data.rows), 50_000):
        index.add(data.rows[first : first + 50_000])
    return lambda queries: index.search(queries, K).ids


def _numpy(data: Data) -> Search:
    def search(queries: F32) -> I64:
        products = queries @ data.rows.T
        best = np.argpartition(-products, K - 1, axis=1)[:, :K]
        order = np.argsort(-np.take_along_axis(products, best, axis=1), axis=1)
        return np.take_along_axis(best, order, axis=1)

    return search


def _faiss(data: Data, half: bool) -> Search:
    faiss = package("faiss")
    faiss.omp_set_num_threads(1)
    index: Any = faiss.IndexFlatIP(DIMENSION)
    if half:
        kind = faiss.ScalarQuantizer.QT_fp16
        index = faiss.IndexScalarQuantizer(DIMENSION, kind, faiss.METRIC_INNER_PRODUCT)
        index.train(data.rows[:1000])
    index.add(data.rows)

    def search(queries: F32) -> I64:
        faiss.cvar.distance_compute_blas_threshold = 1 if len(queries) > 1 else 20
        found: I64 = index.search(queries, K)[1]
        return found

    return search


def _usearch(data: Data, dtype: Any) -> Search:
    module = package("usearch.index")
    rows = data.rows.astype(dtype)

    def search(queries: F32) -> I64:
        asked = queries.astype(dtype)
        asked = asked[0] if len(asked) == 1 else asked
        found = module.search(rows, asked, K, module.MetricKind.IP, exact=True, threads=1)
        return found.keys.astype(np.int64).reshape(len(queries), K)

    return search


def _hnswlib(data: Data) -> Search:
    index = package("hnswlib").BFIndex(space="ip", dim=DIMENSION)
    index.init_index(len(data.rows))
    index.add_items(data.rows)
    index.set_num_threads(1)
    return lambda queries: index.knn_query(queries, K)[0].astype(np.int64)


def _scann(data: Data, quantize: bool) -> Search:
    made = package("scann").scann_ops_pybind.builder(data.rows, K, "dot_product")
    made.score_brute_force(quantize=quantize)
    if quantize:
        made.reorder(4 * K)
    index = made.set_n_training_threads(1).build()

    def search(queries: F32) -> I64:
        if len(queries) == 1:
            return np.asarray(index.search(queries[0])[0], np.int64)[None]
        return np.asarray(index.search_batched(queries)[0], np.int64)

    return search


def _peers(data: Data) -> dict[str, tuple[str, Callable[[], Search]]]:
    """By name: the package, and what makes the search."""
    return {
        "warpmem f16": ("warpmem", partial(_ours, data, "f16")),
        "NumPy": ("numpy", partial(_numpy, data)),
        "faiss IndexFlatIP": ("faiss", partial(_faiss, data, False)),
        "faiss SQ fp16": ("faiss", partial(_faiss, data, True)),
        "usearch exact f32": ("usearch", partial(_usearch, data, np.float32)),
        "usearch exact f16": ("usearch", partial(_usearch, data, np.float16)),
        "hnswlib BFIndex": ("hnswlib", partial(_hnswlib, data)),
        "scann brute force": ("scann", partial(_scann, data, False)),
        "scann brute force int8, reordered": ("scann", partial(_scann, data, True)),
    }


IN_FULL = (
    "warpmem",
    "NumPy",
    "faiss IndexFlatIP",
    "usearch exact f32",
    "hnswlib BFIndex",
    "scann brute force",
)
"""These keep what they are given, so they must find all; two rows may differ by less than float32 tells."""


def compare(data: Data, report: Callable[[str], None]) -> list[dict[str, Any]]:
    ours = _ours(data, "f32")
    makers: dict[str, Callable[[], Search]] = {"warpmem": lambda: ours}
    makers |= {name: make for name, (family, make) in _peers(data).items() if package(family) is not None}
    out: list[dict[str, Any]] = []
    for name, make in makers.items():
        theirs = make()
        shares = data.recall(theirs(data.queries[:200]), np.arange(200))
        assert shares.mean() >= (0.9995 if name in IN_FULL else 0.99), (name, shares.mean())
        for batch, n in ROUNDS.items():
            asked = [data.queries[i * batch : (i + 1) * batch] for i in range(min(n, 1000 // batch))]
            calls = {"ours": _cycle(ours, asked), "theirs": _cycle(theirs, asked)}
            times = rounds(calls, n)
            line = {
                "system": name,
                "batch": batch,
                "recall": float(shares.mean()),
                "ms_a_query": 1e3 * statistics.median(times["theirs"]) / batch,
                "warpmem_ms_a_query": 1e3 * statistics.median(times["ours"]) / batch,
                "warpmem_over_it": ratio(times["theirs"], times["ours"]),
            }
            out.append(line)
            report(f"exact {line}")
    return out


def _cycle(search: Search, asked: list[F32]) -> Callable[[], I64]:
    """The next batch in each call."""
    at = iter(range(1 << 30))
    return lambda: search(asked[next(at) % len(asked)])
