"""Storages, metrics, the int8 screen, batches, threads: every variant returns the bits of the reference."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from oracle import image_of
from pools import BACKENDS, make_rows, native_isas
from warpmem.index.cpu import CpuBackend
from warpmem.records import Segment

STORAGES = ("f32", "f16", "int8")
METRICS = ("dot", "l2")
NOW = 1_750_000_000_000_000
RANKED: dict[str, Any] = {
    "w_similarity": 0.7, "w_recency": 0.4, "w_priority": -0.2, "half_life": 2.6e12, "recency_column": 1,
    "priority_column": 2, "now": NOW, "min_similarity": -1.0,
}  # fmt: skip
VARIANT = {"serial": "serial/plain", "avx2": "avx2/maddubs", "avx512": "avx512/vnni"}


def pools(dim: int, storage: str, metric: str) -> dict[tuple[Any, ...], Any]:
    """The reference under ("numpy",) and every native variant."""
    found: dict[tuple[Any, ...], Any] = {
        ("numpy",): BACKENDS["numpy"].pool(dim, 3, storage=storage, metric=metric)
    }
    for isa, screen, threads in itertools.product(native_isas(), ("auto", "int8", "none"), (1, 2)):
        if screen == "auto" and threads == 2:
            continue  # one of the others
        pool: Any = CpuBackend(isa).pool(
            dim, 3, storage=storage, metric=metric, screen=screen, threads=threads
        )
        pays = (isa, storage) != ("serial", "f32") and (dim >= 64 or storage == "int8")
        has_screen = screen == "int8" or (screen == "auto" and pays)
        assert (pool.isa, pool.storage, pool.metric, pool.threads) == (isa, storage, metric, threads)
        assert pool.screen == ("int8" if has_screen else "none")
        found[isa, screen, threads] = pool
    return found


def fill(every: dict[tuple[Any, ...], Any], rows: NDArray[np.float32], seed: int) -> None:
    """Two lists of different size, a third of the rows removed again."""
    rng = np.random.default_rng(seed)
    n = len(rows)
    ids = rng.permutation(n).astype(np.int64)
    lists = (rng.random(n) < 0.1).astype(np.int64)
    columns = np.stack(
        [rng.integers(0, 10, n), NOW - rng.integers(-(10**12), 10**14, n), np.zeros(n, np.int64)], axis=1
    )
    columns[:, 2] = [image_of(x) for x in rng.standard_normal(n)]
    gone = [(int(lists[i]), int(ids[i])) for i in range(0, n, 3)]
    none = np.zeros(0, np.int64)
    for pool in every.values():
        pool.apply([], lists, ids, (ids % 50).astype(np.uint32), columns, rows)
        pool.apply(gone, none, none, none.astype(np.uint32), columns[:0], rows[:0])


def segments(n_queries: int, n: int) -> list[Segment]:
    """Every query over both lists; some with terms, some with a bitmap, dense or sparse."""
    rng = np.random.default_rng(n)
    dense = rng.integers(0, 1 << 63, n // 64, np.int64).astype(np.uint64)
    sparse = np.uint64(1) << rng.integers(0, 64, n // 64, np.uint64)
    kinds: list[tuple[Any, ...]] = [
        ([], [], None),
        ([(0, 0, 2, 8)], [], None),
        ([(0, 1, 0, 2), (1, 0, 0, NOW)], [1, 5], None),
        ([], [], dense),
        ([(0, 0, 0, 8)], [], sparse),
    ]
    return [(q, i, i, *kinds[(q // 7 + i) % len(kinds)]) for q in range(n_queries) for i in (0, 1)]


def check_same(every: dict[tuple[Any, ...], Any], *arguments: Any, **options: Any) -> None:
    results = {key: pool.scan(*arguments, **options) for key, pool in every.items()}
    for key, result in results.items():
        for part, expected in zip(result, results[("numpy",)], strict=True):
            assert part.dtype == expected.dtype
            assert part.tobytes() == expected.tobytes(), f"{key} differs from numpy"


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(("dim", "n"), [(20, 400), (64, 1500), (390, 1500)])
def test_every_variant_gives_the_same_bits(dim: int, n: int, storage: str, metric: str) -> None:
    every = pools(dim, storage, metric)
    rows = make_rows("random", n, dim, n + dim)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    fill(every, rows, dim)
    queries = make_rows("random", 65, dim, 7)
    queries[::2] = rows[:33] + 0.1 * queries[::2]
    queries = np.ascontiguousarray(queries)
    for n_queries in (1, 3, 64, 65):
        for ranking in ({}, RANKED):
            check_same(every, queries[:n_queries], segments(n_queries, n), 10, **ranking)
    for low in (0.3, -0.9):
        check_same(every, queries[:3], segments(3, n), 300, min_similarity=low)


def added_scores(n: int, n_segments: int, seed: int) -> list[NDArray[np.float32] | None]:
    """Nothing, little to many rows, much to few, to rows that are not there, and to the first rows alone."""
    rng = np.random.default_rng(seed)
    few = np.where(rng.random(n) < 0.03, rng.random(n) * 5.0, 0.0)
    kinds: list[NDArray[np.float32] | None] = [
        None,
        (rng.random(n) * 0.2).astype(np.float32),
        few.astype(np.float32),
        (-rng.random(n + 100) * 1e6).astype(np.float32),
        rng.random(n // 3).astype(np.float32),
        np.empty(0, np.float32),
    ]
    return [kinds[int(i)] for i in rng.integers(0, len(kinds), n_segments)]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(("dim", "n"), [(20, 400), (64, 1500)])
def test_added_scores_give_the_same_bits(dim: int, n: int, storage: str, metric: str) -> None:
    every = pools(dim, storage, metric)
    rows = make_rows("random", n, dim, n + dim)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    fill(every, rows, dim)
    queries = make_rows("random", 12, dim, 7)
    queries[::2] = rows[:6] + 0.1 * queries[::2]
    for n_queries in (1, 3, 12):
        asked = segments(n_queries, n)
        for seed, ranking in enumerate(({}, RANKED, {"w_similarity": 0.0}, {"w_similarity": -1.0})):
            added = added_scores(n, len(asked), seed)
            check_same(every, queries[:n_queries], asked, 10, added=added, **ranking)
            options = {**ranking, "min_similarity": 0.1}
            check_same(every, queries[:n_queries], asked, 300, added=added, **options)


def test_added_scores_are_added_to_final_scores_and_rounded_again() -> None:
    """Against the sum made by hand of a scan of all rows without them."""
    pool = BACKENDS["numpy"].pool(16, 3)
    rows = make_rows("random", 300, 16, 4)
    fill({("numpy",): pool}, rows, 5)
    query = make_rows("random", 1, 16, 6)
    both: list[Segment] = [(0, 0, 0, [], [], None), (0, 1, 1, [], [], None)]
    added = [np.linspace(-1, 1, 250).astype(np.float32), None]
    whole = pool.scan(query, both, 300, **RANKED)
    count = int(whole[4][0])
    expected = []
    for score, list_id, row_id in zip(
        *(part[0, :count].tolist() for part in (whole[0], *whole[2:4])), strict=True
    ):
        more = float(added[0][row_id]) if list_id == 0 and row_id < 250 else 0.0
        expected.append((np.float32(score + more), list_id, row_id))
    expected.sort(key=lambda row: -row[0])
    found = pool.scan(query, both, 7, added=added, **RANKED)
    assert [*zip(*(part[0].tolist() for part in (found[0], *found[2:4])), strict=True)] == expected[:7]


@pytest.mark.parametrize("backend", ["numpy", "serial"])
def test_added_scores_are_checked(backend: str) -> None:
    pool: Any = BACKENDS[backend].pool(4, 0)
    query, segment = np.ones((1, 4), np.float32), (0, 0, 0, [], [], None)
    fine = np.zeros(3, np.float32)
    for bad, error in (
        ([], ValueError), ([fine, fine], ValueError), ([fine.astype(np.float64)], TypeError),
        ([fine + np.float32(np.nan)], ValueError), ([fine[None]], ValueError), ([[0.0]], TypeError),
    ):  # fmt: skip
        with pytest.raises(error):
            pool.scan(query, [segment], 1, added=bad)
    with pytest.raises(ValueError, match="takes no added"):
        BACKENDS["cupy"].pool(4, 0).scan(query, [segment], 1, added=[fine])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(
    "kind", ["integers", "zeros", "denormals", "huge", "mixed", "equal", "duplicates", "cancelling"]
)
def test_odd_rows_give_the_same_bits(kind: str, storage: str, metric: str) -> None:
    every = pools(70, storage, metric)
    rows, queries = make_rows(kind, 500, 70, 3), make_rows(kind, 5, 70, 4)
    if storage == "f16":
        rows = np.clip(rows, -65504, 65504)
    fill(every, rows, 1)
    weights: Sequence[dict[str, Any]] = (
        {},
        RANKED,
        {"w_similarity": 0.0},
        {"w_similarity": -1.0},
        {"w_similarity": 1e-300},
        {**RANKED, "w_recency": -0.4, "half_life": 1e-300},
    )
    for ranking in weights:
        check_same(every, queries, [(q, i, 0, [], [], None) for q in range(5) for i in (0, 1)], 20, **ranking)


@pytest.mark.parametrize("isa", native_isas())
def test_explain_says_what_ran(isa: str) -> None:
    n, dim = 6000, 384
    rows = BACKENDS["numpy"].normalize(make_rows("random", n, dim, 1))
    ids = np.arange(n)
    columns = np.zeros((n, 1), np.int64)
    for screen, threads in itertools.product(("int8", "none"), (1, 2)):
        pool: Any = CpuBackend(isa).pool(dim, 1, screen=screen, threads=threads)
        pool.apply([], np.zeros(n, np.int64), ids, ids.astype(np.uint32), columns, rows)
        segment: list[Segment] = [(q, 0, 0, [(0, 0, 0, 0)], [], None) for q in range(4)]
        *found, plan = pool.scan(rows[:4], segment, 10, explain=True)
        assert [part.tobytes() for part in found] == [
            part.tobytes() for part in pool.scan(rows[:4], segment, 10)
        ]
        assert found[3][:, 0].tolist() == [0, 1, 2, 3]
        assert plan["rows_seen"] == 4 * n
        assert plan["threads"] == threads
        assert plan["tiles"] == 3
        if screen == "int8":
            assert plan["variant"] == VARIANT[isa]
            assert 40 <= plan["rows_rescored"] < n
        else:
            assert plan["variant"] == isa
            assert plan["rows_rescored"] == 4 * n


@pytest.mark.parametrize("name", ["numpy", *native_isas()])
def test_l2_and_stored_rows_mean_what_they_say(name: str) -> None:
    dim, n = 96, 200
    rows, queries = make_rows("random", n, dim, 1), make_rows("random", 2, dim, 2)
    ids = np.arange(n)
    for storage in STORAGES:
        pool = BACKENDS[name].pool(dim, 0, storage=storage, metric="l2")
        pool.apply([], np.zeros(n, np.int64), ids, ids.astype(np.uint32), np.zeros((n, 0), np.int64), rows)
        stored = pool.vectors(0, ids)
        largest = np.abs(rows).max(axis=1, keepdims=True)
        allowed = {"f32": 0 * largest, "f16": 2.0**-11 * np.abs(rows), "int8": largest / 127 * 0.5001}
        assert (np.abs(stored - rows) <= allowed[storage]).all()
        _, similarities, _, row_ids, _ = pool.scan(queries, [(q, 0, 0, [], [], None) for q in (0, 1)], n)
        for q in (0, 1):
            exact = -((stored[row_ids[q]].astype(np.float64) - queries[q]) ** 2).sum(axis=1)
            assert np.abs(similarities[q] / exact - 1).max() < 2.0**-23
            assert (np.diff(similarities[q]) <= 0).all()
        own = pool.scan(stored[5:6].copy(), [(0, 0, 0, [], [], None)], 1)
        assert own[1].tobytes() == np.zeros((1, 1), np.float32).tobytes()  # +0, not -0


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("metric", METRICS)
def test_wishes_change_no_result(storage: str, metric: str) -> None:
    rows = make_rows("random", 300, 66, 1)
    ids = np.arange(300)
    for name, backend in BACKENDS.items():
        found = set()
        for screen, threads in itertools.product(("auto", "int8", "none"), (1, 3)):
            pool = backend.pool(66, 0, storage=storage, metric=metric, screen=screen, threads=threads)
            pool.apply([], ids * 0, ids, ids.astype(np.uint32), np.zeros((300, 0), np.int64), rows)
            scanned = pool.scan(rows[:3], [(q, 0, 0, [], [], None) for q in range(3)], 7)
            found.add(b"".join(part.tobytes() for part in scanned))
        assert len(found) == 1, name


@pytest.mark.parametrize("name", list(BACKENDS))
def test_refused_options(name: str) -> None:
    backend = BACKENDS[name]
    with pytest.raises(ValueError, match="storage must be one of f32, f16, int8"):
        backend.pool(4, 0, storage="f64")
    with pytest.raises(ValueError, match="metric must be one of dot, l2"):
        backend.pool(4, 0, metric="cosine")
    with pytest.raises(ValueError, match=r"screen must be one of auto, int8, (pq, )?none"):
        backend.pool(4, 0, screen="always")
    for threads in (0, 1025):
        with pytest.raises(ValueError, match="threads must be within 1 and 1024"):
            backend.pool(4, 0, threads=threads)
    pool = backend.pool(3, 0, storage="f16")
    rows = np.array([[1, 2, 3], [0, -65519, 0], [0, 65520, 0]], np.float32)
    three = np.arange(3)
    zeros, none = np.zeros(3, np.int64), np.zeros((3, 0), np.int64)
    with pytest.raises(ValueError, match="row 2 exceeds 65504"):
        pool.apply([], zeros, three, three.astype(np.uint32), none, rows)
    assert pool.stats()["rows"] == 0
    pool.apply([], zeros[:2], three[:2], three[:2].astype(np.uint32), none[:2], rows[:2])
    assert pool.vectors(0, three[:2]).tolist() == [[1, 2, 3], [0, -65504, 0]]
