"""What only a CUDA device can show; skipped where there is none. bench/gpu/run.sh runs it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import warpmem
from device_backends import ON_DEVICE, REASONS
from pools import make_rows
from warpmem.cli import probe, selftest
from warpmem.index import kernels
from warpmem.index.numpy_ref import NumpyBackend

NAMES = ("cuda", "cupy", "numba-cuda")
CUDA = probe.cuda()


def on_device(name: str) -> Any:
    if name not in ON_DEVICE:
        pytest.skip(f"{name} does not compute on a device here: {REASONS[name]}")
    return ON_DEVICE[name]


def test_every_backend_runs_or_says_why_not():
    assert set(ON_DEVICE) | set(REASONS) == set(NAMES)
    assert all(REASONS.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_self_test_passes(name: str):
    assert selftest.check(on_device(name)) is None


def test_every_family_of_kernels_is_the_hosts():
    if not CUDA["devices"]:
        pytest.skip(f"no CUDA device: {CUDA['reason']}")
    for device in CUDA["devices"]:
        test = device["self_test"]
        assert test["passed"], {n: e for n, e in test["families"].items() if e["mismatches"]}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("storage", ["f32", "f16", "int8"])
@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_many_rows_and_queries_have_the_references_bits(name: str, storage: str, metric: str):
    backend = on_device(name)
    x = make_rows("duplicates", 20_000, 96, 1)
    queries = make_rows("random", 70, 96, 2)
    ids = np.arange(len(x), dtype=np.int64)
    segments = [(q, q % 3, 0, ((0, 0, 10, 900),) if q % 2 else (), (), None) for q in range(70)]
    results = []
    for which in (NumpyBackend(), backend):
        pool = which.pool(96, 1, storage=storage, metric=metric)
        pool.apply([], ids % 3, ids, (ids // 2).astype(np.uint32), (ids % 1000)[:, None], x)
        removes = [(int(i) % 3, int(i)) for i in ids[::5]]
        nothing = ids[:0]
        pool.apply(removes, nothing, nothing, nothing.astype(np.uint32), nothing[:, None], x[:0])
        if hasattr(pool, "warm"):
            pool.warm(pool.lists(), wait=True)
        results.append([part.tobytes() for part in pool.scan(queries, segments, 50)])
    assert results[0] == results[1]


def test_vectors_of_hits_reach_torch_on_the_device():
    torch = pytest.importorskip("torch")
    if not CUDA["devices"]:
        pytest.skip(f"no CUDA device: {CUDA['reason']}")
    with warpmem.open(embedder="hashing", backend="cuda") as memory:
        memory.add([f"note {i} of the harbour" for i in range(200)], user_id="u")
        memory.warm(user_id="u", wait=True)
        there = memory.search("note 7", user_id="u", k=16, return_vectors="dlpack")
        here = memory.search("note 7", user_id="u", k=16, return_vectors="numpy")
    keys = torch.from_dlpack(there.vectors)
    assert keys.is_cuda and keys.dtype == torch.float32
    np.testing.assert_array_equal(keys.cpu().numpy(), here.vectors)


@pytest.mark.parametrize("spherical", [False, True])
def test_many_rows_are_clustered_as_by_the_host(spherical: bool):
    backend = on_device("cuda")
    turns: list[None] = []
    x = make_rows("random", 20_000, 96, 1)
    options = {"iterations": 8, "seed": 2, "spherical": spherical}
    found = backend.kernels(lambda: turns.append(None)).kmeans(x, 700, **options)
    for part, wanted in zip(found, kernels.kmeans(x, 700, backend="cpu", threads=8, **options), strict=True):
        assert np.asarray(part).tobytes() == np.asarray(wanted).tobytes()
    assert turns


@pytest.mark.parametrize("pq_bits", [4, 8])
def test_codebooks_are_those_of_the_host(pq_bits: int):
    backend = on_device("cuda")
    turns: list[None] = []
    x = make_rows("random", 20_000, 96, 2)
    options = {"iterations": 8, "seed": 3}
    found = backend.kernels(lambda: turns.append(None)).pq_train(x, 24, pq_bits, **options)
    wanted = kernels.pq_train(x, 24, pq_bits, backend="cpu", threads=8, **options)
    assert np.asarray(found).tobytes() == wanted.tobytes()
    assert turns
