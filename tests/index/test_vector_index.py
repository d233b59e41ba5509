"""VectorIndex: ids, order, columns, storages, explanations, and what happens at the ends of the ranges."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from vector_indexes import BACKENDS, COLUMNS, state_of
from warpmem import Neighbors, RankBy, VectorIndex, index
from warpmem.errors import InputError, NotFound, NotSupported
from warpmem.index import searching, vector_index
from warpmem.index.canonical import int8_preimage, stored_rows

MAX_ID = 2**63 - 1


def random_rows(n: int, dim: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def test_it_is_exported_twice() -> None:
    assert index.VectorIndex is VectorIndex


def test_ids_continue_above_all_that_were_given() -> None:
    made = VectorIndex(2, threads=1)
    assert made.add(random_rows(2, 2)).tolist() == [0, 1]
    assert made.add(random_rows(2, 2), ids=[10, 4]).tolist() == [10, 4]
    assert made.add(random_rows(1, 2)).tolist() == [11]
    assert made.remove([11]) == 1
    assert made.add(random_rows(1, 2)).tolist() == [12]  # never given out again
    assert made.add(random_rows(1, 2), ids=[11]).tolist() == [11]  # but free to be chosen


def test_the_largest_id_and_owner() -> None:
    made = VectorIndex(2, threads=1)
    made.add(random_rows(1, 2), ids=MAX_ID - 2, owners=MAX_ID)
    made.add(random_rows(2, 2))
    before = state_of(made)
    with pytest.raises(InputError, match="0 ids are left above those in use, not 1"):
        made.add(random_rows(1, 2))
    assert state_of(made) == before
    assert made.add(random_rows(1, 2), ids=[0]).tolist() == [0]
    assert made.search(random_rows(1, 2), 2, owners=MAX_ID).ids.tolist() == [[MAX_ID - 2, -1]]
    assert made.remove([MAX_ID, MAX_ID - 1, MAX_ID - 2]) == 3


def test_owners_partition_the_rows() -> None:
    rows = random_rows(60, 8)
    owners = np.arange(60) % 3
    made = VectorIndex(8, threads=1)
    made.add(rows, owners=owners)
    queries = random_rows(4, 8, 1)
    alone = [made.search(queries, 60, owners=owner) for owner in range(4)]
    for owner in range(3):
        assert {row_id % 3 for row_id in alone[owner].ids[0, :20].tolist()} == {owner}
    assert alone[3].ids.tolist() == [[-1] * 60] * 4
    each = made.search(queries, 60, owners=[2, 0, 3, 1])
    for i, owner in enumerate([2, 0, 3, 1]):
        assert each.ids[i].tolist() == alone[owner].ids[i].tolist()
    several = made.search(queries, 60, owners=[[0, 1, 2], [2, 2, 1], [-1, -1, -1], [9, 0, -1]])
    whole = made.search(queries, 60)
    assert several.ids[0].tolist() == whole.ids[0].tolist()
    assert sorted(several.ids[1].tolist()) == [-1] * 20 + [i for i in range(60) if i % 3 != 0]
    assert several.ids[2].tolist() == [-1] * 60
    assert several.ids[3].tolist() == alone[0].ids[3].tolist()
    assert made.search(queries, 60, owners=np.zeros((4, 0), np.int64)).ids.tolist() == [[-1] * 60] * 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_ties_keep_the_order_of_addition(backend: str) -> None:
    made = VectorIndex(2, backend=backend, threads=1)
    made.add(np.ones((3, 2)), ids=[7, 2, 5], owners=[2, 1, 0])
    made.add(np.ones((2, 2)), ids=[1, 9], owners=[0, 2])
    made.remove(2)
    made.add(np.ones(2), ids=2)
    for _ in range(9):
        made.update(7, vectors=np.ones(2) * 3)
    assert made.search(np.ones(2), 9).ids.tolist() == [[7, 5, 1, 9, 2, -1, -1, -1, -1]]


@pytest.mark.parametrize("storage", ["f32", "f16", "int8"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_changing_attributes_leaves_the_vectors_alone(storage: Any, backend: str) -> None:
    made = VectorIndex(48, storage=storage, backend=backend, columns={"n": "int64"}, threads=1)
    made.add(random_rows(200, 48), owners=np.arange(200) % 2)
    before = made.vectors(range(200)).tobytes()
    answers = made.search(random_rows(3, 48, 1), 200)
    for round_number in range(3):
        made.update(range(0, 200, 3), attributes={"n": round_number})
        assert made.vectors(range(200)).tobytes() == before
    again = made.search(random_rows(3, 48, 1), 200)
    assert again.ids.tolist() == answers.ids.tolist() and again.scores.tobytes() == answers.scores.tobytes()
    assert (made.search(random_rows(1, 48), 99, filter={"n": 2}).ids >= 0).sum() == 67


@pytest.mark.parametrize("dim", [1, 2, 33, 384])
def test_int8_rows_have_a_preimage(dim: int) -> None:
    rows = random_rows(3000, dim) * np.float32(10.0) ** np.random.default_rng(1).integers(-36, 36, (3000, 1))
    rows[5] = 0
    kept = stored_rows(rows.astype(np.float32), "int8")
    assert stored_rows(int8_preimage(kept), "int8").tobytes() == kept.tobytes()
    assert dim == 1 or (stored_rows(kept, "int8") != kept).any(), "what was read is no preimage of itself"


def test_update_keeps_what_is_not_named() -> None:
    made = VectorIndex(2, metric="ip", columns=COLUMNS, threads=1)
    made.add([[1, 0], [0, 1]], owners=[3, 4], attributes={"n": [1, 2], "s": ["a", None]})
    made.update([1, 0], [[5, 5], [2, 2]], {"n": [20, None]})
    assert made.vectors([0, 1]).tolist() == [[2, 2], [5, 5]]
    assert made.search([1, 1], 2, filter={"s": "a"}).ids.tolist() == [[0, -1]]
    assert made.search([1, 1], 2, filter={"n": {"exists": False}}).ids.tolist() == [[0, -1]]
    assert made.search([1, 1], 2, owners=4, filter={"n": 20}).ids.tolist() == [[1, -1]]
    made.update(1)
    assert made.vectors(1).tolist() == [[5, 5]]


def test_a_row_that_moves_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    made = VectorIndex(2, metric="ip", backend="numpy", threads=1)
    made.add([[1, 0], [0, 1]])
    pool = made._store.serving.pool
    read, missed = pool.vectors, []

    def miss_once(*args: Any) -> Any:
        if not missed:
            missed.append(args)
            raise KeyError("row 1 is not in list 0")
        return read(*args)

    monkeypatch.setattr(pool, "vectors", miss_once)
    assert made.vectors([1, 0]).tolist() == [[0, 1], [1, 0]]
    assert len(missed) == 1

    def removed_before(*args: Any) -> Any:
        monkeypatch.setattr(pool, "vectors", read)
        made.remove(1)
        return read(*args)

    monkeypatch.setattr(pool, "vectors", removed_before)
    with pytest.raises(NotFound, match="1 of the 2 ids"):
        made.vectors([1, 0])


def test_ranking_now_is_the_time_of_the_search() -> None:
    made = VectorIndex(2, columns={"at": "time", "rank": "float64"}, threads=1)
    now = datetime.now(UTC)
    made.add(np.ones((3, 2)), attributes={"at": [now, now - timedelta(days=60), None], "rank": [0.5, 3, 1]})
    by_time = RankBy(similarity=0.0, recency=1.0, recency_column="at")
    ids, scores = made.search(np.ones(2), 3, ranking=by_time)
    assert ids.tolist() == [[0, 1, 2]]
    assert scores[0].tolist() == pytest.approx([1.0, 0.25, 0.0], abs=1e-3)
    by_rank = RankBy(similarity=0.0, priority=2.0, priority_column="rank")
    assert made.search(np.ones(2), 3, ranking=by_rank).scores.tolist() == [[6.0, 2.0, 1.0]]
    late = RankBy(recency=1.0, recency_column="at", now=now + timedelta(days=30), similarity=0.0)
    assert made.search(np.ones(2), 1, ranking=late).scores.tolist()[0] == pytest.approx([0.5], abs=1e-3)


def test_the_longest_half_life_leaves_a_missing_time_at_nothing() -> None:
    made = VectorIndex(2, columns={"at": "time"}, threads=1)
    made.add(np.ones((1, 2)))
    slow = RankBy(similarity=0.0, recency=1e6, recency_column="at", half_life=timedelta(days=365_250))
    assert made.search(np.ones(2), 1, ranking=slow).scores.tolist() == [[0.0]]


def test_neighbors_unpack() -> None:
    made = VectorIndex(2, threads=1)
    made.add(np.eye(2))
    found = made.search([1, 0], 1)
    assert isinstance(found, Neighbors)
    ids, scores = found
    assert ids is found.ids and scores is found.scores and found.plan is None


def test_explain_says_what_was_done() -> None:
    made = VectorIndex(64, columns={"n": "int64"}, threads=1)
    made.add(random_rows(1000, 64), attributes={"n": range(1000)})
    plan = made.search(random_rows(1, 64), 5, filter={"n": {"gte": 10, "lt": 500}}, explain=True).plan
    assert plan is not None
    assert plan["backend"] == "cpu" and plan["isa"] == made.stats()["isa"]
    assert plan["plan"] == made.stats()["plan"] == f"exact scan, cpu/{plan['isa']}, f32 rows, cosine"
    assert plan["terms"] == 1 and plan["rows_seen"] >= 490
    nothing = made.search(random_rows(1, 64), 5, filter={"n": {"in": []}}, explain=True)
    assert nothing.plan is not None and nothing.plan["segments"] == 0
    assert nothing.ids.tolist() == [[-1] * 5]


def test_stats_count() -> None:
    made = VectorIndex(4, metric="l2", storage="f16", threads=2, recall=0.9)
    made.add(random_rows(300, 4), owners=np.arange(300) % 5)
    made.remove(range(50))
    stats = made.stats()
    expected = {"rows": 250, "lists": 5, "dead": 50, "backend": "cpu", "storage": "f16", "metric": "l2"}
    expected |= {"wanted_recall": 0.9, "threads": 2}
    assert {name: stats[name] for name in expected} == expected
    assert stats["bytes"] > 250 * 4 * 2
    made.compact()
    assert made.stats()["dead"] == 0
    assert "250 rows" in repr(made)


def test_backends_give_the_same_bits() -> None:
    rows, queries = random_rows(500, 40), random_rows(7, 40, 1)
    for storage in ("f32", "f16", "int8"):
        for metric in ("cosine", "ip", "l2"):
            answers = []
            for backend in BACKENDS:
                made = VectorIndex(
                    40, metric=metric, storage=storage, backend=backend, columns=COLUMNS, threads=1
                )
                made.add(rows, owners=np.arange(500) % 7, attributes={"n": range(500), "x": rows[:, 0]})
                ranking = RankBy(priority=0.5, priority_column="x")
                ids, scores = made.search(queries, 20, filter={"n": {"gt": 50}}, ranking=ranking)
                answers.append((ids.tobytes(), scores.tobytes()))
            assert answers[0] == answers[1]


def test_order_of_addition_runs_out_and_is_numbered_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warpmem.index.pool_copies._CHUNK_NUMBERS", 6)  # three rows a part
    made = VectorIndex(2, columns={"n": "int64"}, threads=1)
    made.add(np.ones((4, 2)), ids=[9, 3, 7, 1], owners=[0, 1, 0, 1])
    made._store.next_ordinal = 2**32 - 5
    made.add(np.ones((5, 2)), ids=[20, 2, 30, 4, 50], owners=[1, 0, 2, 2, 1], attributes={"n": range(5)})
    made.remove([7, 2])
    before = state_of(made)
    with pytest.raises(InputError, match=r"1 rows are more than the 0 places left .*; call compact"):
        made.add(np.ones((1, 2)))
    assert state_of(made) == before
    expected = [9, 3, 1, 20, 30, 4, 50]
    assert made.search(np.ones(2), 7).ids.tolist() == [expected]
    made.compact()
    assert made._store.next_ordinal == 7
    assert made.search(np.ones(2), 7).ids.tolist() == [expected]
    assert made.search(np.ones(2), 7, filter={"n": {"gte": 3}}).ids.tolist()[0][:2] == [4, 50]
    made.add(np.ones((1, 2)), ids=[0])
    assert made.search(np.ones(2), 8).ids.tolist() == [[*expected, 0]]


@pytest.mark.parametrize(("tries", "scans"), [(1, 2), (16, 3)])
def test_a_string_that_comes_during_a_search_is_not_let_through(
    monkeypatch: pytest.MonkeyPatch, tries: int, scans: int
) -> None:
    monkeypatch.setattr(searching, "_TRIES", tries)
    made = VectorIndex(2, columns={"s": "str"}, backend="numpy", threads=1)
    made.add(np.ones((2, 2)), attributes={"s": ["kept", None]})
    pool = made._store.serving.pool
    scan, came = pool.scan, []

    def scan_late(*args: Any, **options: Any) -> Any:
        if len(came) < 3:  # other words each time, so that the second look meets one as well
            came.append(f"banned {len(came)}")
            made.add(np.ones(2), attributes={"s": came[-1]})
        return scan(*args, **options)

    monkeypatch.setattr(pool, "scan", scan_late)
    banned = {"not": {"s": {"in": [f"banned {i}" for i in range(9)]}}}
    assert made.search(np.ones(2), 5, filter=banned).ids.tolist() == [[0, 1, -1, -1, -1]]
    assert len(came) == scans
    assert made.search(np.ones(2), 5, filter={"s": {"contains": "banned"}}).ids.tolist()[0][:2] == [2, 3]


def test_pq_needs_training(monkeypatch: pytest.MonkeyPatch) -> None:
    class Trains:
        def training_rows(self, dim: int) -> int:
            return 10 * dim

        def train_pq(self, vectors: Any, *, n_columns: int, metric: str, **options: Any) -> Any:
            assert (vectors.shape, n_columns, metric) == ((40, 4), 0, "l2")
            return VectorIndex(4, metric="l2", backend="numpy", threads=1)._store.serving.pool

    monkeypatch.setattr(vector_index, "approximate", Trains)
    made = VectorIndex(4, metric="l2", storage="pq", backend="numpy", threads=1)
    before = state_of(made)
    with pytest.raises(InputError, match=r"no codebooks yet; call train\(\) with at least 40 vectors"):
        made.add(random_rows(3, 4))
    with pytest.raises(InputError, match="training needs at least 40 vectors, not 39"):
        made.train(random_rows(39, 4))
    assert state_of(made) == before
    assert made.search(random_rows(1, 4), 2).ids.tolist() == [[-1, -1]]
    made.train(random_rows(40, 4))
    made.add(random_rows(3, 4))
    with pytest.raises(InputError, match="the index holds 3 rows"):
        made.train(random_rows(40, 4))
    assert made.stats()["plan"].startswith("exact scan")


def test_a_build_without_approximate_search_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warpmem.index.approximate.find_spec", lambda name: None)
    made = VectorIndex(4, recall=0.9, threads=1)
    made.add(random_rows(3, 4))
    with pytest.raises(NotSupported, match="no approximate search"):
        made.optimise()
    with pytest.raises(NotSupported, match="no approximate search"):
        VectorIndex(4, storage="pq", threads=1).add(random_rows(3, 4))
    assert len(made) == 3 and made.remove(0) == 1


def test_a_failure_inside_the_pool_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = VectorIndex(2, backend="numpy", columns=COLUMNS, threads=1)
    made.add(np.ones((3, 2)), attributes={"s": ["a", "b", "c"]})
    before = state_of(made)
    pool = made._store.serving.pool

    def fail(*args: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(pool, "apply", fail)
        for change in (
            lambda: made.add(np.ones((2, 2))),
            lambda: made.add(np.ones((1, 2)), ids=[9]),
            lambda: made.remove([0, 1]),
            lambda: made.update(0, np.ones(2), {"n": 5}),
        ):
            with pytest.raises(MemoryError):
                change()
    assert state_of(made) == before
    assert made.add(np.ones(2)).tolist() == [3]
    with pytest.raises(NotFound):
        made.vectors(9)
