"""The host alone against the device: searches by the size of the collection, embedding, and what both cost.

The embedding is a transformer encoder of MiniLM-L6's size with random weights, in float32 on the host and
float16 on the device, by the libraries' own products. Cost is time at the price of an hour (measure.py
--cpu-hour, --gpu-hour).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import checks
import data
import numpy as np
from harness import Bench, Once, Result
from ours import Ours, whole

from warpmem.index.cpu import CpuBackend

SEED, QUERIES, K = 61, 62, 10
DIM = 384
BATCHES = (1, 64)
WIDTH, HEADS, INNER = 384, 12, 1536


def run(bench: Bench) -> None:
    dim = 24 if bench.device.dry else DIM
    for n in bench.sizes.collections:
        names = {
            batch: f"host or device, {batch} {'query' if batch == 1 else 'queries'}, {n} rows, d {dim}"
            for batch in BATCHES
        }
        if not any(bench.wanted(name) for name in names.values()):
            continue
        pools = Once(partial(_pools, bench, n, dim))
        for batch, name in names.items():
            bench.workload(
                "crossover", name, 4.0 + n / 2e5,
                lambda result, batch=batch, pools=pools: _search(bench, result, dim, batch, *pools()),
            )  # fmt: skip
        pools.clear()
        bench.device.release()
    sizes = bench.sizes
    bench.workload(
        "crossover", f"embedding, {sizes.texts} texts of {sizes.tokens} tokens, MiniLM's size", 15.0,
        lambda result: _embed(bench, result),
    )  # fmt: skip


def _pools(bench: Bench, n: int, dim: int) -> tuple[Any, Ours, Any]:
    rows = data.mixture(bench.device.xp, n, dim, SEED)
    parts = [(i, rows[i : i + data.CHUNK]) for i in range(0, n, data.CHUNK)]
    host = CpuBackend().pool(dim, 1, storage="f16", threads=bench.device.threads)
    for first, part in parts:
        ids = np.arange(first, first + len(part))
        host.apply(
            [], 0 * ids, ids, ids.astype(np.uint32), (ids % 10)[:, None],
            np.ascontiguousarray(data.to_host(part)),
        )  # fmt: skip
    return rows, Ours(bench.device, dim).fill(parts), host


def _search(bench: Bench, result: Result, dim: int, batch: int, rows: Any, ours: Ours, host: Any) -> None:
    xp = bench.device.xp
    queries = data.mixture(xp, batch, dim, QUERIES, centres=SEED)
    asked, segments = np.ascontiguousarray(data.to_host(queries)), whole(batch)
    ours.prove(queries, segments, 1, K)
    found, theirs = ours.pool.scan(asked, segments, K), host.scan(asked, segments, K)
    everyone = np.arange(len(rows))
    right = checks.scan(xp, found, queries, lambda q: (everyone, rows), K, checks.spread(batch, 3))
    same = all(a.tobytes() == b.tobytes() for a, b in zip(found, theirs, strict=True))
    bench.require(result, right and same)
    result |= {"rows": len(rows), "batch": batch}
    # Queries and results of both lie on the host, as those of a memory do.
    others = {"host": lambda: lambda: host.scan(asked, segments, K)}
    bench.compare(result, lambda: ours.pool.scan(asked, segments, K), None, others)
    _cost(bench, result, batch)


def _cost(bench: Bench, result: Result, done: int) -> None:
    """What a million cost on either side, one after the other."""
    for name, milliseconds, hour in (
        ("device", result["ours_ms"], bench.prices.gpu_hour),
        ("host", result["peers"].get("host", {}).get("ms"), bench.prices.cpu_hour),
    ):
        if milliseconds is not None:
            result[f"{name}_cost_per_million"] = milliseconds / done * 1e6 / 3.6e6 * hour


def _embed(bench: Bench, result: Result) -> None:
    sizes, xp = bench.sizes, bench.device.xp
    random = np.random.default_rng(SEED)
    tokens = random.standard_normal((sizes.texts, sizes.tokens, WIDTH)).astype(np.float32)
    shapes = ((WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, INNER), (INNER, WIDTH))
    weights = [
        [random.standard_normal(shape).astype(np.float32) / np.float32(np.sqrt(shape[0])) for shape in shapes]
        for _ in range(sizes.layers)
    ]
    kind = np.float32 if bench.device.dry else xp.float16
    there = [[xp.asarray(w, kind) for w in layer] for layer in weights]
    wide = xp.asarray(tokens)  # a model looks its tokens up where it computes

    def ours() -> Any:
        return _encode(xp, wide.astype(kind), there)

    few = slice(0, min(4, sizes.texts))
    expected, got = _encode(np, tokens[few], weights), np.asarray(data.to_host(ours()))[few]
    cosines = (expected * got.astype(np.float32)).sum(axis=1)
    bench.require(result, bool((cosines > 0.999).all()))
    bench.compare(result, ours, None, {"host": lambda: lambda: _encode(np, tokens, weights)})
    result["texts_per_second"] = sizes.texts / result["ours_ms"] * 1e3
    if "ms" in result["peers"]["host"]:
        result["host_texts_per_second"] = sizes.texts / result["peers"]["host"]["ms"] * 1e3
    _cost(bench, result, sizes.texts)


def _encode(xp: Any, x: Any, weights: Any) -> Any:
    """(texts, tokens, WIDTH) through the layers, the mean over tokens, unit length in float32."""
    texts, tokens, _ = x.shape
    for qkv, out, up, down in weights:
        parts = (_norm(xp, x) @ qkv).reshape(texts, tokens, 3, HEADS, WIDTH // HEADS).transpose(2, 0, 3, 1, 4)
        q, k, v = (xp.ascontiguousarray(part) for part in parts)
        scores = (q @ k.transpose(0, 1, 3, 2)).astype(xp.float32) / np.float32(np.sqrt(WIDTH // HEADS))
        scores = xp.exp(scores - scores.max(axis=-1, keepdims=True))
        scores = (scores / scores.sum(axis=-1, keepdims=True)).astype(x.dtype)
        mixed = xp.ascontiguousarray((scores @ v).transpose(0, 2, 1, 3)).reshape(texts, tokens, WIDTH)
        x = x + mixed @ out
        inner = _norm(xp, x) @ up
        x = x + xp.maximum(inner, 0) @ down
    mean = x.astype(xp.float32).mean(axis=1)
    return mean / xp.linalg.norm(mean, axis=1, keepdims=True)


def _norm(xp: Any, x: Any) -> Any:
    wide = x.astype(xp.float32)
    wide = wide - wide.mean(axis=-1, keepdims=True)
    return (wide / xp.sqrt((wide * wide).mean(axis=-1, keepdims=True) + np.float32(1e-5))).astype(x.dtype)
