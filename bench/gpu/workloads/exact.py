"""One list of many rows, searched exactly in batches, by queries that are like the rows or unlike them.

Floor: the bytes of all float16 rows for a few queries, the products of all pairs for many, whichever takes
longer. Our scan reads 4 bits an element first and may be below the first. Both sides are judged from host
arrays to host arrays, as a memory searches; what they take from device arrays to device arrays is told.
"""

from __future__ import annotations

from typing import Any

import checks
import data
import numpy as np
import peers
from harness import Bench, Once, Result, beats, target
from ours import Ours, whole
from peer_process import ON_DEVICE

SEED, NEAR, FAR = 1, 2, 7
MANY = 184
"""Queries from which on the products of an H200 take longer than the bytes."""


def run(bench: Bench, dim: int) -> None:
    sizes, xp = bench.sizes, bench.device.xp
    largest = max(sizes.batches)
    cases: list[tuple[str, int, int, int]] = []
    for batch in (1, largest, *(b for b in sizes.batches if b not in (1, largest))):
        ks = (10, 100) if batch == largest else (10,)
        cases += [(_name(batch, sizes.rows, dim, k), batch, k, NEAR) for k in ks]
        if batch in (1, largest):
            cases.append((_name(batch, sizes.rows, dim, 10) + ", unlike the rows", batch, 10, FAR))
    cases = [case for case in cases if bench.wanted(case[0])]
    if not cases:
        return
    asked = peers.Asked()

    def fill() -> tuple[Any, Ours]:
        rows = data.mixture(xp, sizes.rows, dim, SEED)
        parts = ((first, rows[first : first + data.CHUNK]) for first in range(0, len(rows), data.CHUNK))
        return rows, Ours(bench.device, dim).fill(parts)

    filled = Once(fill)

    def outside(peer: str, case: str) -> float:
        """A peer measures all cases in one process."""
        told = [[n, batch, k, seed, SEED if seed == NEAR else FAR] for n, batch, k, seed in cases]
        spec = {"rows": sizes.rows, "dim": dim, "seed": SEED, "cases": told}
        return float(asked.ask(peer, "exact", spec, bench.for_peers(90.0), case))

    for name, batch, k, seed in cases:

        def body(result: Result, name: str = name, batch: int = batch, k: int = k, seed: int = seed) -> None:
            rows, ours = filled()
            queries = data.mixture(xp, batch, dim, seed, centres=SEED if seed == NEAR else FAR)
            here, segments = np.ascontiguousarray(data.to_host(queries)), whole(batch)
            ours.prove(here, segments, 1, k)
            some, everyone = checks.spread(batch), np.arange(sizes.rows)
            right = [
                checks.scan(xp, found, queries, lambda q: (everyone, rows), k, some)
                for found in (ours.search(here, segments, k), ours.search_there(queries, segments, k))
            ]
            bench.require(result, all(right))
            n_bytes, operations = 2.0 * sizes.rows * dim, 2.0 * sizes.rows * dim * batch
            multiplying = bench.multiplying(operations)
            before = ours.clock()
            floor = max(n_bytes / bench.copy, multiplying)
            bench.compare(result, lambda: ours.search(here, segments, k), floor, {})
            result |= ours.since(before)
            bench.there(result, lambda: ours.search_there(queries, segments, k))
            ours.prove(here, segments, 1, k)
            bench.peers(result, peers.brute_force(bench.device, rows, here, k))
            bench.peers(result, peers.brute_force(bench.device, rows, queries, k), "device_arrays_ms")
            if not bench.device.dry:
                beside = {peer: lambda peer=peer: outside(peer, name) for peer in ("faiss", "cuvs")}
                bench.peers(result, beside)
                there = {"cuvs": lambda: outside("cuvs", name + ON_DEVICE)}
                bench.peers(result, there, "device_arrays_ms")
            took = result["ours_ms"] * 1e-3
            if batch == 1:
                target(result, "bytes of all rows / time / copy", 0.85, n_bytes / took / bench.copy)
                beats(result, 1.0, "torch", "cuvs")
            elif batch >= MANY or (bench.device.dry and batch == largest):
                target(
                    result,
                    f"products / time / {bench.matrix_type} rate",
                    0.5,
                    multiplying / took if multiplying else None,
                )
                beats(result, 2.0, "torch", "cuvs")

        bench.workload("exact", name, 6.0 if filled.made else 20.0, body)
    filled.clear()
    bench.device.release()


def _name(batch: int, rows: int, dim: int, k: int) -> str:
    return f"exact, {batch} {'query' if batch == 1 else 'queries'}, {rows} rows, d {dim}, k {k}"
