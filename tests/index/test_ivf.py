"""IvfPool: probing and rescoring everything is exact; tuning reaches the recall it promises on queries that
it has not seen; and what is refused."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from warpmem import _cpu
from warpmem.errors import IndexCorrupt, InputError
from warpmem.index import VectorIndex, ivf, ivf_cells, kernels
from warpmem.index.ivf_plan import ladder
from warpmem.index.numpy_ref import NumpyPool
from warpmem.records import SegmentTable

DIM = 24
ALL = 1 << 20
REAL = os.environ.get("WARPMEM_BENCH_REAL")


def clusters(n: int, dim: int, seed: int) -> NDArray[np.float32]:
    """Unit rows in some dozens of loose heaps."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((40, dim), np.float32)
    rows = centres[rng.integers(0, 40, n)] + 0.9 * rng.standard_normal((n, dim), np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def source(sizes: dict[int, int], *, metric: str = "dot", storage: str = "f32", unit: bool = True) -> Any:
    """A native pool with so many rows a list, row ids distinct, columns (row % 10, row)."""
    pool = _cpu.Pool(DIM, 2, metric=metric, storage=storage)
    first = 0
    for owner, n in sizes.items():
        ids = np.arange(first, first + n)
        rows = clusters(n, DIM, owner + 100)
        if not unit:
            rows *= np.random.default_rng(owner + 7).uniform(0.5, 3, (n, 1)).astype(np.float32)
        columns = np.stack([ids % 10, ids], axis=1)
        pool.apply([], np.full(n, owner), ids, (ids % 97).astype(np.uint32), columns, rows)
        first += n
    return pool


def build(pool: Any, **options: Any) -> ivf.IvfPool:
    settings_: dict[str, Any] = {
        "recall": 0.9,
        "storage": "f32",
        "metric": "dot",
        "min_rows": 1000,
        **options,
    }
    made = ivf.build_ivf(pool, **settings_)
    assert made is not None
    return made


def same(found: Any, expected: Any) -> None:
    for part, known in zip(found[:5], expected[:5], strict=True):
        assert part.dtype == known.dtype and part.tobytes() == known.tobytes()


def segments_of(n: int, owners: list[int], **parts: Any) -> list[Any]:
    terms, values, bitmap = parts.get("terms", ()), parts.get("values", ()), parts.get("bitmap")
    return [(q, owner, (q + owner) % 3, terms, values, bitmap) for q in range(n) for owner in owners]


# -------------------------------------------------------------------------------------------- exact


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize(
    ("storage", "metric"), [("f32", "dot"), ("f16", "l2"), ("f32", "l2"), ("f16", "dot")]
)
def test_probing_and_rescoring_everything_is_exact(storage: str, metric: str, unit: bool) -> None:
    pool = source({3: 2500, 9: 1200, 4: 300}, metric=metric, storage=storage, unit=unit)
    made = build(pool, metric=metric, storage=storage)
    assert sorted(made.owners) == [3, 9] and made.lists().tolist() == [3, 4, 9]
    assert {cells.spherical for cells in made.owners.values()} == {unit and metric == "dot"}
    queries = clusters(6, DIM, 1)
    bitmap = np.full(4000 // 64 + 1, 0x0F0F_F0F0_1234_5678, np.uint64)
    ranked = {"w_similarity": 0.7, "w_recency": 1.0, "half_life": 500.0, "recency_column": 1, "now": 4000}
    for segments in (
        segments_of(6, [3, 4, 9, 77]),
        segments_of(6, [9, 3], terms=[(0, 0, 2, 5), (0, 1, 0, 1), (0, 3, 0, 0)], values=[8]),
        segments_of(6, [4, 3], bitmap=bitmap),
        segments_of(6, [4]),
        [],
    ):
        for extra in ({}, ranked, {"min_similarity": 0.5}):
            expected = pool.scan(queries, segments, 10, **extra)
            same(made.scan(queries, segments, 10, n_probes=ALL, refine=400, **extra), expected)
    table = SegmentTable(np.repeat(np.arange(6), 3), np.tile(np.array([9, 4, 3]), 6), [(0, 0, 1, 6)])
    same(made.scan(queries, table, 10, n_probes=ALL, refine=400), pool.scan(queries, table, 10))
    for owner in (3, 4, 9):
        ids, ordinals, columns = made.rows(owner)
        order, known = np.argsort(ids), pool.rows(owner)
        for part, expected in zip((ids[order], ordinals[order], columns[order]), known, strict=True):
            assert (part == expected).all()
        assert (made.vectors(owner, known[0]) == pool.vectors(owner, known[0])).all()


def test_equal_rows_of_both_kinds_of_owner_stand_in_order() -> None:
    pool = source({1: 1200, 2: 10})
    made = build(pool)
    row = clusters(1, DIM, 5)
    for target in (pool, made):
        for owner, first, ordinal in ((1, 9000, 5), (2, 9100, 5), (1, 9200, 2), (2, 9300, 9)):
            n = 3
            ids, where = np.arange(first, first + n), np.full(n, owner)
            columns = np.zeros((n, 2), np.int64)
            target.apply([], where, ids, np.full(n, ordinal, np.uint32), columns, np.repeat(row, n, axis=0))
    for groups in ((0, 0), (1, 0), (0, 1)):
        segments: list[Any] = [(0, 1, groups[0], (), (), None), (0, 2, groups[1], (), (), None)]
        same(made.scan(row, segments, 8, n_probes=ALL), pool.scan(row, segments, 8))


operation = st.tuples(
    st.sampled_from(["add", "remove", "update", "mixed", "drop", "compact", "trim"]), st.integers(0, 10**6)
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(operation, max_size=12))
def test_changes_against_the_reference(operations: list[tuple[str, int]]) -> None:
    books = np.random.default_rng(0).standard_normal((8, 16, 4)).astype(np.float32) * np.float32(0.3)
    made, model = ivf.IvfPool(DIM, 2, storage="f32", metric="dot", codebooks=books), NumpyPool(DIM, 2)
    for owner, cells in ((1, 9), (2, 20)):
        made.add_cells(owner, clusters(cells, DIM, owner), spherical=True, n_probes=2, refine=3)
    ids = np.arange(1200)
    columns = np.stack([ids % 10, ids], axis=1)
    for target in (made, model):
        target.apply([], ids % 3 + 1, ids, (ids % 97).astype(np.uint32), columns, clusters(1200, DIM, 50))
    for name, seed in operations:
        rng = np.random.default_rng(seed)
        if name in ("drop", "compact"):
            for target in (made, model):
                getattr(target, name)([seed % 3 + 1] if name == "drop" else seed % 3 + 1)
            continue
        if name == "trim":
            made.trim()
            continue
        n = int(rng.integers(0, 60)) if name != "remove" else 0
        owners = rng.integers(1, 5, n)
        ids = rng.integers(0, 2500 if name == "add" else 1200, n)
        rows = clusters(n, DIM, seed) if n else np.zeros((0, DIM), np.float32)
        columns = np.stack([ids % 10, ids], axis=1)
        gone = (
            [] if name == "add" else [(int(o), int(i)) for o, i in rng.integers([1, 0], [5, 2300], (80, 2))]
        )
        for target in (made, model):
            target.apply(gone, owners, ids, (ids % 97).astype(np.uint32), columns, rows)
        assert made.lists().tolist() == model.lists().tolist()
    assert made.lists().tolist() == model.lists().tolist()
    assert made.stats()["rows"] == model.stats()["rows"]
    queries = clusters(4, DIM, 77)
    for owners in ([1], [2, 3], [1, 2, 3, 4]):
        segments = segments_of(4, owners)
        same(made.scan(queries, segments, 20, n_probes=ALL, refine=200), model.scan(queries, segments, 20))
    for owner in model.lists().tolist():
        ids = np.sort(model.rows(owner)[0])
        assert (np.sort(made.rows(owner)[0]) == ids).all()
        assert (made.vectors(owner, ids) == model.vectors(owner, ids)).all()


# ------------------------------------------------------------------------------------------- recall


def recall_of(found: Any, exact: Any) -> float:
    return float((found[3][:, :, None] == exact[3][:, None, :]).any(axis=1).mean())


@pytest.mark.parametrize("storage", ["f32", "f16", "int8"])
def test_recall_of_queries_that_were_not_seen(storage: str) -> None:
    pool = source({1: 6000})
    queries = clusters(200, DIM, 101)
    table = SegmentTable(np.arange(200), np.full(200, 1))
    exact = pool.scan(queries, table, 10)
    for wanted in (0.8, 0.95):
        made = build(pool, recall=wanted, storage=storage)
        cells = made.owners[1]
        assert cells.recall >= wanted and cells.recall_rows >= wanted
        found = made.scan(queries, table, 10, explain=True)
        assert recall_of(found, exact) >= wanted
        plan = found[5]
        assert plan["plan"] == "ivf" and plan["cells"] == 200 * cells.n_probes
        assert (plan["n_probes"], plan["refine"]) == (cells.n_probes, cells.refine)
        assert plan["rows_seen"] < 200 * 6000


@pytest.mark.skipif(REAL is None, reason="WARPMEM_BENCH_REAL names no embeddings")
def test_recall_on_real_embeddings() -> None:
    real = np.load(REAL or "").astype(np.float32)
    real /= np.linalg.norm(real, axis=1, keepdims=True)
    index, exact = VectorIndex(real.shape[1], recall=0.95), VectorIndex(real.shape[1])
    for target in (index, exact):
        target.add(real[1000:])
    index.optimise()
    truth = exact.search(real[:1000], 10).ids
    found = index.search(real[:1000], 10).ids
    assert (found[:, :, None] == truth[:, None, :]).any(axis=1).mean() >= 0.95


def test_codes_alone_are_tuned_against_what_they_stand_for() -> None:
    pool = source({1: 3000, 2: 50})
    made = build(pool, storage="pq")
    queries = clusters(100, DIM, 101)  # about the heaps of list 1
    table = SegmentTable(np.repeat(np.arange(100), 2), np.tile(np.array([1, 2]), 100))
    decoded = _cpu.Pool(DIM, 2)
    for owner in (1, 2):
        ids, ordinals, columns = made.rows(owner)
        decoded.apply([], np.full(len(ids), owner), ids, ordinals, columns, made.vectors(owner, ids))
    exact = decoded.scan(queries, table, 10)
    same(made.scan(queries, table, 10, n_probes=ALL, refine=1), exact)
    assert recall_of(made.scan(queries, table, 10), exact) >= 0.9


def test_a_filter_that_leaves_little_is_answered_in_full() -> None:
    pool = source({1: 3000})
    made = build(pool)
    queries = clusters(5, DIM, 9)
    segments = segments_of(5, [1], terms=[(1, 0, 100, 112)])  # thirteen rows, anywhere
    found = made.scan(queries, segments, 10, n_probes=1, refine=4, explain=True)
    same(found, pool.scan(queries, segments, 10))
    assert found[5]["cells"] == 5 + 5 * made.owners[1].n_cells
    assert found[4].tolist() == [10] * 5


def test_same_seed_same_index_with_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ivf_cells, "_ASSIGN_PIECE", 100)  # several pieces, for several threads
    monkeypatch.setattr(ivf_cells, "_EXACT_DIM", 0)
    monkeypatch.setattr(ivf, "_PIECE", 256)
    pool = source({1: 1500, 2: 1000})
    one, two, other = build(pool, seed=4), build(pool, seed=4, threads=2), build(pool, seed=5)
    assert (one.codebooks == two.codebooks).all() and (one.codebooks != other.codebooks).any()
    for owner in (1, 2):
        assert (one.centroids(owner) == two.centroids(owner)).all()
        assert one.owners[owner] == two.owners[owner]
        assert (one.rows(owner)[0] == two.rows(owner)[0]).all()
    queries = clusters(20, DIM, 8)
    table = SegmentTable(np.arange(20), np.full(20, 1))
    results = [made.scan(queries, table, 10) for made in (one, two)]
    same(*results)
    for isa in _cpu.isas()[1:]:
        same(build(pool, seed=4, isa=isa).scan(queries, table, 10), results[0])


@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_rows_stand_in_the_nearest_cells(metric: str) -> None:
    rows = clusters(6000, 96, 3)
    pool = _cpu.Pool(96, 0, metric=metric)
    ids = np.arange(len(rows))
    pool.apply([], 0 * ids, ids, ids.astype(np.uint32), np.zeros((len(ids), 0), np.int64), rows)
    made = ivf.build_ivf(pool, recall=0.9, storage="f32", metric=metric, min_rows=1000)
    assert made is not None and not made._cells._compared  # by codes
    spherical = made.owners[0].spherical
    nearest, _ = kernels.kmeans_assign(rows, made.centroids(0), spherical=spherical)
    assert (made.assign(0, rows, 1) - made.owners[0].first == nearest).mean() > 0.95


def test_owners_whose_rows_the_codes_cannot_tell_apart() -> None:
    wide, narrow = clusters(30_000, 96, 3), 0.001 * clusters(2000, 96, 4)
    narrow[:, 0] += 1.0
    pool = _cpu.Pool(96, 0, metric="l2")
    for owner, rows in ((1, wide), (2, narrow)):
        ids = np.arange(len(rows))
        nothing = np.zeros((len(ids), 0), np.int64)
        pool.apply([], np.full(len(ids), owner), ids, ids.astype(np.uint32), nothing, rows)
    made = ivf.build_ivf(pool, recall=0.9, storage="f32", metric="l2", min_rows=1000)
    assert made is not None and list(made._cells._compared) == [2]
    nearest, _ = kernels.kmeans_assign(narrow, made.centroids(2))
    assert (made.assign(2, narrow, 2) - made.owners[2].first == nearest).all()
    assert len(np.unique(nearest)) > made.owners[2].n_cells / 2


def test_too_few_rows_stay_exact() -> None:
    assert (
        ivf.build_ivf(source({1: 999, 2: 5}), recall=0.9, storage="f32", metric="dot", min_rows=1000) is None
    )
    assert ivf.build_ivf(_cpu.Pool(DIM, 0), recall=0.9, storage="f32", metric="dot") is None
    assert ivf.build_ivf(source({1: 3000}), recall=0.9, storage="f32", metric="dot") is None


def test_a_source_that_changes_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ivf, "_PIECE", 256)  # read one step ahead, again and again
    pool = source({1: 6000})
    stop = threading.Event()

    def churn() -> None:
        rng, nothing = np.random.default_rng(1), source({}).rows(0)
        while not stop.is_set():
            gone = [(1, int(i)) for i in rng.integers(0, 3000, 20)]
            pool.apply(gone, nothing[0], nothing[0], nothing[1], nothing[2], np.zeros((0, DIM), np.float32))

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        made = build(pool)
    finally:
        stop.set()
        thread.join()
    assert set(range(3000, 6000)) <= set(made.rows(1)[0].tolist()) <= set(range(6000))


# --------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("storage", ["f32", "f16", "int8", "pq"])
def test_files(tmp_path: Path, storage: str) -> None:
    pool = source({1: 2000, 2: 60, 5: 1100})
    made = build(pool, storage=storage)
    made.drop([1])  # the ids of its cells are not used again
    made.apply([(5, int(made.rows(5)[0][0]))], *(part[:1] for part in (np.array([2]), *_row())))
    path = tmp_path / "index"
    made.save(path, {"mine": b"note"})
    assert os.listdir(tmp_path) == ["index"]
    opened, sections = _cpu.open_pool(path)
    again = ivf.open_ivf(opened, sections, metric="dot", threads=1)
    assert bytes(sections["mine"]) == b"note"
    queries = clusters(10, DIM, 4)
    segments = segments_of(10, [1, 2, 5])
    same(again.scan(queries, segments, 10), made.scan(queries, segments, 10))
    assert again.owners[5] == made.owners[5] and (again.centroids(5) == made.centroids(5)).all()
    assert again.lists().tolist() == [2, 5]
    for target in (made, again):
        target.apply([(2, 3)], np.array([5]), *_row())
    same(again.scan(queries, segments, 10), made.scan(queries, segments, 10))
    with pytest.raises(IndexCorrupt):
        ivf.open_ivf(opened, sections, metric="l2", threads=1)
    with pytest.raises(IndexCorrupt):
        ivf.open_ivf(
            opened, {**sections, "ivf_centroids": sections["ivf_centroids"][:-96]}, metric="dot", threads=1
        )
    with pytest.raises(IndexCorrupt):
        ivf.open_ivf(opened, {**sections, "ivf": sections["mine"]}, metric="dot", threads=1)
    with pytest.raises(ValueError, match="open_pool returned"):
        _cpu.open_section(np.zeros(3, np.uint8))


def _row() -> tuple[Any, ...]:
    return np.array([8888]), np.zeros(1, np.uint32), np.zeros((1, 2), np.int64), clusters(1, DIM, 6)


# ----------------------------------------------------------------------------------------- bad input


def test_what_is_refused() -> None:
    pool = source({1: 1200, 2: 30})
    for recall in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="recall must be above 0 and below 1"):
            ivf.build_ivf(pool, recall=recall, storage="f32", metric="dot")
    made = build(pool)
    queries = clusters(2, DIM, 1)
    segments = segments_of(2, [1])
    bad: list[dict[str, Any]] = [{"n_probes": 0}, {"refine": 0}, {"refine": 5000}, {"n_probes": -3}]
    for options in bad:
        with pytest.raises(ValueError, match="must be within"):
            made.scan(queries, segments, 5, **options)
    with pytest.raises(ValueError, match="segment query"):
        made.scan(queries, [(2, 1, 0, (), (), None)], 5)
    with pytest.raises(ValueError, match="within 0 and 1"):
        made.scan(queries, SegmentTable(np.array([2]), np.array([1])), 5)
    with pytest.raises(ValueError, match="24 dimensions"):
        made.scan(np.zeros((1, 3), np.float32), segments, 5)
    with pytest.raises(TypeError):
        made.scan(queries, segments, 5, n_probes=1.5)  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="row 77777 is not in list 1"):
        made.vectors(1, np.array([77777]))
    with pytest.raises(ValueError, match="has rows already"):
        made.add_cells(2, queries, spherical=True, n_probes=1, refine=1)
    before = made.scan(queries, segments_of(2, [1, 2]), 10, n_probes=ALL)
    nothing: Any = _row()
    broken = clusters(1, DIM, 2)
    broken[0, 0] = np.nan
    for owner in (1, 2):
        with pytest.raises(ValueError, match="row 0 holds a NaN"):
            made.apply([(1, 5), (2, 1210)], np.array([owner]), *nothing[:3], broken)
    with pytest.raises(ValueError, match="2 members"):
        made.apply([(1, 5), (2,)], np.array([1]), *nothing)  # type: ignore[list-item]
    same(made.scan(queries, segments_of(2, [1, 2]), 10, n_probes=ALL), before)
    with pytest.raises(InputError, match="at least 32 vectors, not 31"):
        ivf.train_pq(clusters(31, DIM, 1), n_columns=0, metric="dot")


def test_plans_are_functions_of_size() -> None:
    plan = ivf.plan_training(1_000_000, 384, 2)
    assert plan == ivf.plan_training(1_000_000, 384, 2)
    assert plan.n_lists == 3000 and plan.pq_dim == 96 and plan.sample == 48_000
    for n in (1, 2, 100, 10**5, 10**9):
        for dim in (1, 31, 33, 768, 4096, 65_536):
            plan = ivf.plan_training(n, dim, 1)
            padded = -(-dim // 32) * 32
            assert 1 <= plan.n_lists <= min(n, 65_536) and plan.sample <= n
            assert padded % plan.pq_dim == 0 and plan.pq_dim <= 256
    assert ladder(1) == [1] and ladder(20) == [1, 2, 3, 4, 6, 8, 12, 16, 20]
