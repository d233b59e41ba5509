"""The kernels of warpmem.index.kernels on numba and cupy: what `cpu` computes, and what it refuses."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from pools import ARRAYS, make_rows
from warpmem.errors import BackendUnavailable, InputError, InvalidVector
from warpmem.index import kernel_arguments, kernels
from warpmem.index.cupy_backend import CupyBackend


def calls(backend: str) -> list[Any]:
    """Everything that the backends beside cpu and numpy declare, on ordinary and on empty data."""
    options: Any = {"backend": backend, "threads": 2}
    x = make_rows("random", 300, 24, 1).astype(np.float64)
    books = kernels.pq_train(x, 6, 4, iterations=3, seed=2, **options)
    eight = np.random.default_rng(3).standard_normal((4, 256, 6)).astype(np.float32)
    results: list[Any] = [books]
    for codebooks in (books, eight):
        pq_dim, pq_bits = len(codebooks), 4 if codebooks.shape[1] == 16 else 8
        luts = kernels.pq_lut(x[:3], codebooks)
        for rows in (x, x[:0]):
            codes = kernels.pq_encode(rows, codebooks, **options)
            results += [codes, *kernels.pq_scan(codes, luts, 9, **options)]
            blocks = kernels.pq_interleave(codes, pq_dim, pq_bits)
            results += kernels.pq_scan(blocks, luts, 9, rows=len(rows), **options)
    for spherical in (False, True):
        centroids, owner, objective = kernels.kmeans(
            x, 20, iterations=4, seed=5, spherical=spherical, **options
        )
        results += [centroids, owner, np.float64(objective)]
        results += kernels.kmeans_assign(x[:50], centroids, spherical=spherical, **options)
        results += kernels.kmeans_assign(x[:0], centroids, spherical=spherical, **options)
    return results


OTHERS = [
    pytest.param(
        "numba",
        marks=pytest.mark.skipif(find_spec("numba") is None, reason="the package numba is not installed"),
    ),
    "cupy",
]


@pytest.mark.parametrize("arrays", ARRAYS)
@pytest.mark.parametrize("backend", OTHERS)
def test_other_backends_take_and_refuse_what_cpu_does(
    backend: str, arrays: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kernel_arguments._OPERATIONS, "cupy", lambda: ARRAYS[arrays])
    wanted = calls("cpu")
    for found, expected in zip(calls(backend), wanted, strict=True):
        assert found.dtype == expected.dtype and found.shape == expected.shape
        assert found.tobytes() == expected.tobytes()
    x = np.ones((30, 4), np.float32)
    with pytest.raises(InvalidVector, match="NaN"):
        kernels.kmeans(np.full((30, 4), np.nan), 3, backend=backend)
    with pytest.raises(InputError, match="pq_dim must divide"):
        kernels.pq_train(x, 3, 4, backend=backend)
    with pytest.raises(InputError, match="threads must be within"):
        kernels.kmeans(x, 3, backend=backend, threads=0)
    with pytest.raises(InputError, match=f"isa forces .* backend {backend} has none"):
        kernels.kmeans(x, 3, backend=backend, isa="serial")
    for refused in (
        lambda: kernels.select_k(x, 1, backend=backend),
        lambda: kernels.pq_decode(np.zeros((1, 2), np.uint8), np.ones((2, 256, 2)), backend=backend),
    ):
        with pytest.raises(InputError, match=f"backend {backend} has kmeans, .* choose auto, cpu or numpy"):
            refused()
    with pytest.raises(InputError, match="backend must be auto, cpu, numpy, numba, cupy or cuda, not 'gpu'"):
        kernels.kmeans(x, 3, backend="gpu")  # type: ignore[arg-type]


def test_missing_backends_say_how_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kernel_arguments._OPERATIONS, "cupy", CupyBackend)
    monkeypatch.setattr("warpmem.index.cupy_backend.find_spec", lambda name: None)
    with pytest.raises(BackendUnavailable, match="cupy is not installed"):
        kernels.kmeans(np.ones((9, 2), np.float32), 2, backend="cupy")
