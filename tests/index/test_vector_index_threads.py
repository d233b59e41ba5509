"""VectorIndex used by several threads, and a pool that is exchanged while it is used."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vector_indexes import state_of
from warpmem import VectorIndex
from warpmem.index import vector_index
from warpmem.index.clustering import Training
from warpmem.index.numpy_ref import NumpyBackend
from warpmem.index.row_store import _FEW_CHANGES
from warpmem.protocols import RowPool

DIM = 8


def random_rows(n: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)


def run_together(*work: Callable[[], None]) -> None:
    """Run functions in threads of their own; raise what the first of them raised."""
    failures: list[BaseException] = []

    def guarded(one: Callable[[], None]) -> None:
        try:
            one()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_changes_and_searches_at_once() -> None:
    made = VectorIndex(DIM, columns={"s": "str", "n": "int64"}, threads=2)
    rounds, done = 150, threading.Event()
    pairs = np.repeat(random_rows(rounds), 2, axis=0)

    def adds(owner: int) -> Callable[[], None]:
        def work() -> None:
            for i in range(rounds):
                ids = np.array([0, 1]) + 2 * (i + rounds * owner)
                words = [f"{owner}-{i}", f"{owner}-{i}"]
                made.add(pairs[2 * i : 2 * i + 2], ids=ids, owners=owner, attributes={"s": words, "n": i})
                if i % 3 == 2:
                    made.update(ids, pairs[:2])
                if i % 3 == 1:
                    assert made.remove(ids) == 2

        return work

    def searches() -> None:
        while not done.is_set():
            found = made.search(pairs[:4], 400, owners=[[0, 1]] * 4, filter={"s": {"contains": "-"}})
            for ids, scores in zip(found.ids, found.scores, strict=True):
                some = ids[ids >= 0]
                assert len(set(some.tolist())) == len(some)
                assert (np.diff(scores[: len(some)]) <= 0).all()
                # Two rows that are added and removed together are seen together.
                assert sorted(set((some // 2).tolist()) - {-1}) == sorted((some[::2] // 2).tolist())
            len(made), 5 in made, made.stats()

    def upkeep() -> None:
        while not done.is_set():
            made.compact()

    def writers() -> None:
        try:
            run_together(adds(0), adds(1))
        finally:
            done.set()

    run_together(writers, searches, searches, upkeep)
    left = [
        2 * (i + rounds * owner) + j for owner in (0, 1) for i in range(rounds) if i % 3 != 1 for j in (0, 1)
    ]
    assert len(made) == len(left) == made.stats()["rows"]
    assert sorted(made.search(pairs[0], 4096).ids[0][: len(left)].tolist()) == left


# ------------------------------------------------------------------------------------- another pool


class Builder:
    """Stands for index/ivf.py: copies the rows to another pool as a builder would, and lets the test act."""

    def __init__(self, act: Callable[[str], None], *, result: bool = True) -> None:
        self.act = act
        self.result = result
        self.options: dict[str, Any] = {}

    def build_ivf(self, pool: RowPool, **options: Any) -> RowPool | None:
        self.options = options
        self.act("begin")
        if not self.result:
            return None
        built = NumpyBackend().pool(DIM, 1)
        for list_id in pool.lists().tolist():
            ids, ordinals, columns = pool.rows(list_id)
            self.act("rows read")
            here = np.isin(ids, pool.rows(list_id)[0])  # the others have left meanwhile
            ids, ordinals, columns = ids[here], ordinals[here], columns[here]
            vectors = pool.vectors(list_id, ids)
            built.apply((), np.full(len(ids), list_id), ids, ordinals, columns, vectors)
        self.act("end")
        scan = built.scan
        built.scan = lambda *args, n_probes=None, refine=None, **more: scan(*args, **more)  # type: ignore[method-assign]
        return built


def make(monkeypatch: pytest.MonkeyPatch, builder: Builder | None, recall: float = 0.9) -> VectorIndex:
    monkeypatch.setattr(vector_index, "approximate", lambda: builder)
    made = VectorIndex(DIM, metric="ip", backend="numpy", recall=recall, columns={"n": "int64"}, threads=1)
    made.add(random_rows(100), owners=np.arange(100) % 4, attributes={"n": range(100)})
    return made


def content(made: VectorIndex) -> Any:
    lists, *_ = state_of(made)
    return lists


def test_optimise_carries_over_what_changes_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = make(monkeypatch, None, recall=1.0)
    step = iter(range(10_000))

    def changes(made: VectorIndex, i: int) -> None:
        rows = random_rows(3, seed=i + 1)
        made.add(rows, ids=[1000 + 3 * i, 1001 + 3 * i, 1002 + 3 * i], owners=[1, 5, 0], attributes={"n": i})
        rows[:] = 0  # the caller's array is the caller's again
        made.remove([4 * i, 4 * i + 1, 1001 + 3 * i])
        made.update([4 * i + 2, 1000 + 3 * i], random_rows(2, seed=-i % 97), {"n": [None, -i]})
        if i % 5 == 0:
            made.add(random_rows(1, seed=i), ids=4 * i, owners=9)  # back, in another list

    def act(when: str) -> None:
        for _ in range(3):
            i = next(step)
            changes(made, i)
            changes(plain, i)
            found, expected = made.search(random_rows(2), 9), plain.search(random_rows(2), 9)
            assert found.ids.tolist() == expected.ids.tolist()

    builder = Builder(act)
    made = make(monkeypatch, builder)
    made.optimise()
    assert isinstance(builder.options.pop("training"), Training)
    assert builder.options == {"recall": 0.9, "storage": "f32", "metric": "dot", "threads": 1, "seed": 0}
    assert next(step) >= 18
    assert made.stats()["plan"].startswith("approximate scan, recall 0.9")
    assert content(made) == content(plain)
    for index in (made, plain):
        changes(index, 24)
    assert content(made) == content(plain)
    found = made.search(random_rows(5), 30, n_probes=3, refine=2, filter={"n": {"gt": 5}})
    assert found.ids.tolist() == plain.search(random_rows(5), 30, filter={"n": {"gt": 5}}).ids.tolist()
    assert made._store._journal is None


def test_optimise_waits_no_longer_than_for_a_few_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that never rests is held up at the end of the work, not during it."""
    added = [0]

    def act(when: str) -> None:
        if when == "end":
            for _ in range(5 * _FEW_CHANGES):
                made.add(random_rows(1, seed=added[0]))
                added[0] += 1

    made = make(monkeypatch, Builder(act))
    stop = threading.Event()

    def writes() -> None:
        while not stop.is_set():
            made.add(random_rows(1, seed=3))

    def optimises() -> None:
        try:
            made.optimise()
        finally:
            stop.set()

    run_together(writes, optimises)
    assert made.stats()["plan"].startswith("approximate")
    assert len(made) == made.stats()["rows"] > 100 + 5 * _FEW_CHANGES
    assert made.search(random_rows(1), 4096).ids[0, min(len(made), 4096) - 1] >= 0


def test_optimise_leaves_the_index_as_it_was_when_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def act(when: str) -> None:
        made.add(random_rows(1))
        if when == "end":
            raise MemoryError

    made = make(monkeypatch, Builder(act))
    with pytest.raises(MemoryError):
        made.optimise()
    assert len(made) == made.stats()["rows"] == 106
    assert made.stats()["plan"].startswith("exact") and made._store._journal is None


def test_optimise_of_a_small_index_stays_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = Builder(lambda when: None, result=False)
    made = make(monkeypatch, builder)
    made.remove(range(10))
    made.optimise()
    assert builder.options["recall"] == 0.9
    assert made.stats()["plan"].startswith("exact")
    assert (
        made.search(random_rows(1), 5, n_probes=2).ids.tolist() == made.search(random_rows(1), 5).ids.tolist()
    )


def test_optimise_with_recall_one_compacts() -> None:
    made = VectorIndex(DIM, threads=1)
    made.add(random_rows(500))
    made.remove(range(100))
    assert made.stats()["dead"] == 100
    made.optimise()
    assert (made.stats()["dead"], made.stats()["rows"]) == (0, 400)
    assert made.stats()["plan"].startswith("exact")
