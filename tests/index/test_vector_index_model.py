"""Random changes and searches of VectorIndex against a dict of rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vector_indexes import COLUMNS, DIM, T0, attributes, filters, vectors
from vector_model import VectorModel
from warpmem import RankBy, VectorIndex

ids = st.integers(0, 12)
owners = st.integers(0, 3)


@contextmanager
def a_file() -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        yield Path(folder) / "index"


class VectorIndexMachine(RuleBasedStateMachine):
    backend = "cpu"
    storage: Any = "f32"

    @initialize(metric=st.sampled_from(["cosine", "ip", "l2"]))
    def start(self, metric: Any) -> None:
        self.index = VectorIndex(
            DIM, metric=metric, storage=self.storage, backend=self.backend, columns=COLUMNS, threads=1
        )
        self.model = VectorModel(metric)

    @rule(data=st.data(), n=st.integers(0, 4), named=st.booleans())
    def add(self, data: st.DataObject, n: int, named: bool) -> None:
        rows = data.draw(vectors(n))
        free = ids.filter(lambda row_id: row_id not in self.model.rows)
        given = data.draw(st.lists(free, min_size=n, max_size=n, unique=True)) if named and n < 3 else None
        whose = data.draw(st.lists(owners, min_size=n, max_size=n))
        values = data.draw(attributes(n))
        array = np.array(rows, np.float32).reshape(n, DIM)
        found = self.index.add(array, ids=given, owners=whose, attributes=values)
        assert found.tolist() == self.model.add(rows, given, whose, values)

    @rule(some=st.lists(ids, max_size=4))
    def remove(self, some: list[int]) -> None:
        assert self.index.remove(some) == self.model.remove(some)

    @precondition(lambda self: self.model.rows)
    @rule(data=st.data())
    def update(self, data: st.DataObject) -> None:
        known = st.sampled_from(sorted(self.model.rows))
        some = data.draw(st.lists(known, max_size=3, unique=True))
        rows = data.draw(st.none() | vectors(len(some)))
        values = data.draw(attributes(len(some)))
        array = None if rows is None else np.array(rows, np.float64).reshape(len(some), DIM)
        self.index.update(some, array, values)
        self.model.update(some, rows, values)

    @rule()
    def compact(self) -> None:
        self.index.compact()

    @rule(other=st.booleans())
    def save_and_load(self, other: bool) -> None:
        through = {"cpu": "numpy", "numpy": "cpu"}[self.backend] if other else self.backend
        with a_file() as path:
            self.index.save(path)
            moved = VectorIndex.load(path, backend=through, threads=1)
            if other:
                moved.save(path)
                moved = VectorIndex.load(path, backend=self.backend, threads=1)
            self.index = moved

    @rule(
        queries=st.integers(1, 3).flatmap(vectors),
        k=st.integers(1, 9),
        whose=st.none() | owners | st.lists(owners, min_size=3, max_size=3),
        condition=st.none() | filters,
        ranked=st.booleans(),
        prized=st.booleans(),
    )
    def search(self, queries: Any, k: int, whose: Any, condition: Any, ranked: bool, prized: bool) -> None:
        weights: dict[str, Any] = {}
        if ranked:  # halves and doubles, so that the float64 sums are exact
            weights = {"similarity": 0.5, "recency": 2.0, "recency_column": "t"}
            weights |= {"half_life": timedelta(hours=1), "now": T0 + timedelta(hours=1)}
        if prized:
            weights |= {"priority": 0.25, "priority_column": "x"}
        each = [None if whose is None else [whose]] * len(queries)
        if isinstance(whose, list):
            each = [[owner] for owner in whose[: len(queries)]]
            whose = whose[: len(queries)]
        found = self.index.search(
            np.array(queries, np.float32),
            k,
            owners=whose,
            filter=condition,
            ranking=RankBy(**weights) if weights else None,
        )
        assert found.ids.shape == found.scores.shape == (len(queries), k)
        assert found.ids.dtype == np.int64 and found.scores.dtype == np.float32
        for i, query in enumerate(queries):
            expected, scores = self.model.search(query, k, each[i], condition, weights)
            padding = k - len(expected)
            assert found.ids[i].tolist() == expected + [-1] * padding
            assert found.scores[i].tolist() == scores + [-np.inf] * padding

    @rule(query=vectors(1), groups=st.lists(owners | st.just(-1), min_size=1, max_size=4))
    def search_several_owners(self, query: Any, groups: list[int]) -> None:
        found = self.index.search(query[0], 5, owners=[groups])
        expected, _ = self.model.search(query[0], 5, [owner for owner in groups if owner >= 0])
        assert found.ids[0].tolist() == expected + [-1] * (5 - len(expected))

    @invariant()
    def holds_the_same_rows(self) -> None:
        if not hasattr(self, "index"):
            return
        rows = self.model.rows
        assert len(self.index) == len(rows) == self.index.stats()["rows"]
        assert [row_id in self.index for row_id in range(14)] == [row_id in rows for row_id in range(14)]
        some = sorted(rows)
        assert self.index.vectors(some).tolist() == [list(rows[row_id].vector) for row_id in some]


class NumpyVectorIndexMachine(VectorIndexMachine):
    backend = "numpy"


_settings = settings(max_examples=60, stateful_step_count=25, deadline=None, derandomize=True)
TestVectorIndexOnCpu = VectorIndexMachine.TestCase
TestVectorIndexOnCpu.settings = _settings
TestVectorIndexOnNumpy = NumpyVectorIndexMachine.TestCase
TestVectorIndexOnNumpy.settings = _settings
