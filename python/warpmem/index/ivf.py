"""Approximate search: training it, filling it, and choosing how much of it a search reads.

    build_ivf    the rows of an exact pool -> IvfPool, tuned to a recall
    train_pq     vectors -> an empty pool that keeps codes only

Tuning asks for the neighbours of the middles of three random rows of the owner. Rows themselves are too easy:
they lie where the cells were made for them. On a million text embeddings of 384 dimensions in 2,000 cells,
real queries that were held out found 0.914 and 0.956 of their neighbours at two settings, such middles 0.899
and 0.949, rows themselves more than 0.99. The chosen setting is the cheapest whose recall on middles, less
one standard error, reaches what was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import IndexCorrupt, InputError
from ..protocols import RowPool
from ..records import SegmentTable
from .clustering import Training
from .ivf_plan import MIN_ROWS, Cells, cost, ladder, padded, plan_training
from .ivf_pool import IvfPool
from .pool_copies import storable

__all__ = [
    "MIN_ROWS",
    "Cells",
    "IvfPool",
    "build_ivf",
    "open_ivf",
    "plan_training",
    "train_pq",
    "training_rows",
]

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

_K = 10  # neighbours that recall is measured by
_QUERIES = 400
_OWN_QUERIES = 100
_MAX_REFINE = 200
_PIECE = 32_768
_PIECE_ELEMENTS = 1 << 24  # of rows in memory at a time, twice
_UNIT = 1e-3
_ROW_BYTES = {"f32": 4, "f16": 2, "int8": 1, "pq": 0}
_ENTRIES = 16


def build_ivf(
    pool: RowPool,
    *,
    recall: float,
    storage: str,
    metric: str,
    threads: int = 1,
    seed: int = 0,
    min_rows: int = MIN_ROWS,
    isa: str = "auto",
    search_threads: int | None = None,
    training: Training | None = None,
) -> IvfPool | None:
    """An IvfPool with the rows of `pool`, or None when no list has `min_rows` rows: exact is as fast then.

    recall: wanted of the 10 nearest, above 0 and below 1. metric: "dot" or "l2". storage: how rows are kept,
    "f32", "f16", "int8" or "pq" (codes only; recall is then measured against what the codes stand for).
    threads: how many build it, at least those that search it; these are as many unless search_threads says
    so. training: who trains cells and codebooks; None is the host. Determined by the rows, `seed` and the
    other arguments except threads and training. Rows that leave `pool`
    meanwhile may be left out; whoever changes it applies the changes to the result too.
    """
    if not 0.0 < recall < 1.0:
        raise InputError(f"recall must be above 0 and below 1, not {recall}")
    sizes = {owner: len(pool.rows(owner)[0]) for owner in pool.lists().tolist()}
    large = sorted(owner for owner, n in sizes.items() if n >= max(min_rows, _ENTRIES * 2))
    if not large:
        return None
    training = training or Training(isa=isa)
    random = np.random.default_rng(seed)
    samples = {}
    for owner in large:
        samples[owner] = _sample(pool, owner, random, threads)
    dim = samples[large[0]].shape[1]
    n_columns = pool.rows(large[0])[2].shape[1]
    codebooks = _train_codebooks([samples[owner] for owner in large], dim, seed, threads, training)
    ivf = IvfPool(
        dim,
        n_columns,
        storage=storage,
        metric=metric,
        codebooks=codebooks,
        threads=threads if search_threads is None else search_threads,
        isa=isa,
    )
    for owner in large:
        rows = samples.pop(owner)
        _make_cells(ivf, owner, rows, sizes[owner], seed, threads, training)
        _fill(ivf, pool, owner, threads)
        _tune(ivf, pool, owner, rows, recall, random, threads)
    for owner in sizes:
        if owner not in ivf.owners:
            for ids, ordinals, columns, vectors in _pieces(pool, owner):
                rows_of = storable(vectors, storage)
                ivf.apply([], np.full(len(ids), owner, np.int64), ids, ordinals, columns, rows_of)
    ivf.trim()
    return ivf


def training_rows(dim: int) -> int:
    """How many vectors `train_pq` needs at least."""
    return _ENTRIES * 2


def train_pq(
    vectors: F32,
    *,
    n_columns: int,
    metric: str,
    threads: int = 1,
    seed: int = 0,
    isa: str = "auto",
    training: Training | None = None,
) -> IvfPool:
    """An empty pool that keeps codes only, its codebooks trained on vectors (n, dim) float32. No list has
    cells: scans are exact with respect to what the codes stand for. training: as for build_ivf. InputError
    for too few vectors."""
    needed = training_rows(vectors.shape[1])
    if len(vectors) < needed:
        raise InputError(f"training needs at least {needed} vectors, not {len(vectors)}")
    dim = vectors.shape[1]
    codebooks = _train_codebooks([vectors], dim, seed, threads, training or Training(isa=isa))
    return IvfPool(dim, n_columns, storage="pq", metric=metric, codebooks=codebooks, threads=threads, isa=isa)


def open_ivf(pool: Any, sections: Mapping[str, Any], *, metric: str, threads: int) -> IvfPool:
    """The pool that IvfPool.save wrote, from the native pool and the sections that `_cpu.open_pool` found.
    IndexCorrupt when they are not of one index of this metric. `threads` are those of the native pool."""
    if pool.metric != metric or pool.screen != "pq":
        raise IndexCorrupt(
            f"an index file should hold codes for {metric}, but has {pool.screen} for {pool.metric}"
        )
    return IvfPool.open(pool, sections)


# ------------------------------------------------------------------------------------------ training


def _sample(pool: RowPool, owner: int, random: np.random.Generator, threads: int) -> F32:
    ids = pool.rows(owner)[0]
    plan = plan_training(len(ids), 1, threads)
    wanted = min(len(ids), max(plan.sample, plan.pq_sample, 3 * _QUERIES))
    return _take(pool, owner, ids[np.sort(random.choice(len(ids), wanted, replace=False))])[1]


def _train_codebooks(samples: list[F32], dim: int, seed: int, threads: int, training: Training) -> F32:
    """Codebooks (pq_dim, 16, dsub) over an even share of each sample."""
    plan = plan_training(sum(len(rows) for rows in samples), dim, threads)
    share = max(1, sum(len(rows) for rows in samples) // plan.pq_sample)
    rows = np.concatenate([part[::share] for part in samples])
    wide = np.zeros((len(rows), padded(dim)), np.float32)
    wide[:, :dim] = rows
    return training.pq_train(wide, plan.pq_dim, 4, iterations=plan.pq_iterations, seed=seed, threads=threads)


def _make_cells(
    ivf: IvfPool, owner: int, rows: F32, n_rows: int, seed: int, threads: int, training: Training
) -> None:
    """k-means over a sample. Rows of unit length are compared by angle: that needs fewer probes."""
    plan = plan_training(n_rows, ivf.dim, threads)
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    spherical = ivf.metric == "dot" and bool((np.abs(lengths - 1.0) < _UNIT).all())
    centroids, _, _ = training.kmeans(
        rows[:: max(1, len(rows) // max(plan.sample, plan.n_lists))],
        plan.n_lists,
        iterations=plan.iterations,
        seed=seed,
        init="random",
        spherical=spherical,
        threads=threads,
    )
    ivf.add_cells(owner, centroids, spherical=spherical, n_probes=1, refine=1)


# ------------------------------------------------------------------------------------------- filling


def _take(pool: RowPool, owner: int, row_ids: I64) -> tuple[NDArray[np.bool_], F32]:
    """Which of the rows are still there, and their vectors."""
    here = np.ones(len(row_ids), bool)
    while True:
        try:
            return here, pool.vectors(owner, row_ids[here])
        except KeyError:
            here &= np.isin(row_ids, pool.rows(owner)[0])


def _pieces(pool: RowPool, owner: int, order: I64 | None = None) -> Iterator[tuple[Any, Any, Any, F32]]:
    """(row_ids, ordinals, columns, vectors) of a list, some rows at a time."""
    ids, ordinals, columns = pool.rows(owner)
    order = np.arange(len(ids)) if order is None else order
    for first in range(0, len(order), _PIECE):
        part = order[first : first + _PIECE]
        here, vectors = _take(pool, owner, ids[part])
        part = part[here]
        yield ids[part], ordinals[part], np.ascontiguousarray(columns[part]), vectors


def _fill(ivf: IvfPool, pool: RowPool, owner: int, threads: int) -> None:
    """Rows are added cell by cell, so that the pages of a cell lie together. While some are assigned or
    added, the next are read."""
    ids, ordinals, columns = pool.rows(owner)
    cells = np.full(len(ids), -1, np.int64)
    everyone = np.arange(len(ids))
    for part, vectors in _taken(pool, owner, ids, everyone, ivf.dim):
        cells[part] = ivf.assign(owner, vectors, threads)
    order = np.argsort(cells, kind="stable")
    for part, vectors in _taken(pool, owner, ids, order[cells[order] >= 0], ivf.dim):
        rows = storable(vectors, ivf.storage)
        ivf.fill(cells[part], (ids[part], ordinals[part], np.ascontiguousarray(columns[part]), rows))


def _taken(pool: RowPool, owner: int, ids: I64, order: I64, dim: int) -> Iterator[tuple[I64, F32]]:
    """Some of `order` at a time, less the rows that are gone, and their vectors. Reads one step ahead."""

    def read(first: int) -> tuple[I64, F32]:
        part = order[first : first + piece]
        here, vectors = _take(pool, owner, ids[part])
        return part[here], vectors

    if len(order) == 0:
        return
    piece = max(1, min(_PIECE, _PIECE_ELEMENTS // dim))
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(read, 0)
        for first in range(piece, len(order) + piece, piece):
            found = ahead.result()
            if first < len(order):
                ahead = reader.submit(read, first)
            yield found


# -------------------------------------------------------------------------------------------- tuning


def _tune(
    ivf: IvfPool,
    pool: RowPool,
    owner: int,
    rows: F32,
    recall: float,
    random: np.random.Generator,
    threads: int,
) -> None:
    """Set the cheapest n_probes and refine that reach `recall` on middles of rows; the most thorough if none
    does."""
    cells = ivf.owners[owner]
    n = min(_QUERIES, len(rows) // 3)
    drawn = rows[random.choice(len(rows), 3 * n, replace=False)]
    middle = (drawn[:n] + drawn[n : 2 * n] + drawn[2 * n :]) / np.float32(3.0)
    if cells.spherical:
        lengths = np.sqrt(np.einsum("ij,ij->i", middle, middle, dtype=np.float64))[:, None]
        middle = np.where(lengths > _UNIT, middle / np.maximum(lengths, _UNIT), drawn[:n]).astype(np.float32)
    truth = _exact(ivf, pool, owner, middle)
    n_cells = cells.n_cells
    price = partial(
        cost,
        rows_a_cell=len(pool.rows(owner)[0]) / n_cells,
        code_bytes=ivf.codebooks.shape[0] // 2,
        row_bytes=_ROW_BYTES[ivf.storage] * ivf.dim,
        k=_K,
    )
    ranks = ivf.ranks(owner, middle, truth)
    refines = ladder(_MAX_REFINE)
    best = (float("inf"), n_cells, _MAX_REFINE, float("nan"))
    for n_probes in ladder(n_cells):
        if price(n_probes, 1) >= best[0]:
            break
        mean, error = _summary(ranks < n_probes, truth)  # if rescoring found all that the cells hold
        if mean - error < recall:
            continue
        low, high, reached = (
            0,
            len(refines),
            float("nan"),
        )  # the least that reaches it lies within, or is none
        while low < high:
            half = (low + high) // 2
            mean, error = _recall(ivf, owner, middle, truth, n_probes, refines[half], threads)
            if mean - error >= recall:
                high, reached = half, mean
            else:
                low = half + 1
        if high < len(refines) and price(n_probes, refines[high]) < best[0]:
            best = (price(n_probes, refines[high]), n_probes, refines[high], reached)
    if best[3] != best[3]:
        best = (*best[:3], _recall(ivf, owner, middle, truth, *best[1:3], threads)[0])
    _, n_probes, refine, reached = best
    own = drawn[: min(n, _OWN_QUERIES)]
    own_recall, _ = _recall(ivf, owner, own, _exact(ivf, pool, owner, own), n_probes, refine, threads)
    ivf.set_plan(owner, n_probes=n_probes, refine=refine, recall=reached, recall_rows=own_recall)


def _exact(ivf: IvfPool, pool: RowPool, owner: int, queries: F32) -> I64:
    """Row ids (n, 10) of the true neighbours."""
    table = SegmentTable(np.arange(len(queries)), np.full(len(queries), owner, np.int64))
    if ivf.storage == "pq":
        exact: I64 = ivf.scan(queries, table, _K, n_probes=ivf.owners[owner].n_cells)[3]
        return exact
    return pool.scan(queries, table, _K)[3]


def _recall(
    ivf: IvfPool, owner: int, queries: F32, truth: I64, n_probes: int, refine: int, threads: int
) -> tuple[float, float]:
    """Mean share of the true neighbours that are found, and its standard error."""

    def search(part: F32) -> I64:
        table = SegmentTable(np.arange(len(part)), np.full(len(part), owner, np.int64))
        found: I64 = ivf.scan(part, table, _K, n_probes=n_probes, refine=refine)[3]
        return found

    own = max(1, threads // ivf.threads)  # each scan has threads of its pool
    with ThreadPoolExecutor(own) as pool:
        parts = np.array_split(queries, max(1, min(own, len(queries))))
        found = np.concatenate(list(pool.map(search, parts)))
    return _summary((found[:, None, :] == truth[:, :, None]).any(axis=2), truth)


def _summary(hits: NDArray[np.bool_], truth: I64) -> tuple[float, float]:
    """Mean share of the true neighbours, (n, 10) with -1 for none, that are hit, and its standard error."""
    shares = (hits & (truth >= 0)).sum(axis=1) / np.maximum((truth >= 0).sum(axis=1), 1)
    return float(shares.mean()), float(shares.std() / np.sqrt(len(shares)))
