"""What numba and cupy have beyond the common suite: screen, threads, caches, k-means, PQ, CUDA."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pools import ARRAYS, make_rows, scan_all
from warpmem import compose
from warpmem.config import Config
from warpmem.errors import BackendUnavailable
from warpmem.index import kernels_ref, numba_backend
from warpmem.index.canonical import canonical_dot
from warpmem.index.cpu import CpuBackend
from warpmem.index.cupy_backend import CupyBackend, CupyPool
from warpmem.index.numba_backend import NumbaBackend, NumbaPool
from warpmem.index.numpy_ref import NumpyBackend
from warpmem.protocols import RowPool
from warpmem.records import Segment

TESTS = Path(__file__).resolve().parents[1]
NOW = 1_750_000_000_000_000
DAY = 86_400_000_000.0

needs_numba = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="the package numba is not installed"
)
# What computes k-means and PQ: by name, a function that makes it.
OPERATIONS = [
    pytest.param(lambda: NumbaBackend().operations(), id="numba", marks=needs_numba),
    *(pytest.param(backend.operations, id=name) for name, backend in ARRAYS.items()),
]


def filled(pool: RowPool, vectors: NDArray[np.float32]) -> RowPool:
    """One list; columns: small numbers, times, priorities."""
    n = len(vectors)
    rng = np.random.default_rng(n)
    columns = rng.integers(-5, 6, (n, 3))
    columns[:, 1] = NOW - rng.integers(0, 400, n) * int(DAY)
    columns[:, 2] = rng.random(n).view(np.int64)
    ids = rng.permutation(n)
    pool.apply([], np.zeros(n, np.int64), ids, (ids // 2).astype(np.uint32), columns, vectors)
    return pool


KINDS = ["random", "huge", "denormals", "mixed", "equal", "duplicates", "cancelling", "zeros"]


@needs_numba
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [64, 100, 384])
def test_screen_bounds_every_similarity(kind: str, dim: int) -> None:
    rows, queries = make_rows(kind, 300, dim, dim), make_rows(kind, 5, dim, dim + 1)
    rows[::7] *= np.float32(1e-3)
    codes, scale, hat, error = screen = numba_backend._codes(len(rows), dim)
    numba_backend.load("numba_ops").quantize(rows, *screen)
    wide, ints, query_scale, norm, off = numba_backend._quantized_queries(queries)
    exact_rows = rows.astype(np.float64)
    restored = scale[:, None].astype(np.float64) * codes
    assert (hat >= np.sqrt((restored**2).sum(axis=1))).all()
    assert (error >= np.sqrt(((exact_rows - restored) ** 2).sum(axis=1))).all()
    for q in range(len(queries)):
        products = codes.astype(np.int64) @ ints[q].astype(np.int64)
        assert np.abs(products).max(initial=0) < 1 << 31
        with np.errstate(over="ignore", invalid="ignore"):
            wide_hat, wide_error = hat.astype(np.float64), error.astype(np.float64)
            bound = (
                scale.astype(np.float64) * query_scale[q] * products
                + wide_hat * off[q]
                + wide_error * norm[q]
            )
            bound += numba_backend.load("numba_kernels")._SLACK * (wide_hat + wide_error) * (norm[q] + off[q])
        assert not (bound < canonical_dot(rows, queries[q])).any()
        assert (wide[q] == queries[q]).all()


@needs_numba
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_screened_scans_have_the_reference_bits(
    kind: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba_backend, "_PART_WORK", 1)  # small scans, too, use every thread
    dim, n = 72, 3000
    vectors = make_rows(kind, n, dim, 11)
    numba = NumbaPool(dim, 3, threads)
    pools: dict[str, RowPool] = {"numpy": NumpyBackend().pool(dim, 3), "numba": numba}
    for pool in pools.values():
        filled(pool, vectors)
    queries = make_rows(kind, 5, dim, 12)
    words = np.random.default_rng(3).integers(0, 1 << 63, n // 64, dtype=np.uint64)
    plain: list[Segment] = [(q, 0, 0, [], [], None) for q in range(5)]
    terms = [(0, 0, -2, 3), (0, 1, 1, 5)]
    filtered: list[Segment] = [(q, 0, 0, terms, [99, -2, 0, 1, 3], words) for q in range(5)]
    ranking: dict[str, Any] = {"half_life": 30 * DAY, "recency_column": 1, "priority_column": 2, "now": NOW}
    for k in (1, 10, 4096):
        scan_all(pools, queries, plain, k)
        scan_all(pools, queries, filtered, k)
        scan_all(pools, queries, plain, k, min_similarity=0.5)
        for weights in (
            (0.7, 0.3, 0.2),
            (1.0, -0.3, 0.0),
            (-1.0, 0.1, 0.1),
            (0.0, 1.0, 0.0),
            (1e-3, 0.5, -0.5),
        ):
            named = dict(zip(("w_similarity", "w_recency", "w_priority"), weights, strict=True))
            scan_all(pools, queries, [*plain, *filtered], k, **named, **ranking)
    assert [len(codes) for _, codes, _ in numba._entries.values()] == [4], "the screen was there"
    numba.drop([0])
    scan_all(pools | {"numpy": numba}, queries, plain, 1)
    one = np.ones(1, np.int64)
    numba.apply([], one, one, one.astype(np.uint32), np.zeros((1, 3), np.int64), vectors[:1])
    numba.scan(queries, [(0, 1, 0, [], [], None)], 1)
    assert [i for i, (_, codes, _) in numba._entries.items() if codes] == [], (
        "codes of rows that are gone are let go"
    )


@pytest.mark.parametrize("storage", ["f32", "f16", "int8"])
@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_storages_and_metrics(storage: str, metric: str) -> None:
    made: dict[str, Any] = {"numpy": NumpyBackend(), "cupy": CupyBackend(np)}
    if NumbaBackend().available() is None:
        made["numba"] = NumbaBackend()
    vectors, queries = make_rows("random", 1100, 70, 1), make_rows("random", 3, 70, 2)
    queries[0] = vectors[0]  # a squared distance of 0
    pools = {
        name: filled(backend.pool(70, 3, storage=storage, metric=metric), vectors)
        for name, backend in made.items()
    }
    scan_all(pools, queries, [(q, 0, 0, [], [], None) for q in range(3)], 50)
    scan_all(
        pools, queries, [(q, 0, 0, [(0, 0, -2, 2)], [], None) for q in range(3)], 9, w_recency=0.5,
        half_life=DAY * 9, recency_column=1, now=NOW, min_similarity=-90.0,
    )  # fmt: skip
    for name, backend in made.items():
        for bad in ({"storage": "f8"}, {"metric": "cosine"}):
            with pytest.raises(ValueError, match=r"(storage|metric) must be"):
                backend.pool(4, 0, **bad)
        assert (
            pools[name].vectors(0, np.array([5])).tobytes()
            == pools["numpy"].vectors(0, np.array([5])).tobytes()
        )


@needs_numba
def test_codes_follow_changes() -> None:
    pools: dict[str, RowPool] = {"numpy": NumpyBackend().pool(64, 0), "numba": NumbaBackend().pool(64, 0)}
    ids = np.arange(1500)
    for step in range(4):
        vectors = make_rows("random", 1500, 64, step)
        order = np.ascontiguousarray(ids[::-1]) if step == 2 else ids
        for pool in pools.values():
            pool.apply(
                [(0, step), (0, 1499 - step)] if step % 2 else [], ids * 0, order,
                ids.astype(np.uint32), np.zeros((1500, 0), np.int64), vectors,
            )  # fmt: skip
        scan_all(pools, vectors[:3] + np.float32(0.1), [(q, 0, 0, [], [], None) for q in range(3)], 7)


@needs_numba
def test_scans_with_threads_may_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba_backend, "_PART_WORK", 1)
    vectors = make_rows("random", 2000, 64, 5)
    pool = filled(NumbaPool(64, 3, 2), vectors)
    expected = pool.scan(vectors[:4], [(q, 0, 0, [], [], None) for q in range(4)], 9)[0].tobytes()
    same: list[bool] = []

    def read() -> None:
        for _ in range(30):
            found = pool.scan(vectors[:4], [(q, 0, 0, [], [], None) for q in range(4)], 9)
            same.append(found[0].tobytes() == expected)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert same == [True] * 120


@needs_numba
def test_cuda_kernels_in_the_simulator() -> None:
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), *sys.path])
    done = subprocess.run(
        [sys.executable, "-W", "error", str(TESTS / "simulated_cuda.py")],
        env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "equal bits, rows found: " in done.stdout
    assert int(done.stdout.split()[-1]) > 100


def test_cupy_keeps_lists_within_its_budget() -> None:
    pool = CupyPool(8, 0, np, cache_bytes=3 * 100 * (8 * 4 + 8))
    for list_id in range(5):
        ids = np.arange(100)
        pool.apply(
            [], np.full(100, list_id), ids, ids.astype(np.uint32), np.zeros((100, 0), np.int64),
            make_rows("random", 100, 8, list_id),
        )  # fmt: skip
    query = make_rows("random", 1, 8, 9)
    for list_id in (0, 1, 2, 0, 3, 4):
        pool.scan(query, [(0, list_id, 0, [], [], None)], 3)
    assert list(pool._cache) == [0, 3, 4]
    pool.drop([3])
    pool.scan(query, [(0, 4, 0, [], [], None)], 3)
    assert list(pool._cache) == [0, 4]


@pytest.mark.parametrize("make", OPERATIONS)
@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize(
    ("kind", "n", "dim", "k"),
    [
        ("random", 700, 33, 20),
        ("integers", 300, 5, 40),
        ("equal", 65, 40, 3),
        ("duplicates", 200, 64, 30),
        ("random", 9, 1, 9),
    ],
)
def test_kmeans_is_the_references(make: Any, kind: str, n: int, dim: int, k: int, spherical: bool) -> None:
    x = make_rows(kind, n, dim, n)
    for init in ("k-means++", "random"):
        options: Any = {"iterations": 6, "seed": 4, "init": init, "sample": None, "spherical": spherical}
        expected, found = kernels_ref.kmeans(x, k, **options), make().kmeans(x, k, **options)
        assert [part.tobytes() for part in found[:2]] == [part.tobytes() for part in expected[:2]]
        assert found[2] == expected[2]
        both = [ops(x, expected[0], spherical) for ops in (kernels_ref.kmeans_assign, make().kmeans_assign)]
        assert [part.tobytes() for part in both[0]] == [part.tobytes() for part in both[1]]


@pytest.mark.parametrize("make", OPERATIONS)
@pytest.mark.parametrize(("pq_dim", "pq_bits"), [(1, 8), (6, 8), (5, 4), (16, 4)])
@pytest.mark.parametrize("n", [1, 33, 2049])
def test_pq_is_the_references(make: Any, pq_dim: int, pq_bits: int, n: int) -> None:
    rng = np.random.default_rng([pq_dim, pq_bits, n])
    books = rng.standard_normal((pq_dim, 1 << pq_bits, 3)).astype(np.float32)
    x = make_rows("random", n, 3 * pq_dim, n)
    x[n // 2 :] = x[0]  # equal rows, ordered by position
    packed = kernels_ref.pq_encode(x, books)
    assert make().pq_encode(x, books).tobytes() == packed.tobytes()
    codes = np.ascontiguousarray(kernels_ref.unpack_codes(packed, pq_dim, pq_bits))
    for metric in ("ip", "l2"):
        luts = kernels_ref.pq_lut(make_rows("random", 3, 3 * pq_dim, 5), books, metric)
        for k in (1, 10, 4096):
            expected, found = kernels_ref.pq_scan(codes, luts, k), make().pq_scan(codes, luts, k)
            assert [part.tobytes() for part in found] == [part.tobytes() for part in expected]


def test_backend_is_chosen_by_name_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compose.make_backend(Config())[0].name == "cpu"
    monkeypatch.setattr(CpuBackend, "available", lambda self: "no module")
    backend, why = compose.make_backend(Config())
    assert backend.name == "numpy" or CupyBackend().available() is None
    assert "numba: it compiles for seconds" in why or backend.name == "cupy"


def test_missing_packages_are_named_with_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    for module in ("numba_backend", "cupy_backend"):
        monkeypatch.setattr(
            f"warpmem.index.{module}.find_spec",
            lambda name, *rest: None if name in ("numba", "cupy") else find(name, *rest),
        )
    for name in ("numba", "cupy"):
        with pytest.raises(
            BackendUnavailable, match=rf"{name} is not installed .*; pip install 'warpmem\[{name}\]'"
        ):
            compose.make_backend(Config(backend=name))  # type: ignore[arg-type]
        with pytest.raises(BackendUnavailable, match=rf"backend {name} cannot run here: .* not installed"):
            compose.backends()[name].pool(4, 0)


@needs_numba
def test_memory_on_numba_gives_the_answers_of_cpu() -> None:
    texts = [
        f"note {i} about {topic}" for i, topic in enumerate(["keys", "tea", "rain", "trains", "keys and tea"])
    ]
    answers = []
    for name in ("cpu", "numba"):
        with compose.open(embedder="hashing", backend=name) as memory:
            assert memory.stats().backend == name
            for text in texts:
                memory.add(text, user_id="ann")
            answers.append(
                [
                    (hit.item.text, hit.score)
                    for hit in memory.search("where are the keys", user_id="ann", k=3)
                ]
            )
    assert answers[0] == answers[1]
    assert len(answers[0]) == 3


def test_neither_package_is_imported_before_it_is_asked_for() -> None:
    code = (
        "import sys; from warpmem.compose import make_backend, backends; from warpmem.config import Config; "
        "make_backend(Config()); backends()['numba'].available(); "
        "print(sorted({'numba', 'cupy', 'llvmlite'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
