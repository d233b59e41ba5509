"""One call for a query over the lists nearest to it: what the two scans give that it stands for."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from warpmem import _cpu
from warpmem.errors import IndexCorrupt

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
        nearest = coarse.scan(asked, [(0, OWNER, 0, (), (), None)], n_lists, unordered=True)[3][0]
        segments = [(0, cell, group, (), (), None) for cell in nearest.tolist()]
        options = {**weights, "refine": 3, "explain": True}
        wanted = pool.scan(asked, segments, k, **options)
        found = pool.scan_nearest(asked, coarse, OWNER, group, n_lists, k, **options)
        for at in (0, 1, 3, 4):
            assert found[at].tobytes() == wanted[at].tobytes()
        assert (found[2] == np.where(wanted[2] >= 0, OWNER, -1)).all() and found[5] == wanted[5]
        assert len(pool.scan_nearest(asked, coarse, OWNER, group, n_lists, k, refine=3)) == 5


@pytest.mark.parametrize("isa", _cpu.isas())
@pytest.mark.parametrize(("metric", "storage"), [("dot", "f32"), ("l2", "f32"), ("dot", "pq")])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_many_queries_are_as_one_and_one(
    isa: str, metric: str, storage: str, weights: dict[str, Any]
) -> None:
    """Also where they are more than are scanned together."""
    pool, coarse = pools(3000, isa, metric, storage)
    queries = unit(600, 11)
    options = {**weights, "refine": 2, "explain": True}
    found = pool.scan_nearest(queries, coarse, OWNER, 3, 5, 10, **options)
    seen = rescored = 0
    for place, query in enumerate(queries[:, None]):
        alone = pool.scan_nearest(query, coarse, OWNER, 3, 5, 10, **options)
        for together, part in zip(found[:5], alone[:5], strict=True):
            assert together[place : place + 1].tobytes() == part.tobytes()
        seen += alone[5]["rows_seen"]
        rescored += alone[5]["rows_rescored"]
    assert (found[5]["rows_seen"], found[5]["rows_rescored"]) == (seen, rescored)
    for n in (0, 256, 257):
        part = pool.scan_nearest(queries[:n], coarse, OWNER, 3, 5, 10, **options)
        assert part[3].tobytes() == found[3][:n].tobytes() and part[0].shape == (n, 10)


def test_centroids_with_codebooks_of_their_own() -> None:
    pool, coarse = pools(3000)
    other = _cpu.Pool(DIM, 0, screen="pq", codebooks=pool.codebooks[:, ::-1].copy() * np.float32(0.5))
    order = np.arange(LISTS, dtype=np.uint32)
    nothing = np.zeros((LISTS, 0), np.int64)
    other.apply([], np.full(LISTS, OWNER), np.arange(100, 100 + LISTS), order, nothing, unit(LISTS, 2))
    for query in unit(8, 5)[:, None]:
        for cells in (other, coarse, other):
            nearest = cells.scan(query, [(0, OWNER, 0, (), (), None)], 5, unordered=True)[3][0]
            wanted = pool.scan(query, [(0, cell, 0, (), (), None) for cell in nearest.tolist()], 10, refine=2)
            found = pool.scan_nearest(query, cells, OWNER, 0, 5, 10, refine=2)
            assert found[3].tobytes() == wanted[3].tobytes() and found[0].tobytes() == wanted[0].tobytes()


def test_where_there_is_little_or_nothing() -> None:
    pool, coarse = pools(5)
    query = unit(1, 6)
    found = pool.scan_nearest(query, coarse, OWNER, 0, LISTS, 10)
    assert found[4].tolist() == [5] and sorted(found[3][0, :5].tolist()) == [0, 1, 2, 3, 4]
    assert found[2].tolist() == [[OWNER] * 5 + [-1] * 5] and (found[0][0, 5:] == -np.inf).all()
    for owner in (OWNER + 1, -1):
        assert pool.scan_nearest(query, coarse, owner, 0, 3, 10)[4].tolist() == [0]
    assert pool.scan_nearest(query, coarse, OWNER, 0, 4096, 10)[4].tolist() == [5]


def test_what_is_refused() -> None:
    pool, coarse = pools(1000)
    query = unit(1, 7)
    right: dict[str, Any] = {"queries": query, "coarse": coarse, "owner": OWNER, "group": 0}
    right |= {"n_lists": 3, "k": 5}
    assert pool.scan_nearest(**right)[4].tolist() == [5]
    wrongs: tuple[tuple[dict[str, Any], str], ...] = (
        ({"queries": query[:, :9].copy()}, "queries: expected 48"),
        ({"queries": query * np.nan}, "queries: row 0"),
        ({"group": -1}, "group must be"),
        ({"group": 1 << 32}, "group must be"),
        ({"n_lists": 0}, "n_lists must be"),
        ({"n_lists": 4097}, "n_lists must be"),
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


@pytest.mark.parametrize("isa", _cpu.isas())
@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_the_best_in_any_order(isa: str, metric: str) -> None:
    """What codes rank first is taken; canonical scores decide about the last quarter."""
    _, coarse = pools(0, isa, metric)
    segment = [(0, OWNER, 0, (), (), None)]
    for query in unit(20, 8)[:, None]:

        def first(n: int, query: F32 = query) -> dict[int, float]:
            """The n that the codes rank first, with their canonical scores."""
            found = coarse.scan(query, segment, n, refine=1)
            return dict(zip(found[3][0].tolist(), found[0][0].tolist(), strict=True))

        for k in (1, 2, 3, 4, 8, 40, LISTS):
            kept = first(min(k + (k + 1) // 2, LISTS))
            sure = first(k - (k + 3) // 4) if k > 1 else {}
            scores, similarities, _, ids, counts = coarse.scan(query, segment, k, unordered=True)
            infinite = np.isinf(scores[0])
            assert counts[0] == k and infinite.sum() == len(sure) and (similarities == scores).all()
            rest = sorted(set(kept) - set(sure), key=lambda cell: -kept[cell])[: k - len(sure)]
            assert [kept[cell] for cell in rest] == scores[0, ~infinite].tolist()
            assert ids[0, ~infinite].tolist() == rest and set(ids[0, infinite].tolist()) == set(sure)
        ordered = coarse.scan(query, segment, 8, w_similarity=0.5, unordered=True, refine=4)
        assert ordered[0].tobytes() == coarse.scan(query, segment, 8, w_similarity=0.5, refine=4)[0].tobytes()


@pytest.mark.parametrize("storage", ["f32", "pq"])
def test_beside_a_writer(storage: str) -> None:
    """Who replaces all rows at once and puts them into other lists, while lists come, go and are compacted:
    each answer is of one moment."""
    n, threads = 600, {"threads": 2, "screen": "pq"}
    books = np.random.default_rng(1).standard_normal((16, 16, 4), np.float32) / 4
    pool = _cpu.Pool(DIM, 2, storage=storage, codebooks=books, **threads)
    coarse = _cpu.Pool(DIM, 0, codebooks=books, **threads)
    order, nothing = np.arange(LISTS, dtype=np.uint32), np.zeros((LISTS, 0), np.int64)
    coarse.apply([], np.full(LISTS, OWNER), np.arange(LISTS), order, nothing, unit(LISTS, 2))
    ids = np.arange(n)
    ordinals = (ids % 50).astype(np.uint32)
    ranks = np.lexsort((ids, ordinals))
    where = np.zeros(n, np.int64)
    done, scans = threading.Event(), [0]

    def write(turn: int) -> None:
        nonlocal where
        lists = np.random.default_rng(turn).integers(0, LISTS if turn % 2 else 2, n)
        rows = np.full((n, DIM), turn % 5 + 1, np.float32)
        gone = list(zip(where.tolist(), ids.tolist(), strict=True)) if turn else []
        pool.apply(gone, lists, ids, ordinals, np.full((n, 2), turn), rows)
        where = lists
        pool.apply([], np.full(5, LISTS), ids[:5], ordinals[:5], np.zeros((5, 2), np.int64), rows[:5])
        pool.compact(int(lists[0]))
        pool.drop([LISTS])

    def search(seed: int) -> None:
        k = (10, 4096)[seed % 2]
        query = np.abs(unit(1, seed))
        while not done.is_set():
            found = pool.scan_nearest(query, coarse, OWNER, 1, LISTS, k, refine=600)
            count = int(found[4][0])
            assert count == min(k, n) and found[3][0, :count].tolist() == ranks[:count].tolist()
            assert np.ptp(found[1][0, :count]) == 0.0
            scans[0] += 1

    write(0)
    with ThreadPoolExecutor(4) as readers:
        running = [readers.submit(search, seed) for seed in range(4)]
        turn = 0
        while (turn < 30 or scans[0] < 30) and not any(one.done() for one in running):
            turn += 1
            write(turn)
        done.set()
        for one in running:
            one.result()


def test_damaged_rows_are_told_of(tmp_path: Path) -> None:
    pool, coarse = pools(500)
    wanted = pool.scan_nearest(unit(1, 9), coarse, OWNER, 0, LISTS, 500)
    pool.save(tmp_path / "pool", {})
    data = (tmp_path / "pool").read_bytes()
    rows = np.asarray(unit(500, 3)[7]).tobytes()
    place = data.index(rows)
    (tmp_path / "bad").write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    for name, damaged in (("pool", False), ("bad", True)):
        opened, _ = _cpu.open_pool(tmp_path / name)
        if damaged:
            with pytest.raises(IndexCorrupt, match="rows"):
                opened.scan_nearest(unit(1, 9), coarse, OWNER, 0, LISTS, 500)
        else:
            found = opened.scan_nearest(unit(1, 9), coarse, OWNER, 0, LISTS, 500)
            assert all(a.tobytes() == b.tobytes() for a, b in zip(found, wanted, strict=True))
