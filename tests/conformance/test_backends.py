"""One suite, every backend: equal ids and bits on random and adversarial data, and the oracle's answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from oracle import Oracle, Weights, exact_dot, image_of, magnitude, round_float32, score_of, ulp32
from pools import BACKENDS, N_COLUMNS, make_pools, make_rows, scan_all
from warpmem.protocols import RowPool
from warpmem.records import Segment

NOW = 1_750_000_000_000_000
DAY = 86_400_000_000.0


KINDS = ["random", "integers", "zeros", "denormals", "huge", "mixed", "equal", "duplicates", "cancelling"]


def fill(pools: dict[str, RowPool], vectors: NDArray[np.float32], seed: int, n_lists: int = 2) -> Oracle:
    """The same rows in every pool and in the oracle, spread over lists, with ordinals that repeat."""
    rng = np.random.default_rng(seed + 1)
    n = len(vectors)
    list_ids = rng.integers(0, n_lists, n)
    row_ids = rng.permutation(n).astype(np.int64)
    ordinals = rng.integers(0, max(1, n // 2), n).astype(np.uint32)
    columns = np.empty((n, N_COLUMNS), np.int64)
    columns[:, 0] = rng.integers(-5, 6, n)
    columns[:, 1] = NOW - rng.integers(-10, 400, n) * int(DAY)
    columns[:, 2] = [image_of(p) for p in rng.uniform(-1, 1, n)]
    columns[rng.random(n) < 0.1, 2] = -(1 << 63)  # no priority
    for pool in pools.values():
        pool.apply([], list_ids, row_ids, ordinals, columns, vectors)
    oracle = Oracle()
    for i in range(n):
        oracle.add(list_ids[i], row_ids[i], ordinals[i], columns[i], vectors[i])
    return oracle


def check_oracle(
    oracle: Oracle,
    query: NDArray[np.float32],
    segments: list[tuple[Any, ...]],
    k: int,
    weights: Weights,
    result: tuple[NDArray[Any], ...],
    q: int = 0,
) -> None:
    """Every returned row is the oracle's to one unit in the last place, and no better row is left out."""
    scores, similarities, list_ids, row_ids, counts = (part[q] for part in result)
    wanted = oracle.scan(query.tolist(), segments, k, weights)
    assert counts == len(wanted)
    assert (row_ids[counts:] == -1).all() and (list_ids[counts:] == -1).all()
    assert np.isneginf(scores[counts:]).all() and np.isneginf(similarities[counts:]).all()
    assert len(set(zip(list_ids[:counts], row_ids[:counts], strict=True))) == counts
    for i in range(counts):
        row = oracle.lists[int(list_ids[i])][int(row_ids[i])]
        exact = exact_dot(query.tolist(), row.vector)
        slack = 2.0**-48 * magnitude(query.tolist(), row.vector)  # of a float64 sum in any order
        if np.isfinite(similarities[i]):
            assert abs(float(similarities[i]) - exact) <= ulp32(exact) + slack
        else:
            assert similarities[i] == round_float32(exact)
        score = score_of(float(similarities[i]), row.columns, weights)
        assert scores[i] == pytest.approx(score, rel=1e-6, abs=1e-45) or scores[i] == round_float32(score)
        # Position by position the scores agree, so nothing better was missed.
        other = wanted[i][0]
        margin = ulp32(other) + slack * abs(weights.similarity) + 1e-12 * abs(other)
        assert scores[i] == round_float32(other) or abs(float(scores[i]) - other) <= margin + ulp32(other)


SIZES = [
    (0, 33, 1), (1, 1, 1), (63, 7, 31), (64, 33, 32), (65, 255, 33), (300, 32, 256), (300, 96, 257),
    (2047, 7, 4096), (2048, 33, 10), (2049, 1, 257), (4097, 64, 10),
]  # fmt: skip


@pytest.mark.parametrize(("n", "dim", "k"), SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_same_bits_everywhere(kind: str, n: int, dim: int, k: int) -> None:
    seed = n * 1000 + dim
    pools = make_pools(dim)
    oracle = fill(pools, make_rows(kind, n, dim, seed), seed)
    queries = make_rows(kind, 3, dim, seed + 7)
    segments: list[Segment] = [
        (q, list_id, list_id, [], [], None) for q in range(3) for list_id in (0, 1, 99)
    ]
    result = scan_all(pools, queries, segments, k)
    if n <= 300:
        for q in range(3):
            mine = [s for s in segments if s[0] == q]
            check_oracle(oracle, queries[q], mine, k, Weights(), result, q)
        ranked = scan_all(
            pools, queries, segments, k, w_similarity=0.7, w_recency=0.3, w_priority=0.2, half_life=30 * DAY,
            recency_column=1, priority_column=2, now=NOW,
        )  # fmt: skip
        weights = Weights(0.7, 0.3, 0.2, 30 * DAY, 1, 2, NOW)
        check_oracle(oracle, queries[0], [s for s in segments if s[0] == 0], k, weights, ranked, 0)


@pytest.mark.parametrize("seed", range(4))
def test_exact_ids_where_arithmetic_is_exact(seed: int) -> None:
    """Small integers make every sum exact, so the oracle's order, ties included, is the order."""
    pools = make_pools(20)
    oracle = fill(pools, make_rows("integers", 500, 20, seed), seed, n_lists=3)
    query = make_rows("integers", 1, 20, seed + 50)
    words = np.random.default_rng(seed).integers(0, 1 << 63, 5).astype(np.uint64)  # rows 320.. lie outside
    segments: list[tuple[Any, ...]] = [
        (0, 0, 2, [(0, 0, -2, 3)], [], None),
        (0, 1, 0, [(0, 1, 1, 4), (1, 0, NOW - 200 * int(DAY), NOW)], [9, -4, 0, 2, -9], None),
        (0, 2, 1, [], [], words),
    ]
    for k in (1, 31, 257, 4096):
        for low in (-np.inf, 0.0, 5.0):
            scores, _, list_ids, row_ids, counts = scan_all(pools, query, segments, k, min_similarity=low)
            wanted = oracle.scan(query[0].tolist(), segments, k, Weights(min_similarity=low))
            got = list(zip(scores[0].tolist(), row_ids[0].tolist(), list_ids[0].tolist(), strict=True))
            assert got[: counts[0]] == [(row[0], row[3], row[4]) for row in wanted]
            assert counts[0] == len(wanted)


def test_canonical_sum_is_the_rounded_exact_sum_on_unit_vectors() -> None:
    dim, n = 384, 400
    x = BACKENDS["numpy"].normalize(make_rows("random", n + 1, dim, 5))
    pools = make_pools(dim, 0)
    for pool in pools.values():
        ids = np.arange(n)
        pool.apply([], np.zeros(n, np.int64), ids, ids.astype(np.uint32), np.zeros((n, 0), np.int64), x[1:])
    _, similarities, _, row_ids, _ = scan_all(pools, x[:1], [(0, 0, 0, [], [], None)], n)
    for row_id, similarity in zip(row_ids[0], similarities[0], strict=True):
        assert similarity == round_float32(exact_dot(x[0].tolist(), x[1 + row_id].tolist()))


@pytest.mark.parametrize("kind", ["random", "denormals", "huge", "mixed", "integers"])
@pytest.mark.parametrize("dim", [1, 7, 32, 255, 384])
def test_normalize(kind: str, dim: int) -> None:
    x = make_rows(kind, 50, dim, dim)
    x[np.abs(x).max(axis=1) == 0, 0] = 1
    units = {name: backend.normalize(x) for name, backend in BACKENDS.items()}
    assert len({unit.tobytes() for unit in units.values()}) == 1
    lengths = np.sqrt((units["numpy"].astype(np.float64) ** 2).sum(axis=1))
    assert np.abs(lengths - 1).max() < 1e-6


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", list(BACKENDS))
def test_normalize_names_the_bad_row(name: str, bad: float) -> None:
    x = make_rows("random", 9, 40, 1)
    x[6] = 0
    x[6, 33] = bad
    with pytest.raises(ValueError, match="row 6 "):
        BACKENDS[name].normalize(x)


def test_ties_follow_group_then_ordinal_then_row() -> None:
    pools = make_pools(4)
    vector = np.ones((1, 4), np.float32)
    rows = [(1, 10, 3), (1, 11, 3), (1, 12, 1), (2, 5, 0), (2, 6, 9), (3, 4, 0)]  # list, row, ordinal
    for pool in pools.values():
        for list_id, row_id, ordinal in rows:
            pool.apply(
                [], np.array([list_id]), np.array([row_id]), np.array([ordinal], np.uint32),
                np.zeros((1, N_COLUMNS), np.int64), vector,
            )  # fmt: skip
    segments: list[Segment] = [
        (0, 1, 7, [], [], None),
        (0, 2, 1 << 31, [], [], None),
        (0, 3, 0, [], [], None),
    ]
    for k in range(1, 8):
        _, _, _, row_ids, counts = scan_all(pools, vector, segments, k)
        assert row_ids[0, : counts[0]].tolist() == [4, 12, 10, 11, 5, 6][:k]


def test_extreme_ranking_is_the_same_everywhere() -> None:
    """Infinite similarity, saturating ages, the edges of 2^x, odd priorities, weights of every sign."""
    pools = make_pools(2)
    top = (1 << 63) - 1
    ages = [0, 1, 1021, 1022, 1023, top, -top - 1, NOW]
    priorities = [
        0,
        image_of(-0.0),
        image_of(1e308),
        image_of(-1e308),
        image_of(float("inf")),
        top,
        -top - 1,
        5,
    ]
    n = len(ages) * len(priorities)
    columns = np.array(
        [[0, -age if age != -top - 1 else age, p] for age in ages for p in priorities], np.int64
    )
    vectors = np.full((n, 2), 3e38, np.float32) * np.where(np.arange(n) % 3 == 0, -1, 1)[:, None].astype(
        np.float32
    )
    vectors[::5] = 1e-45
    ids = np.arange(n)
    for pool in pools.values():
        pool.apply([], np.zeros(n, np.int64), ids, ids.astype(np.uint32), columns, vectors)
    query = np.array([[3e38, 1.0]], np.float32)
    for w_similarity in (0.0, 1.0, -1.0, 1e300):
        for now in (0, top, -top - 1, NOW):
            for half_life in (1.0, 1e-300, 1e300, 0.37):
                scores = scan_all(
                    pools, query, [(0, 0, 0, [], [], None)], 4096, w_similarity=w_similarity, w_recency=-0.3,
                    w_priority=0.9, half_life=half_life, recency_column=1, priority_column=2, now=now,
                )[0]  # fmt: skip
                assert not np.isnan(scores).any()


def test_negative_zero_scores_become_zero() -> None:
    pools = make_pools(1)
    one = np.zeros(1, np.int64)
    for pool in pools.values():
        pool.apply(
            [],
            one,
            one,
            np.zeros(1, np.uint32),
            np.zeros((1, N_COLUMNS), np.int64),
            np.zeros((1, 1), np.float32),
        )
    scores = scan_all(pools, np.ones((1, 1), np.float32), [(0, 0, 0, [], [], None)], 1, w_similarity=-1.0)[0]
    assert scores.tobytes() == np.zeros(1, np.float32).tobytes()


def test_order_of_rows_and_batch_does_not_matter() -> None:
    dim, n = 48, 700
    vectors = make_rows("mixed", n, dim, 3)
    queries = make_rows("random", 9, dim, 4)
    ids = np.arange(n)
    expected: list[bytes] | None = None
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(n)
        pools = make_pools(dim, 0)
        for pool in pools.values():
            for part in np.array_split(order, 1 + 5 * seed):
                zeros = np.zeros(len(part), np.int64)
                pool.apply(
                    [],
                    zeros,
                    ids[part],
                    ids[part].astype(np.uint32),
                    np.zeros((len(part), 0), np.int64),
                    vectors[part],
                )
        batch = [
            part.tobytes()
            for part in scan_all(pools, queries, [(q, 0, 0, [], [], None) for q in range(9)], 33)
        ]
        single = [scan_all(pools, queries[q : q + 1], [(0, 0, 0, [], [], None)], 33) for q in range(9)]
        assert batch == [b"".join(one[i].tobytes() for one in single) for i in range(5)]
        expected = expected or batch
        assert batch == expected
