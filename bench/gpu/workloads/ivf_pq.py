"""An inverted file with product-quantisation codes, refined exactly, at recall@10 0.95, by batch size.

Cells are trained and assigned on the device, codebooks on the host, as many cells and bytes of codes as the
library chooses; cuVS gets as many of both. Both sides are tuned by tuning.py on the queries that are timed,
and judged from host arrays to host arrays; what cuVS takes from device arrays to device arrays is told.
Floor: the codes of the probed cells at 24.7 G codes of 96 bytes a second, the rate at which bank conflicts of
the lookup tables bind on an H200, or the bytes of those codes, whichever takes longer.
"""

from __future__ import annotations

import time
from typing import Any

import checks
import data
import numpy as np
import peers
import tuning
from harness import Bench, Once, Result, target
from ours import whole
from peer_process import ON_DEVICE

from warpmem.index import ivf, kernels
from warpmem.index.ivf_plan import padded

SEED, QUERIES, K, RECALL = 11, 12, 10, 0.95
CODE_RATE = 24.7e9 * 96
"""Bytes of codes a second that the tables of one H200 can serve."""


def run(bench: Bench) -> None:
    sizes = bench.sizes
    batches = sizes.batches
    names = {
        batch: f"IVF-PQ, {batch} {'query' if batch == 1 else 'queries'}, {sizes.ivf_rows} rows, "
        f"d {sizes.ivf_dim}, recall {RECALL}"
        for batch in batches
    }
    if not any(bench.wanted(name) for name in names.values()):
        return
    built, asked = Once(lambda: _build(bench)), peers.Asked()

    def cuvs(case: str, pool: Any) -> float:
        cells = pool.owners[0].n_cells
        spec = {
            "rows": sizes.ivf_rows, "dim": sizes.ivf_dim, "seed": SEED, "query_seed": QUERIES,
            "queries": sizes.ivf_queries, "k": K, "recall": RECALL, "cells": cells,
            "pq_dim": pool.codebooks.shape[0] // 2, "batches": list(batches),
            "fraction": min(1.0, 100.0 * cells / sizes.ivf_rows),
        }  # fmt: skip
        told = asked.ask("cuvs", "ivf_pq", spec, bench.for_peers(240.0, 0.7), case)  # once for all batches
        return float(told["ms"])

    for batch, name in names.items():

        def body(result: Result, batch: int = batch) -> None:
            pool, queries, settings, told_of_build = built()
            result |= told_of_build
            some = queries[:batch]
            segments = whole(batch)

            def search(setting: tuple[int, int]) -> Any:
                probes, refine = setting
                return pool.scan(some, segments, K, n_probes=probes, refine=refine)

            rounds = bench.sizes.rounds
            took, setting, reached = tuning.fastest(
                settings, lambda s: bench.device.milliseconds(lambda: search(s), rounds, 1.0)
            )
            result["recall"], result["setting"] = reached, list(setting)
            found = _on_device(pool, lambda: search(setting))
            bench.require(result, reached >= RECALL and _true(bench, found, some))
            result["ours_ms"] = took
            result["queries_per_second"] = batch / took * 1e3
            cells = pool.owners[0].n_cells
            codes, probed = pool.codebooks.shape[0] // 2 * float(sizes.ivf_rows), batch * setting[0] / cells
            floor = max(probed * codes / CODE_RATE, min(1.0, probed) * codes / bench.copy)
            result["floor_ms"] = floor * 1e3
            bench.peers(result, {})
            if not bench.device.dry:
                bench.peers(result, {"cuvs IVF-PQ": lambda: cuvs(str(batch), pool)})
                there = {"cuvs IVF-PQ": lambda: cuvs(f"{batch}{ON_DEVICE}", pool)}
                bench.peers(result, there, "ours_ms", "device arrays, ours those of the host")
            ratio = result["peers"].get("cuvs IVF-PQ", {}).get("ratio")
            target(result, "queries/s / cuVS at equal recall", 1.0, ratio)

        needs = 10.0 if built.made else 20.0 * sizes.ivf_rows / 1e6 + 20.0
        bench.workload("ivf_pq", name, needs, body)
    built.clear()
    bench.device.release()


def _build(bench: Bench) -> tuple[Any, Any, Any, dict[str, Any]]:
    """(pool with its lists on the device, queries on the host, settings that reach the recall, seconds)."""
    device, sizes = bench.device, bench.sizes
    xp, n, dim = device.xp, sizes.ivf_rows, sizes.ivf_dim
    spent = {}
    rows = data.mixture(xp, n, dim, SEED, dtype=xp.float16)
    queries = data.mixture(xp, sizes.ivf_queries, dim, QUERIES, centres=SEED)
    chunks = ((i, rows[i : i + data.CHUNK]) for i in range(0, n, data.CHUNK))
    truth = checks.nearest(xp, chunks, queries, K)
    asked = np.ascontiguousarray(data.to_host(queries))

    def part(ids: Any) -> Any:
        return np.ascontiguousarray(data.to_host(rows[xp.asarray(ids)].astype(xp.float32)))

    plan = ivf.plan_training(n, dim, device.threads)
    random = np.random.default_rng(SEED)
    sample = part(np.sort(random.choice(n, min(n, max(plan.sample, plan.pq_sample)), replace=False)))
    on_device: Any = kernels
    if not device.reference:
        on_device = device.backend(least_work=0).kernels()
    spent["cells_seconds"], (centroids, _, _) = _timed(
        lambda: on_device.kmeans(
            sample[: plan.sample], plan.n_lists, iterations=plan.iterations, seed=1, init="random",
            sample=None, spherical=True,
        )
    )  # fmt: skip
    spent["codebooks_seconds"], codebooks = _timed(
        lambda: kernels.pq_train(
            _padded(sample[: plan.pq_sample]), plan.pq_dim, 4, iterations=plan.pq_iterations, seed=1,
            threads=device.threads, backend="cpu",
        )
    )  # fmt: skip
    pool: Any = ivf.IvfPool(dim, 0, storage="f16", metric="dot", codebooks=codebooks, threads=device.threads)
    pool.add_cells(0, np.asarray(centroids), spherical=True, n_probes=1, refine=1)
    cells = np.empty(n, np.int64)

    def assign() -> None:
        for first in range(0, n, data.CHUNK):
            ids = np.arange(first, min(n, first + data.CHUNK))
            cells[ids] = on_device.kmeans_assign(part(ids), np.asarray(centroids), spherical=True)[0]

    def fill() -> None:
        order = np.argsort(cells, kind="stable")
        for first in range(0, n, data.CHUNK // 4):
            ids = order[first : first + data.CHUNK // 4]
            nothing = np.zeros((len(ids), 0), np.int64)
            pool.fill(cells[ids], (ids, ids.astype(np.uint32), nothing, part(ids)))

    spent["assign_seconds"], _ = _timed(assign)
    spent["fill_seconds"], _ = _timed(fill)
    if not device.reference:
        pool = device.backend(least_work=0, vram_bytes=int(device.free_bytes() * 0.9)).adopt(pool)

        def load() -> None:
            for tiered, lists in pool.parts(np.zeros(1, np.int64)):
                live = np.intersect1d(lists, tiered.lists())
                tiered.warm(live, wait=True)
                if tiered.tiers()["lists"] != len(live):
                    raise peers.Unavailable(
                        f"the device holds {tiered.tiers()['lists']} of {len(live)} cells"
                    )

        spent["load_seconds"], _ = _timed(load)
    settings = tuning.reaching(
        lambda s: pool.scan(asked, whole(len(asked)), K, n_probes=s[0], refine=s[1])[3],
        truth,
        RECALL,
        pool.owners[0].n_cells,
    )
    if not settings:
        raise peers.Unavailable(f"no setting reaches recall {RECALL}")
    return pool, asked, settings, {name: round(value, 2) for name, value in spent.items()}


def _on_device(pool: Any, search: Any) -> Any:
    """What a search finds. Unavailable unless the device holds every cell that it reads."""
    tiered = pool.parts(np.zeros(1, np.int64))[0][0]
    if not hasattr(tiered, "tiers"):
        return search()
    before, found, after = tiered.tiers(), search(), tiered.tiers()
    if after["failure"] or after["misses"] != before["misses"] or after["hits"] == before["hits"]:
        raise peers.Unavailable(after["failure"] or "the device did not hold every cell")
    return found


def _padded(rows: Any) -> Any:
    wide = np.zeros((len(rows), padded(rows.shape[1])), np.float32)
    wide[:, : rows.shape[1]] = rows
    return wide


def _timed(call: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    found = call()
    return time.perf_counter() - started, found


def _true(bench: Bench, found: Any, asked: Any) -> bool:
    """Whether the similarities that come with the rows are those of the rows."""
    xp, dim = bench.device.xp, bench.sizes.ivf_dim
    for q in checks.spread(len(asked), 3):
        for similarity, row in zip(found[1][q].tolist(), found[3][q].tolist(), strict=True):
            first = row // data.CHUNK * data.CHUNK
            _, rows = next(data.blocks(xp, bench.sizes.ivf_rows, dim, SEED, start=first))
            exact = checks.products(xp, rows[row - first : row - first + 1], xp.asarray(asked[q]))[0]
            if abs(similarity - exact) > checks.CLOSE:
                return False
    return True
