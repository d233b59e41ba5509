"""k-means, by the time of one iteration, and encoding by product quantisation.

Floor of k-means: products of all rows with all centroids at the measured rate, or two readings of the rows;
of encoding: reading the float32 rows. Rows of k-means come from the host, and an iteration is the difference
between a long and a short training. Ours ends when nothing changes any more, so the long one is as long as
its last iteration changes something.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import data
import numpy as np
import peers
from harness import Bench, Result, target

from warpmem.index import kernels

SEED, ROWS = 31, 32
SHORT = 2
BITS = 4


def run(bench: Bench) -> None:
    sizes = bench.sizes
    n, dim = sizes.cluster_rows, sizes.wide
    for k in sizes.clusters:

        def clusters(result: Result, k: int = k) -> None:
            _kmeans(bench, result, n, dim, k)

        bench.workload("training", f"k-means, one iteration, {n} x {dim}, K {k}", 15.0, clusters)
    n, pq_dim = sizes.encode_rows, dim // 8
    name = f"PQ encode, {n} x {dim}, {pq_dim} codes of {BITS} bits"
    bench.workload("training", name, 15.0, lambda result: _encode(bench, result, n, dim, pq_dim))


def _kmeans(bench: Bench, result: Result, n: int, dim: int, k: int) -> None:
    device, xp = bench.device, bench.device.xp
    rows = data.mixture(xp, n, dim, SEED)
    host = np.ascontiguousarray(data.to_host(rows))
    ours: Any = kernels
    if not device.reference:
        ours = device.backend().kernels()

    def train(iterations: int) -> Any:
        return ours.kmeans(
            host, k, iterations=iterations, seed=1, init="random", sample=None, spherical=False
        )

    long_, (centroids, index, objective) = still_moving(train, bench.sizes.iterations)
    again, values = ours.kmeans_assign(host, np.asarray(centroids), spherical=False)
    some = np.linspace(0, n - 1, min(n, 300)).astype(np.int64)
    wide, centres = host[some].astype(np.float64), np.asarray(centroids).astype(np.float64)
    distances = ((wide**2).sum(1)[:, None] - 2.0 * wide @ centres.T + (centres**2).sum(1)).min(axis=1)
    near = bool(np.allclose(np.asarray(values)[some], distances, rtol=1e-9, atol=1e-9))
    bench.require(result, near and np.isfinite(objective) and len(index) == len(again) == n)
    rounds = 3
    short, long = (
        device.milliseconds(lambda count=count: train(count), rounds, 6.0) for count in (SHORT, long_)
    )
    result["whole_ms"], result["iterations"] = long, long_
    # A dry run's iterations are too short for a difference.
    result["ours_ms"] = long / long_ if device.dry else an_iteration(short, long, long_ - SHORT)
    floor = max(bench.multiplying(2.0 * n * k * dim), 2.0 * 4.0 * n * dim / bench.copy)
    result["floor_ms"] = floor * 1e3
    start = xp.asarray(host[np.random.default_rng(1).choice(n, k, replace=False)])
    for name, make in peers.lloyd(device, rows, start, long_ - SHORT).items():
        each = {name: lambda make=make: device.milliseconds(make(), rounds) / (long_ - SHORT)}
        bench.peers(result, each)
    target(result, "time / floor", 2.0, result["ours_ms"] / result["floor_ms"], most=True)


def still_moving(train: Callable[[int], Any], iterations: int) -> tuple[int, Any]:
    """(iterations, what they made): so many, or half of them and so on, that the last one changed something.
    Unavailable when there is no such number above SHORT."""
    while iterations > SHORT:
        made = train(iterations)
        if not np.array_equal(np.asarray(made[0]), np.asarray(train(iterations - 1)[0])):
            return iterations, made
        iterations //= 2
    raise peers.Unavailable(f"the training ends within {SHORT} iterations, or before half of those tried")


def an_iteration(short: float, long: float, between: int) -> float:
    """Milliseconds of one of the iterations `between` two trainings. Unavailable when noise hides them."""
    if long <= short:
        raise peers.Unavailable(f"{between} iterations more took {long - short:.3f} ms: noise")
    return (long - short) / between


def _encode(bench: Bench, result: Result, n: int, dim: int, pq_dim: int) -> None:
    device, xp = bench.device, bench.device.xp
    rows = data.mixture(xp, n, dim, ROWS)
    host = np.ascontiguousarray(data.to_host(rows))
    books = kernels.pq_train(host[: 1 << 14], pq_dim, BITS, iterations=4, seed=1, threads=device.threads)
    if device.reference:

        def encode() -> Any:
            return kernels.pq_encode(host, books, backend="numpy")

    else:
        encoder, there = device.entry("Encoder")(books, n), device.arrays(rows)

        def encode() -> Any:
            return encoder(there)

    codes = data.to_host(encode())
    some = slice(0, 2000)
    right = np.array_equal(codes[some], kernels.pq_encode(host[some], books, backend="numpy"))
    bench.require(result, right)
    bench.compare(result, encode, 4.0 * n * dim / bench.copy, {})
    target(result, "time / floor", 2.0, result["ours_ms"] / result["floor_ms"], most=True)
