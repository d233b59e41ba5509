"""Pools with product-quantisation codes on a device, on the emulator: all lists of a search or none, the bits
of the native pool, and the indexes that are made of such pools."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from emulated_cuda import emulated
from tiered_pools import DIM, rows
from warpmem import VectorIndex
from warpmem.index import cuda_backend, ivf, kernels
from warpmem.index.cuda_backend import CudaBackend
from warpmem.index.ivf_cells import native
from warpmem.index.tiered import TieredPool

PQ_DIM = 8


@pytest.fixture(autouse=True)
def healed() -> Iterator[None]:
    emulated().heal()
    yield
    emulated().heal()


class Pair:
    """The same rows in a native pool with codes and in one with a device before it."""

    def __init__(self, storage: str, metric: str, **options: Any) -> None:
        wide = np.zeros((400, 64), np.float32)
        wide[:, :DIM] = rows(400, 7)
        books = kernels.pq_train(wide, PQ_DIM, 4, iterations=2, seed=1, threads=1, backend="cpu", isa="auto")
        make = partial(native().Pool, DIM, 2, storage=storage, metric=metric, screen="pq", codebooks=books)
        backend = CudaBackend(
            module=emulated().module,
            least_work=0,
            rebuild_ms=0,
            **{"vram_bytes": 1 << 24, "lanes": 1, **options},
        )
        self.native: Any = make()
        self.tiered: Any = backend.adopt(make())
        assert isinstance(self.tiered, TieredPool) and self.tiered.codebooks.shape == (PQ_DIM, 16, 8)

    def add(self, list_id: int, n: int, seed: int) -> None:
        ids = np.arange(1000 * seed, 1000 * seed + n)
        columns = np.stack([ids % 10, ids], axis=1)
        for pool in (self.native, self.tiered):
            pool.apply([], np.full(n, list_id), ids, ids.astype(np.uint32), columns, rows(n, seed))

    def check(self, lists: list[int], k: int = 7, **options: Any) -> dict[str, Any]:
        """Equal bits; returns the plan."""
        words = np.random.default_rng(k).integers(0, 1 << 63, 120, dtype=np.uint64)
        segments: Any = [
            (q, i, i % 2, [(0, 0, 1, 8)] if q == 1 else [], [], words if q == 2 else None)
            for q in range(3) for i in lists
        ]  # fmt: skip
        found = self.tiered.scan(rows(3, 99), segments, k, explain=True, **options)
        wanted = self.native.scan(rows(3, 99), segments, k, explain=True, **options)
        assert [part.tobytes() for part in found[:5]] == [part.tobytes() for part in wanted[:5]]
        plan: dict[str, Any] = found[5]
        if plan["device_lists"] and self.native.storage != "pq":
            assert plan["rows_rescored"] == wanted[5]["rows_rescored"]
        return plan


@pytest.mark.parametrize("metric", ["dot", "l2"])
@pytest.mark.parametrize("storage", ["f32", "f16", "int8", "pq"])
def test_answers_have_the_hosts_bits(storage: str, metric: str) -> None:
    pair = Pair(storage, metric)
    for i, n in enumerate((70, 200, 1)):
        pair.add(i, n, i + 1)
    ranking = {"w_similarity": 0.7, "w_recency": 0.3, "half_life": 50.0, "recency_column": 1, "now": 3000}
    asked: list[dict[str, Any]] = [
        {}, {"refine": 1}, {"k": 1}, {"k": 300}, {"k": 20, **ranking}, {"min_similarity": 0.5},
    ]  # fmt: skip
    assert pair.check([0, 1, 2])["device_lists"] == 0
    pair.tiered.settle()
    for options in asked:
        assert pair.check([0, 1, 2, 77], **options)["device_lists"] == 3
    nothing = np.zeros(0, np.int64)
    removes = [(1, 2000 + i) for i in range(0, 200, 3)]
    for pool in (pair.native, pair.tiered):
        pool.apply(
            removes, nothing, nothing, nothing.astype(np.uint32), np.zeros((0, 2), np.int64), rows(0, 0)
        )
    pair.add(0, 30, 8)
    assert pair.check([0, 1, 2], k=40)["device_lists"] == 3
    (there,) = pair.tiered.put([rows(3, 99)])
    segments: Any = [(q, 1, 0, [], [], None) for q in range(3)]
    found = pair.tiered.scan(there, segments, 5)
    assert found[3].tolist() == pair.native.scan(rows(3, 99), segments, 5)[3].tolist()


def test_the_device_answers_for_all_lists_or_for_none() -> None:
    pair = Pair("f16", "dot")
    for i in range(3):
        pair.add(i, 100, i + 1)
    pair.tiered.warm([0, 2], wait=True)
    assert pair.check([0, 1, 2])["device_lists"] == 0  # and list 1 is wanted now
    assert pair.check([0, 2])["device_lists"] == 2
    pair.tiered.settle()
    assert pair.check([0, 1, 2])["device_lists"] == 3
    assert pair.check([0, 1, 2], k=100, refine=41)["device_lists"] == 0  # 4,100 rows
    assert pair.check([0, 1, 2], k=100, refine=40)["device_lists"] == 3
    assert pair.check([0, 1, 1])["device_lists"] == 0  # a list twice with one group is the host's
    assert emulated().holds(pair.native.codebooks.tobytes())


def test_a_device_that_fails_at_any_call_changes_no_answer() -> None:
    pair = Pair("f16", "dot")
    for i in range(3):
        pair.add(i, 100, i + 1)
    failed = 0
    for n in range(14):
        pair.tiered.warm([0, 1, 2], wait=True)
        emulated().fail_from(n)
        plan = pair.check([0, 1, 2])
        failed += plan["device_failed"]
        emulated().heal()
        assert pair.tiered.rebuild()
    assert failed > 5
    pair.tiered.warm([0, 1, 2], wait=True)
    assert pair.check([0, 1, 2])["device_lists"] == 3


def test_codes_of_all_lists_stay_and_rows_of_the_hot_ones() -> None:
    """Where whole lists find no room their codes do, with rows in pinned host memory."""
    pair = Pair("f32", "dot", vram_bytes=3 << 20, pinned_bytes=1 << 24)
    everyone = list(range(140))  # pages of 18,688 bytes, of which 2,304 are codes and columns
    for i in everyone:
        pair.add(i, 64, i + 1)
    pair.tiered.warm(everyone, wait=True)
    for _ in range(3):
        pair.check(everyone, k=1)
        pair.tiered.settle()
    assert pair.check(everyone, k=1)["device_lists"] == 140
    tiers = pair.tiered.tiers()
    assert tiers["lists"] == 140 and 10 < tiers["codes_lists"] < 70 and tiers["pinned"] > 0
    assert tiers["allocated"] <= 3 << 20


@pytest.fixture
def by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_backend, "_load", lambda: (emulated().module, None))
    given = CudaBackend.__init__.__kwdefaults__ or {}
    monkeypatch.setattr(CudaBackend.__init__, "__kwdefaults__", {**given, "least_work": 0})


@pytest.mark.usefixtures("by_name")
@pytest.mark.parametrize("storage", ["f16", "pq"])
def test_indexes_of_codes_on_the_device(storage: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ivf.build_ivf.__kwdefaults__ or {}
    monkeypatch.setattr(ivf.build_ivf, "__kwdefaults__", {**given, "min_rows": 1500})
    n = 2000
    vectors = rows(n, 1)
    owners = np.where(np.arange(n) < 1700, 0, np.arange(n) % 3 + 1)
    indexes = []
    for name in ("cuda", "cpu"):
        index = VectorIndex(
            DIM, storage=storage, backend=name, recall=0.8, vram_bytes=1 << 24, columns={"n": "int64"}
        )
        if storage == "pq":
            index.train(vectors[:500])
        index.add(vectors, owners=owners, attributes={"n": np.arange(n)})
        indexes.append(index)
    index, host = indexes
    asked: list[dict[str, Any]] = [
        {"owners": 0}, {"owners": 2}, {}, {"owners": 0, "filter": {"n": {"lt": 900}}}, {"n_probes": 3},
    ]  # fmt: skip

    def same(left: VectorIndex, warm: bool) -> None:
        for arguments in asked:
            found = left.search(vectors[:4], 5, explain=True, **arguments)
            wanted = host.search(vectors[:4], 5, **arguments)
            assert found.ids.tobytes() == wanted.ids.tobytes(), arguments
            assert found.scores.tobytes() == wanted.scores.tobytes()
            assert found.plan is not None and found.plan["isa"] == "cuda"
            assert found.plan["device_lists"] > 0 or not warm  # meanwhile some are loaded

    same(index, False)
    index.warm([0, 1, 2, 3], wait=True)
    same(index, True)
    for each in (index, host):
        each.optimise()
    assert index._store.serving.approximate and index.stats()["cells"] > 3
    assert index.warm([0, 1, 2, 3], wait=True) > 3
    same(index, True)
    held = index.stats()["tiers"]
    assert held["failure"] is None and held["lists"] > 6 and held["limit"] == 1 << 24
    for each in (index, host):
        each.remove(np.arange(0, n, 9))
        each.add(vectors[:20], owners=0, ids=np.arange(n, n + 20))
    index.warm([0, 1, 2, 3], wait=True)
    same(index, True)
    index.evict(0)
    assert index.stats()["tiers"]["lists"] <= 3
    emulated().fail_from(0)
    same(index, False)
    assert not index.rebuild_device()
    emulated().heal()
    assert index.rebuild_device()  # rows in cells and the others
    index.warm([0, 1, 2, 3], wait=True)
    same(index, True)
    index.save(tmp_path / "rows")
    loaded = VectorIndex.load(tmp_path / "rows", backend="cuda", vram_bytes=1 << 24)
    same(loaded, False)
    loaded.warm([0, 1, 2, 3], wait=True)
    same(loaded, True)
