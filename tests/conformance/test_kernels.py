"""select_k, k-means and product quantisation: every instruction set forced, and oracles.

`run` calls one kernel on every backend and instruction set and wants equal bits.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kernel_runs import run
from pools import hardware_has_avx2, make_rows
from warpmem import _cpu
from warpmem.errors import BackendUnavailable, InputError, InvalidVector
from warpmem.index import kernels

KINDS = ["random", "integers", "zeros", "denormals", "huge", "mixed", "equal", "duplicates", "cancelling"]
ROWS = [0, 1, 31, 32, 33, 63, 64, 65, 2049]


def test_every_instruction_set_is_forced_and_runs():
    assert kernels.isas()[-1] == "serial"
    assert ("avx2" in kernels.isas()) == hardware_has_avx2()
    for isa in kernels.isas():
        assert _cpu.Kernels(isa=isa).isa == isa
    assert _cpu.Kernels().isa == kernels.isas()[0]
    with pytest.raises(BackendUnavailable, match="sse9"):
        kernels.select_k(np.zeros((1, 1), np.float32), 1, isa="sse9")


# select_k ---------------------------------------------------------------------------------------------------


def selected(row: NDArray[Any], k: int, ties: NDArray[Any]) -> list[tuple[float, int]]:
    best = sorted((-float(v), int(t), i) for i, (v, t) in enumerate(zip(row, ties, strict=True)))[:k]
    return [(-v, i) for v, _, i in best] + [(-np.inf, -1)] * max(0, k - len(best))


@pytest.mark.parametrize("k", [1, 31, 32, 33, 256, 257, 4096])
@pytest.mark.parametrize("columns", ROWS)
def test_select_k_sizes(columns: int, k: int):
    scores = np.random.default_rng(columns).standard_normal((3, columns)).astype(np.float32)
    values, indexes = run(kernels.select_k, scores, k)
    for r in range(3):
        expected = selected(scores[r], k, np.arange(columns))
        assert list(zip(values[r].tolist(), indexes[r].tolist(), strict=True)) == expected


@pytest.mark.parametrize("kind", ["ties", "falling", "rising", "equal", "infinities", "zeros"])
@pytest.mark.parametrize("ordered", [False, True])
def test_select_k_orders(kind: str, ordered: bool):
    rng = np.random.default_rng(5)
    n = 20_000
    scores = {
        "ties": rng.integers(-3, 3, n),
        "falling": -np.arange(n),
        "rising": np.arange(n),
        "equal": np.full(n, 7),
        "infinities": rng.choice([-np.inf, 0.0, np.inf], n),
        "zeros": rng.choice([-0.0, 0.0], n),
    }[kind].astype(np.float32)[None]
    ordinals = rng.integers(0, 50, n).astype(np.uint32) if ordered else None
    for k in (1, 10, 600, 4096):
        values, indexes = run(kernels.select_k, scores, k, ordinals=ordinals)
        expected = selected(scores[0] + 0.0, k, np.arange(n) if ordinals is None else ordinals)
        assert list(zip(values[0].tolist(), indexes[0].tolist(), strict=True)) == expected
        assert not np.signbit(values[values == 0]).any()


def test_select_k_shares_long_rows_and_many_rows():
    rng = np.random.default_rng(6)
    run(kernels.select_k, rng.standard_normal((1, 700_001)).astype(np.float32), 100)
    run(kernels.select_k, rng.integers(0, 40, (700, 700)).astype(np.float32), 9)


@pytest.mark.parametrize("at", [0, 1, 63, 64, 300, 1000, 2048])
def test_select_k_refuses_nan(at: int):
    for fill in (0.0, -np.inf, np.inf):
        for nan in (np.float32(np.nan), -np.float32(np.nan)):
            scores = np.full((2, 2049), fill, np.float32)
            scores[1, at] = nan
            for options in ({"backend": "numpy"}, *({"isa": isa} for isa in kernels.isas())):
                for ordinals in (None, np.zeros(2049, np.uint32)):
                    with pytest.raises(InvalidVector, match="row 1 holds a NaN"):
                        kernels.select_k(scores, 3, ordinals=ordinals, **options)


# kmeans -----------------------------------------------------------------------------------------------------


def wide_distances(x: NDArray[Any], centroids: NDArray[Any]) -> NDArray[Any]:
    """Squared distances in extended precision, by another formula and order than the kernels use."""
    difference = x.astype(np.longdouble)[:, None, :] - centroids.astype(np.longdouble)[None]
    return (difference * difference).sum(axis=2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "k", "dim"), [(65, 13, 7), (300, 37, 33), (70, 70, 64), (33, 5, 100)])
def test_assignment_is_the_nearest(kind: str, n: int, k: int, dim: int):
    x, centroids = make_rows(kind, n, dim, 1), make_rows(kind, k, dim, 2)
    centroids[: k // 3] = x[: k // 3]
    index, values = run(kernels.kmeans_assign, x, centroids)
    exact = wide_distances(x, centroids)
    scale = (
        np.linalg.norm(x.astype(float), axis=1)[:, None] + np.linalg.norm(centroids.astype(float), axis=1)
    ) ** 2
    slack = 2.0**-46 * scale.max(axis=1)
    chosen = exact[np.arange(n), index]
    assert (np.abs(values - chosen) <= slack).all()
    assert (chosen <= exact.min(axis=1) + slack).all()
    run(kernels.kmeans_assign, x, centroids, spherical=True)


def test_ties_go_to_the_smaller_centroid():
    rng = np.random.default_rng(3)
    centroids = rng.standard_normal((40, 48)).astype(np.float32)
    twice = np.concatenate([centroids, centroids])[rng.permutation(80)]
    x = rng.standard_normal((500, 48)).astype(np.float32)
    for spherical in (False, True):
        index, _ = run(kernels.kmeans_assign, x, twice, spherical=spherical)
        first = [int(np.flatnonzero((twice == twice[c]).all(axis=1))[0]) for c in index]
        assert index.tolist() == first


def test_near_ties_are_decided_canonically():
    """Centroids that differ in the last bits of one coordinate: float32 products cannot tell them apart."""
    rng = np.random.default_rng(4)
    base = rng.standard_normal(96).astype(np.float32)
    centroids = np.tile(base, (24, 1))
    for c in range(24):
        centroids[c, c] = np.nextafter(centroids[c, c], np.float32(np.inf if c % 2 else -np.inf))
    x = (base + 1e-3 * rng.standard_normal((400, 96))).astype(np.float32)
    index, _ = run(kernels.kmeans_assign, x, centroids)
    exact = wide_distances(x, centroids)
    assert (exact[np.arange(400), index] <= exact.min(axis=1) * (1 + 2.0**-46)).all()
    assert len(set(index.tolist())) > 5


@pytest.mark.parametrize("init", ["random", "k-means++"])
@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_kmeans_equals_the_reference(kind: str, init: str, spherical: bool):
    x = make_rows(kind, 700, 19, 7)
    options = {"iterations": 4, "seed": 11, "init": init, "spherical": spherical}
    centroids, index, objective = run(kernels.kmeans, x, 40, **options)
    assert np.isfinite(centroids).all()
    again, values = kernels.kmeans_assign(x, centroids, spherical=spherical)
    assert (again == index).all() and objective == float(np.add.accumulate(values)[-1])


def test_kmeans_converges_and_improves():
    rng = np.random.default_rng(8)
    means = rng.standard_normal((12, 24)) * 8
    truth = rng.integers(0, 12, 3000)
    x = (means[truth] + rng.standard_normal((3000, 24))).astype(np.float32)
    costs = [run(kernels.kmeans, x, 12, iterations=i, seed=2)[2] for i in (0, 1, 3, 20)]
    assert costs == sorted(costs, reverse=True)
    centroids, index, objective = run(kernels.kmeans, x, 12, iterations=200, seed=2)
    assert objective <= costs[-1] and objective == pytest.approx(3000 * 24, rel=0.1)
    for c in range(12):
        assert np.allclose(centroids[c], x[index == c].mean(axis=0), atol=1e-5)
    assert all(len(set(truth[index == c].tolist())) == 1 for c in range(12)), "the clusters are found again"


@pytest.mark.parametrize("n", [1, 31, 32, 33, 63, 64, 65, 2049])
def test_kmeans_sizes(n: int):
    x = make_rows("random", n, 5, n)
    for k in {1, min(n, 7), min(100, n)}:
        centroids, index, objective = run(kernels.kmeans, x, k, seed=n, iterations=3, init="random")
        if k == n:
            assert objective == 0.0 and sorted(index.tolist()) == list(range(n))
        if k == 1:
            assert np.allclose(centroids[0], x.astype(float).mean(axis=0), atol=1e-6)


def test_kmeans_reseeds_empty_clusters():
    """Three far groups and a start in one of them: the farthest rows take over what would stay empty."""
    x = np.zeros((300, 4), np.float32)
    x[100:200] += 100.0
    x[200:] -= 100.0
    x += np.random.default_rng(9).standard_normal(x.shape).astype(np.float32)
    duplicated = np.concatenate([np.zeros((3000, 4), np.float32), x])
    _, index, _ = run(kernels.kmeans, duplicated, 30, seed=1, init="random", iterations=10)
    assert len(set(index.tolist())) == 30


def test_constant_rows():
    x = np.ones((50, 6), np.float32)
    for init in ("random", "k-means++"):
        centroids, index, objective = run(kernels.kmeans, x, 9, init=init)
        assert (centroids == 1).all() and (index == 0).all() and objective == 0.0
    run(kernels.kmeans, np.zeros((50, 6), np.float32), 9, spherical=True)


def test_kmeans_sample_and_seed():
    x = make_rows("random", 900, 8, 1)
    sampled = run(kernels.kmeans, x, 20, sample=200, seed=5)
    assert sampled[1].shape == (900,)
    assert sampled[0].tobytes() == run(kernels.kmeans, x, 20, sample=200, seed=5)[0].tobytes()
    assert sampled[0].tobytes() != run(kernels.kmeans, x, 20, sample=200, seed=6)[0].tobytes()
    whole, all_rows = (run(kernels.kmeans, x, 20, sample=s, seed=5) for s in (None, 900))
    assert whole[0].tobytes() == all_rows[0].tobytes()


# pq ---------------------------------------------------------------------------------------------------------

SHAPES = [(1, 1), (1, 8), (3, 33), (7, 7), (8, 64), (5, 200), (6, 102), (9, 45)]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("pq_dim", "dim"), SHAPES)
def test_pq(pq_dim: int, dim: int, bits: int):
    x = make_rows("random", 333, dim, dim)
    books = run(kernels.pq_train, x, pq_dim, bits, iterations=2, seed=3)
    assert books.shape == (pq_dim, 1 << bits, dim // pq_dim)
    codes = run(kernels.pq_encode, x, books)
    assert codes.shape == (333, pq_dim if bits == 8 else (pq_dim + 1) // 2)
    decoded = run(kernels.pq_decode, codes, books)
    parts = x.reshape(333, pq_dim, -1)
    for s in range(pq_dim):  # every piece became its nearest entry
        best = wide_distances(parts[:, s], books[s]).min(axis=1)
        got = ((parts[:, s].astype(np.longdouble) - decoded.reshape(333, pq_dim, -1)[:, s]) ** 2).sum(axis=1)
        assert (got <= best * (1 + 2.0**-40) + 1e-30).all()
    for metric in ("ip", "l2"):
        luts = run(kernels.pq_lut, x[:4], books, metric=metric)
        wide = parts[:4].astype(float)
        expected = (
            np.einsum("qsd,scd->qsc", wide, books.astype(float))
            if metric == "ip"
            else -((wide[:, :, None, :] - books.astype(float)) ** 2).sum(axis=3)
        )
        assert np.allclose(luts, expected, rtol=1e-6, atol=1e-6)
        blocks = run(kernels.pq_interleave, codes, pq_dim, bits)
        assert run(kernels.pq_deinterleave, blocks, 333).tobytes() == codes.tobytes()
        for k in (1, 10, 333, 400):
            packed = run(kernels.pq_scan, codes, luts, k)
            inner = run(kernels.pq_scan, blocks, luts, k, rows=333)
            assert all(a.tobytes() == b.tobytes() for a, b in zip(packed, inner, strict=True))
            check_scan(packed, codes, luts, k, bits)


def check_scan(found: tuple[Any, Any], codes: NDArray[Any], luts: NDArray[Any], k: int, bits: int) -> None:
    """Against plain Python over the packed bytes, to the error of the quantised table or of float32 sums."""
    n, pq_dim = len(codes), luts.shape[1]
    for q in range(len(luts)):
        table = luts[q].astype(float)
        scores = np.zeros(n)
        for s in range(pq_dim):
            code = codes[:, s] if bits == 8 else codes[:, s // 2] >> (4 * (s % 2)) & 15
            scores += table[s, code]
        count = min(n, k)
        widest = (table.max(axis=1) - table.min(axis=1)).max()
        slack = 1e-5 * np.abs(table).max(axis=1).sum() + (pq_dim * widest / 510 if bits == 4 else 0)
        values, indexes = found[0][q], found[1][q]
        assert len(set(indexes[:count].tolist())) == count and (indexes[count:] == -1).all()
        assert (np.abs(values[:count] - scores[indexes[:count]]) <= slack).all()
        assert (np.abs(values[:count] - np.sort(scores)[::-1][:count]) <= slack).all()
        order = list(zip((-values[:count]).tolist(), indexes[:count].tolist(), strict=True))
        if bits == 8:
            assert order == sorted(order)
        else:
            assert (np.diff(values[:count]) <= 0).all()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("rows", [*ROWS, 5000])
def test_pq_scan_sizes(rows: int, bits: int):
    rng = np.random.default_rng(rows)
    codes = rng.integers(0, 256, (rows, 6 if bits == 8 else 3), np.uint8)
    luts = rng.standard_normal((35, 6, 1 << bits)).astype(np.float32)
    found = run(kernels.pq_scan, run(kernels.pq_interleave, codes, 6, bits), luts, 33, rows=rows)
    check_scan((found[0][:3], found[1][:3]), codes, luts[:3], 33, bits)


@pytest.mark.parametrize("pq_dim", [255, 256, 257, 260, 515])
def test_pq_scan_sums_do_not_overflow(pq_dim: int):
    """Every table entry that a code names is the largest byte: 255 in each subspace."""
    codes = np.full((70, (pq_dim + 1) // 2), 0xFF, np.uint8)
    codes[3] = 0
    if pq_dim % 2:
        codes[:, -1] &= 15
    luts = np.zeros((1, pq_dim, 16), np.float32)
    luts[:, :, 15] = 1.0
    values, indexes = run(kernels.pq_scan, codes, luts, 70)
    assert indexes[0].tolist() == [*range(3), *range(4, 70), 3]
    assert values[0, :69].tolist() == [pq_dim] * 69 and values[0, 69] == 0.0


def test_pq_scan_ties_and_constant_tables():
    codes = np.random.default_rng(1).integers(0, 256, (3000, 4), np.uint8)
    for luts in (np.zeros((2, 8, 16), np.float32), np.full((2, 4, 256), 2.5, np.float32)):
        values, indexes = run(kernels.pq_scan, codes, luts, 100)
        assert (indexes == np.arange(100)).all() and (values == luts[0, :, 0].sum()).all()


@pytest.mark.parametrize("kind", ["random", "huge", "denormals", "mixed"])
def test_quantized_tables(kind: str):
    luts = make_rows(kind, 6, 160, 3).reshape(6, 10, 16)
    quantized, scale, bias = run(kernels.pq_quantize_lut, luts, threaded=False)
    for q in range(6):
        near = luts[q].min(axis=1, keepdims=True).astype(float) + scale[q] * quantized[q]
        assert (np.abs(near - luts[q]) <= scale[q] * 0.5000001).all()
        assert bias[q] == pytest.approx(luts[q].min(axis=1).astype(float).sum())
    assert quantized.max() == 255


# arguments --------------------------------------------------------------------------------------------------


def _bad(shape: tuple[int, ...], value: float) -> NDArray[np.float32]:
    array = np.ones(shape, np.float32)
    array[-1, ..., -1] = value
    return array


BOOKS = np.ones((2, 16, 2), np.float32)
LUTS = np.ones((1, 2, 16), np.float32)
BAD: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], str]] = [
    (kernels.select_k, (np.ones((2, 3)), 0), {}, "k must be within 1 and 4096, not 0"),
    (kernels.select_k, (np.ones((2, 3)), 4097), {}, "4097"),
    (kernels.select_k, (np.ones((2, 3)), 1.0), {}, "k must be an integer, not float"),
    (kernels.select_k, (np.ones((2, 3)), True), {}, "k must be an integer, not bool"),
    (kernels.select_k, (np.ones(3), 1), {}, "expected 2 axes, not 1"),
    (kernels.select_k, (np.ones((2, 3), int), 1), {}, "int64"),
    (kernels.select_k, (np.ones((2, 3)), 1), {"threads": 0}, "threads"),
    (kernels.select_k, (np.ones((2, 3)), 1), {"ordinals": np.zeros(3, np.int64)}, "uint32"),
    (kernels.select_k, (np.ones((2, 3)), 1), {"ordinals": np.zeros(4, np.uint32)}, "shape"),
    (kernels.kmeans, (np.ones((5, 3)), 6), {}, "5 rows are too few for 6 centroids"),
    (kernels.kmeans, (np.ones((5, 0)), 2), {}, "dimensions, not 0"),
    (kernels.kmeans, (np.ones((5, 3)), 2), {"sample": 1}, "at least k, 2, not 1"),
    (kernels.kmeans, (np.ones((5, 3)), 2), {"init": "best"}, "init"),
    (kernels.kmeans, (np.ones((5, 3)), 2), {"seed": -1}, "seed"),
    (kernels.kmeans, (np.ones((5, 3)), 2), {"iterations": -1}, "iterations"),
    (kernels.kmeans, (_bad((5, 3), np.nan), 2), {}, "row 4 holds"),
    (kernels.kmeans, (np.full((5, 3), 1e300), 2), {}, "row 0 holds"),
    (kernels.kmeans_assign, (np.ones((5, 3)), np.ones((2, 4))), {}, "expected 4 dimensions, not 3"),
    (kernels.kmeans_assign, (np.ones((5, 3)), np.ones((0, 3))), {}, "not 0"),
    (kernels.kmeans_assign, (np.ones((5, 3)), _bad((2, 3), np.inf)), {}, "centroids: row 1"),
    (kernels.pq_train, (np.ones((300, 6)), 4), {}, "6 dimensions, pq_dim 4"),
    (kernels.pq_train, (np.ones((255, 6)), 3), {}, "255 rows are too few for 256"),
    (kernels.pq_train, (np.ones((300, 6)), 3, 5), {}, "4 or 8, not 5"),
    (kernels.pq_encode, (np.ones((3, 5)), BOOKS), {}, "expected 4 dimensions, not 5"),
    (kernels.pq_encode, (np.ones((3, 4)), np.ones((2, 17, 2))), {}, "not 17"),
    (kernels.pq_encode, (_bad((3, 4), np.nan), BOOKS), {}, "x: row 2"),
    (kernels.pq_encode, (np.ones((3, 4)), _bad((2, 16, 2), np.inf)), {}, "codebooks: row"),
    (kernels.pq_decode, (np.zeros((3, 2), np.uint8), BOOKS), {}, "expected 1 bytes a row, not 2"),
    (kernels.pq_decode, (np.zeros((3, 1), np.int8), BOOKS), {}, "int8"),
    (kernels.pq_interleave, (np.zeros((3, 2), np.uint8), 5, 4), {}, "expected 3 bytes a row, not 2"),
    (kernels.pq_deinterleave, (np.zeros((1, 2, 16), np.uint8), 33), {}, "33 rows need 2 blocks, not 1"),
    (kernels.pq_deinterleave, (np.zeros((1, 2, 17), np.uint8), 3), {}, "not 17"),
    (kernels.pq_lut, (np.ones((1, 4)), BOOKS), {"metric": "cosine"}, "metric"),
    (kernels.pq_lut, (_bad((1, 4), np.nan), BOOKS), {}, "queries: row 0"),
    (kernels.pq_scan, (np.zeros((3, 2), np.uint8), LUTS, 1), {}, "expected 1 bytes a row, not 2"),
    (kernels.pq_scan, (np.zeros((1, 3, 16), np.uint8), LUTS, 1), {}, "blocks"),
    (kernels.pq_scan, (np.zeros((1, 2, 16), np.uint8), LUTS, 1), {"rows": 33}, "33 rows need 2 blocks"),
    (kernels.pq_scan, (np.zeros((3, 1), np.uint8), LUTS, 1), {"rows": 4}, "expected 4 rows, not 3"),
    (kernels.pq_scan, (np.zeros((3, 1), np.uint8), LUTS[:, :, :9], 1), {}, "not 9"),
    (kernels.pq_scan, (np.zeros((3, 1), np.uint8), _bad((1, 2, 16), np.nan), 1), {}, "table 0"),
    (kernels.pq_scan, (np.zeros((3, 1), np.uint8), np.full((1, 2, 16), 2e38), 1), {}, "overflow"),
    (kernels.select_k, (np.ones((2, 3)), 1), {"backend": "tpu"}, "tpu"),
]


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_arguments(case: int, backend: str):
    kernel, args, options, message = BAD[case]
    with pytest.raises(InputError, match=message):
        kernel(*args, **{"backend": backend, **options})


def test_layouts_and_dtypes_are_taken():
    x = make_rows("random", 300, 8, 1)
    expected = kernels.kmeans_assign(x, x[:20])[0].tolist()
    padded = np.zeros((300, 16), np.float32)
    padded[:, ::2] = x
    for variant in (x.astype(np.float64), np.asfortranarray(x), padded[:, ::2], x.astype(">f4").astype("f4")):
        assert kernels.kmeans_assign(variant, x[:20])[0].tolist() == expected


def test_calls_from_several_threads_are_independent():
    x = make_rows("random", 2000, 16, 1)
    wanted = kernels.kmeans(x, 30, seed=1)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: kernels.kmeans(x, 30, seed=1, threads=2), range(8)):
            assert found[0].tobytes() == wanted[0].tobytes() and found[2] == wanted[2]
