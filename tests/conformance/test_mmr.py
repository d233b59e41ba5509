"""mmr on every instruction set, against values computed by matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kernel_runs import run
from pools import make_rows
from warpmem.errors import InputError
from warpmem.index import kernels

KINDS = ["random", "integers", "zeros", "denormals", "huge", "mixed", "equal", "duplicates", "cancelling"]


def diversified(x: NDArray[Any], relevance: NDArray[Any], k: int, weight: float) -> list[list[float]]:
    """Values of every candidate at every step, in float64 by matrix products; nan for those not there."""
    products = x.astype(float) @ x.astype(float).T
    chosen: list[int] = []
    steps = []
    for _ in range(k):
        values = weight * np.where(np.isinf(relevance), np.nan, relevance.astype(float))
        if chosen:
            values = values - (1 - weight) * products[:, chosen].max(axis=1)
        values[chosen] = np.nan
        steps.append(values.tolist())
        if np.isnan(values).all():
            break
        order = relevance.astype(float) if not chosen else values
        chosen.append(int(np.nanargmax(np.where(np.isnan(values), np.nan, order))))
    return steps


@pytest.mark.parametrize("n", [0, 1, 2, 31, 33, 300, 1024])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0, 1])
def test_mmr_chooses_the_best_value_each_time(n: int, weight: float):
    rng = np.random.default_rng(n)
    x = make_rows("random", 2 * n, 48, n + 1).reshape(2, n, 48)
    relevance = rng.standard_normal((2, n)).astype(np.float32)
    relevance[1, ::3] = -np.inf
    k = min(12, n + 2)
    values, indexes = run(kernels.mmr, x, relevance, k, weight=weight)
    for p in range(2):
        there = int(np.isfinite(relevance[p]).sum())
        count = min(k, there)
        assert (indexes[p, count:] == -1).all() and (values[p, count:] == -np.inf).all()
        assert len(set(indexes[p, :count].tolist())) == count
        for step, at in enumerate(indexes[p, :count].tolist()):
            expected = np.array(diversified(x[p], relevance[p], step + 1, weight)[-1])
            assert values[p, step] == pytest.approx(expected[at], rel=1e-9, abs=1e-9)
            if step > 0:
                assert expected[at] >= np.nanmax(expected) - 1e-9
            else:
                assert relevance[p, at] == relevance[p].max()


@pytest.mark.parametrize("kind", KINDS)
def test_mmr_is_the_same_everywhere(kind: str):
    x = make_rows(kind, 3 * 40, 33, 9).reshape(3, 40, 33)
    relevance = make_rows(kind, 3, 40, 10)
    for weight in (0.0, 0.7, 1.0):
        run(kernels.mmr, x, relevance, 25, weight=weight)
    run(kernels.mmr, np.broadcast_to(x[:1], (200, 40, 33)), np.zeros((200, 40)), 40)


def test_mmr_prefers_what_differs():
    """Ten near copies of the best row and one other, far less relevant: both ends are chosen first."""
    x = np.zeros((1, 11, 4), np.float32)
    x[0, :10, 0], x[0, 10, 1] = 1.0, 1.0
    relevance = np.array([[0.9, *[0.89] * 9, 0.3]])
    values, indexes = run(kernels.mmr, x, relevance, 3, weight=0.5)
    assert indexes.tolist() == [[0, 10, 1]]
    assert values[0] == pytest.approx([0.45, 0.15, -0.055])
    assert run(kernels.mmr, x, relevance, 3, weight=1.0)[1].tolist() == [[0, 1, 2]]


def _bad(shape: tuple[int, ...], value: float) -> NDArray[Any]:
    array = np.ones(shape, np.float32)
    array[-1, ..., -1] = value
    return array


BAD: list[tuple[Any, Any, Any, dict[str, Any], str]] = [
    (np.ones((2, 3)), np.ones((2, 3)), 1, {}, "expected 3 axes, not 2"),
    (np.ones((1, 1025, 1)), np.ones((1, 1025)), 1, {}, "at most 1024 candidates, not 1025"),
    (np.ones((1, 3, 0)), np.ones((1, 3)), 1, {}, "dimensions, not 0"),
    (np.ones((2, 3, 1)), np.ones((2, 4)), 1, {}, "relevance: expected shape"),
    (np.ones((2, 3, 1)), np.ones((2, 3)), 0, {}, "k must be within 1 and 1024, not 0"),
    (np.ones((2, 3, 1)), np.ones((2, 3)), 1, {"weight": 1.5}, "weight must be within 0 and 1"),
    (np.ones((2, 3, 1)), np.ones((2, 3)), 1, {"weight": np.nan}, "weight must be within"),
    (np.ones((2, 3, 1)), np.ones((2, 3)), 1, {"weight": True}, "number, not bool"),
    (np.ones((2, 3, 1)), np.ones((2, 3)), 1, {"weight": "a"}, "number, not str"),
    (_bad((2, 3, 1), np.nan), np.ones((2, 3)), 1, {}, "vectors: row 1 holds"),
    (np.ones((2, 3, 1)), _bad((2, 3), np.nan), 1, {}, "relevance: row 1 holds"),
    (np.ones((2, 3, 1)), _bad((2, 3), np.inf), 1, {}, "relevance: row 1 holds"),
    (np.ones((2, 3, 1)), np.ones((2, 3)), 1, {"backend": "numba"}, "choose auto, cpu or numpy"),
]


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_arguments(case: int, backend: str):
    vectors, relevance, k, options, message = BAD[case]
    with pytest.raises(InputError, match=message):
        kernels.mmr(vectors, relevance, k, **{"backend": backend, **options})
