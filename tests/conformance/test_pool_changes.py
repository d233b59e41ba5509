"""Changes to a pool on every backend: random histories, atomic replacement under scans, refused input."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pools import BACKENDS, KEEP_NO_DEAD, make_pools, scan_all
from warpmem.errors import BackendUnavailable
from warpmem.index.choose import ORDER, choose_backend
from warpmem.index.cpu import CpuBackend
from warpmem.protocols import RowPool
from warpmem.records import Segment

DIM = 5


def add(
    pool: RowPool, rows: list[tuple[int, int, float]], removes: list[tuple[int, int]] | None = None
) -> None:
    """rows: (list, row, value); the value fills the vector and column 0."""
    n = len(rows)
    values = np.array([row[2] for row in rows], np.float32).reshape(n, 1)
    pool.apply(
        removes or [],
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.int64),
        np.array([row[1] % 1000 for row in rows], np.uint32),
        np.tile(values.astype(np.int64), (1, 1)),
        np.tile(values, (1, DIM)),
    )


def check_rows(pools: dict[str, RowPool], model: dict[tuple[int, int], float]) -> None:
    """lists() and rows() of every pool: the model's rows, in one order."""
    by_list: dict[int, dict[int, float]] = {}
    for (list_id, row_id), value in model.items():
        by_list.setdefault(list_id, {})[row_id] = value
    order: dict[int, list[int]] = {}
    for name, pool in pools.items():
        lists = pool.lists()
        assert lists.dtype == np.int64 and lists.tolist() == sorted(by_list), name
        for list_id in [*lists.tolist(), 77]:
            expected = by_list.get(list_id, {})
            row_ids, ordinals, columns = pool.rows(list_id)
            assert (row_ids.dtype, ordinals.dtype, columns.dtype) == (np.int64, np.uint32, np.int64)
            assert columns.shape == (len(expected), 1)
            assert order.setdefault(list_id, row_ids.tolist()) == row_ids.tolist(), name
            assert ordinals.tolist() == [row_id % 1000 for row_id in row_ids.tolist()]
            assert dict(zip(row_ids.tolist(), columns[:, 0].tolist(), strict=True)) == expected


@pytest.mark.parametrize("seed", range(6))
def test_random_histories_match_a_dict(seed: int) -> None:
    rng = random.Random(seed)
    pools = make_pools(DIM, 1)
    model: dict[tuple[int, int], float] = {}
    n_ids = rng.choice([30, 300, 3000])
    for step in range(40):
        choice = rng.random()
        if choice < 0.1:
            lists = rng.sample(range(5), 2)
            for pool in pools.values():
                pool.drop(lists)
            model = {key: value for key, value in model.items() if key[0] not in lists}
        elif choice < 0.2:
            for pool in pools.values():
                pool.compact(step % 5)  # type: ignore[attr-defined]
        else:
            alive = list(model)
            gone = [*rng.sample(alive, min(len(alive), rng.choice([0, 1, 50, 400]))), (9, 9), (0, n_ids + 1)]
            rows = [
                (rng.randrange(5), rng.randrange(n_ids), float(rng.randrange(99)))
                for _ in range(rng.choice([0, 1, 7, 700]))
            ]
            rows += rows[:3]  # one id twice in a change: the later stays
            for pool in pools.values():
                add(pool, rows, gone)
            for key in gone:
                model.pop(key, None)
            for list_id, row_id, value in rows:
                model[list_id, row_id] = value
        query = np.ones((1, DIM), np.float32)
        _, similarities, list_ids, row_ids, counts = scan_all(
            pools, query, [(0, i, i, [], [], None) for i in range(5)], 4096
        )
        count = counts[0]
        assert count == min(len(model), 4096)
        found = zip(
            list_ids[0, :count].tolist(),
            row_ids[0, :count].tolist(),
            similarities[0, :count].tolist(),
            strict=True,
        )
        for list_id, row_id, similarity in found:
            assert similarity == model[list_id, row_id] * DIM
        check_rows(pools, model)
        for pool in pools.values():
            stats = pool.stats()
            assert stats["rows"] == len(model)
            assert stats["lists"] == len({key[0] for key in model})
            for list_id in range(5):
                mine = [row_id for (owner, row_id) in model if owner == list_id][:20]
                stored = pool.vectors(list_id, np.array(mine, np.int64))
                assert stored[:, 0].tolist() == [model[list_id, row_id] for row_id in mine]


@pytest.mark.parametrize("name", [name for name in BACKENDS if name not in KEEP_NO_DEAD])
def test_dead_rows_are_compacted(name: str) -> None:
    pool = BACKENDS[name].pool(DIM, 1)
    add(pool, [(1, i, 1.0) for i in range(1000)])
    full = pool.stats()
    assert (full["rows"], full["dead"], full["pages"]) == (1000, 0, 16)
    add(pool, [], [(1, i) for i in range(399)])
    assert pool.stats()["dead"] == 399  # 60.1 % live
    add(pool, [], [(1, i) for i in range(399, 402)])
    compacted = pool.stats()
    assert (compacted["rows"], compacted["dead"], compacted["pages"]) == (598, 0, 10)
    assert compacted["bytes"] < full["bytes"]
    add(pool, [], [(1, i) for i in range(402, 1000)])
    assert pool.stats() == {"lists": 0, "rows": 0, "dead": 0, "pages": 0, "bytes": 0}


@pytest.mark.parametrize("name", list(BACKENDS))
def test_rows_are_copies_of_one_moment(name: str) -> None:
    pool = BACKENDS[name].pool(DIM, 1)
    add(pool, [(-3, 5, 1.0), (-3, -7, 2.0), (8, 1, 3.0)])
    add(pool, [(-3, 5, 4.0)])  # replaced: it now lies behind the other
    row_ids, ordinals, columns = pool.rows(-3)
    assert (row_ids.tolist(), ordinals.tolist(), columns.tolist()) == ([-7, 5], [993, 5], [[2], [4]])
    row_ids[:] = ordinals[:] = columns[:] = 0
    assert pool.rows(-3)[0].tolist() == [-7, 5]
    assert pool.lists().tolist() == [-3, 8]
    with pytest.raises(TypeError, match="list_id must be an integer"):
        pool.rows("8")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list(BACKENDS))
def test_scans_see_each_change_whole(name: str) -> None:
    """A writer moves 300 rows from one value to the next in one change, across two lists, with compactions on
    the way. Every scan must find all 300, with one value."""
    pool = BACKENDS[name].pool(DIM, 1)
    n = 300
    add(pool, [(i % 2, i, 1.0) for i in range(n)])
    stop = threading.Event()
    wrong: list[Any] = []
    scans = [0]

    def read() -> None:
        query = np.ones((1, DIM), np.float32)
        segments: list[Segment] = [(0, 0, 0, [], [], None), (0, 1, 0, [], [], None)]
        while not stop.is_set():
            _, similarities, _, row_ids, counts = pool.scan(query, segments, 512)
            found = set(similarities[0, : counts[0]].tolist())
            if counts[0] != n or len(found) != 1 or len(set(row_ids[0, :n].tolist())) != n:
                wrong.append((int(counts[0]), sorted(found)))
                return
            scans[0] += 1

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    rounds = 0
    while (rounds < 60 or scans[0] < 30) and not wrong and rounds < 20_000:
        rounds += 1
        rows = [(i % 2, i, float(1 + rounds % 50)) for i in range(n)]
        if rounds % 2:
            add(pool, rows)
        else:
            add(pool, rows, [(i % 2, i) for i in range(n)])
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong
    assert scans[0] >= 30
    assert pool.stats()["rows"] == n


def good() -> dict[str, Any]:
    return {
        "removes": [],
        "list_ids": np.zeros(2, np.int64),
        "row_ids": np.arange(2),
        "ordinals": np.arange(2, dtype=np.uint32),
        "columns": np.zeros((2, 1), np.int64),
        "vectors": np.ones((2, DIM), np.float32),
    }


BAD_APPLY: list[tuple[str, Any, type[Exception], str]] = [
    ("removes", [(1, 2, 3)], ValueError, "2 members, not 3"),
    ("removes", [(1, "2")], TypeError, "row_id must be an integer, not str"),
    ("list_ids", [0, 0], TypeError, "NumPy array of int64, not list"),
    ("list_ids", np.zeros(2, np.int32), TypeError, "int64, not int32"),
    ("row_ids", np.zeros(3, np.int64), ValueError, "expected 2 entries, not 3"),
    ("ordinals", np.zeros(2, np.int64), TypeError, "uint32, not int64"),
    ("columns", np.zeros((2, 4), np.int64), ValueError, "expected 1 columns, not 4"),
    ("vectors", np.ones((2, 9), np.float32), ValueError, f"expected {DIM} dimensions, not 9"),
    ("vectors", np.ones(DIM, np.float32), ValueError, "expected 2 axes, not 1"),
    ("vectors", np.ones((2, DIM)), TypeError, "float32, not float64"),
    ("vectors", np.ones((2, DIM), ">f4"), TypeError, "float32, not >f4"),
    ("vectors", np.ones((DIM, 2), np.float32).T, ValueError, "C-contiguous"),
    ("vectors", np.array([[1] * DIM, [np.nan] * DIM], np.float32), ValueError, "row 1 holds a NaN"),
    ("vectors", np.array([[np.inf] * DIM, [1] * DIM], np.float32), ValueError, "row 0 holds a NaN or an inf"),
]


@pytest.mark.parametrize("name", list(BACKENDS))
@pytest.mark.parametrize(("argument", "value", "error", "match"), BAD_APPLY)
def test_refused_changes_change_nothing(
    name: str, argument: str, value: Any, error: type[Exception], match: str
) -> None:
    pool = BACKENDS[name].pool(DIM, 1)
    add(pool, [(1, 2, 3.0)])
    before = pool.stats()
    with pytest.raises(error, match=match):
        pool.apply(**{**good(), argument: value})
    assert pool.stats() == before
    pool.apply(**good())
    assert pool.stats()["rows"] == 3


def segment(**change: Any) -> list[tuple[Any, ...]]:
    parts = {"query": 0, "list_id": 1, "group": 0, "terms": [], "values": [], "bitmap": None, **change}
    return [tuple(parts.values())]


BAD_SCAN: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"k": 0}, ValueError, "k must be within 1 and 4096, not 0"),
    ({"k": 4097}, ValueError, "not 4097"),
    ({"k": 10**30}, ValueError, "k must be within 1 and 4096"),
    ({"k": 2.5}, TypeError, "k must be an integer, not float"),
    ({"queries": np.ones((1, 4), np.float32)}, ValueError, f"expected {DIM} dimensions, not 4"),
    ({"queries": np.ones((1, DIM))}, TypeError, "float32, not float64"),
    ({"queries": np.full((1, DIM), np.nan, np.float32)}, ValueError, "queries: row 0"),
    ({"min_similarity": float("nan")}, ValueError, "min_similarity"),
    ({"w_similarity": float("nan")}, ValueError, "w_similarity must be finite"),
    ({"w_recency": float("inf")}, ValueError, "w_recency must be finite"),
    ({"w_priority": -float("inf")}, ValueError, "w_priority must be finite"),
    ({"half_life": 0.0}, ValueError, "half_life must be above 0"),
    ({"half_life": -1.0}, ValueError, "half_life must be above 0"),
    ({"w_recency": 1.0, "recency_column": 1}, ValueError, "recency_column is 1, but the pool has 1 columns"),
    ({"w_priority": 1.0, "priority_column": 7}, ValueError, "priority_column is 7"),
    ({"now": 1 << 63}, ValueError, "now must be within"),
    ({"segments": segment(query=1)}, ValueError, "segment query must be within 0 and 0, not 1"),
    ({"segments": segment(query=-1)}, ValueError, "segment query"),
    ({"segments": segment(list_id=1 << 63)}, ValueError, "segment list_id"),
    ({"segments": segment(group=1 << 32)}, ValueError, "segment group"),
    ({"segments": [(0, 1)]}, ValueError, "6 members, not 2"),
    ({"segments": segment(terms=[(1, 0, 0, 0)])}, ValueError, "term column must be within 0 and 0, not 1"),
    ({"segments": segment(terms=[(0, 5, 0, 0)])}, ValueError, "term op must be within 0 and 4, not 5"),
    ({"segments": segment(terms=[(0, 1, 0, 3)], values=[1, 2])}, ValueError, "slice within 0 and 2, not 0:3"),
    ({"segments": segment(terms=[(0, 1, 2, 1)], values=[1, 2])}, ValueError, "not 2:1"),
    ({"segments": segment(terms=[(0, 1, 0, 2)], values=[2, 1])}, ValueError, "ascending"),
    ({"segments": segment(bitmap=np.zeros(1, np.int64))}, TypeError, "uint64, not int64"),
    ({"segments": segment(bitmap=np.zeros((1, 1), np.uint64))}, ValueError, "expected 1 axes, not 2"),
]


@pytest.mark.parametrize("name", list(BACKENDS))
@pytest.mark.parametrize(("change", "error", "match"), BAD_SCAN)
def test_refused_scans(name: str, change: dict[str, Any], error: type[Exception], match: str) -> None:
    pool = BACKENDS[name].pool(DIM, 1)
    arguments = {"queries": np.ones((1, DIM), np.float32), "segments": segment(), "k": 3, **change}
    with pytest.raises(error, match=match):
        pool.scan(**arguments)


@pytest.mark.parametrize("name", list(BACKENDS))
def test_edges_of_arguments(name: str) -> None:
    pool = BACKENDS[name].pool(DIM, 1)
    query = np.ones((1, DIM), np.float32)
    assert pool.scan(np.ones((0, DIM), np.float32), [], 3)[0].shape == (0, 3)
    assert pool.scan(query, [], 3)[4].tolist() == [0]
    assert pool.scan(query, segment(list_id=-5), 3)[4].tolist() == [0]
    add(pool, [(1, 63, 1.0), (1, 64, 2.0), (1, -1, 3.0)])
    for words, rows in [([], []), ([1 << 63], [63]), ([0, 1], [64]), ([~0 & (1 << 64) - 1] * 2, [64, 63])]:
        found = pool.scan(query, segment(bitmap=np.array(words, np.uint64)), 3)
        assert found[3][0, : found[4][0]].tolist() == rows
    with pytest.raises(KeyError, match="row 7 is not in list 1"):
        pool.vectors(1, np.array([63, 7]))
    with pytest.raises(KeyError, match="row 7 is not in list 2"):
        pool.vectors(2, np.array([7]))
    for dim, n_columns in [(0, 1), (65537, 1), (4, -1), (4, 1025)]:
        with pytest.raises(ValueError, match="must be within"):
            BACKENDS[name].pool(dim, n_columns)


def test_crc32c_known_values() -> None:
    """RFC 3720 appendix B.4, and continuation at every split."""
    from warpmem._cpu import crc32c

    assert crc32c(b"") == 0
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(memoryview(bytearray(range(32)))) == 0x46DD794E
    data = bytes(range(61))
    assert {crc32c(data[cut:], crc32c(data[:cut])) for cut in range(62)} == {crc32c(data)}


def test_unknown_isa_is_refused() -> None:
    backend = CpuBackend(isa="mmx")
    assert "'mmx' is not supported" in (backend.available() or "")
    with pytest.raises(BackendUnavailable, match="mmx"):
        backend.pool(4, 0)


def test_choice_of_backend() -> None:
    nothing: dict[str, str | None] = {name: f"no {name}" for name in ORDER}
    for i, name in enumerate(ORDER):
        reasons = {**nothing, **dict.fromkeys(ORDER[i:])}
        chosen, why = choose_backend("auto", reasons)
        assert chosen == name
        assert all(f"no {skipped}" in why for skipped in ORDER[:i])
        assert choose_backend(name, reasons)[0] == name
        with pytest.raises(BackendUnavailable, match=rf"{name} cannot run here: no {name}; .*(pip install)"):
            choose_backend(name, nothing)
    fails: list[Callable[[], Any]] = [
        lambda: choose_backend("auto", nothing),
        lambda: choose_backend("tpu", nothing),
    ]
    for fail in fails:
        with pytest.raises(BackendUnavailable):
            fail()
    with pytest.raises(BackendUnavailable, match="not part of this build"):
        choose_backend("cupy", {"numpy": None})
