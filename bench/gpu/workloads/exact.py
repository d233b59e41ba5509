"""One list of many rows, searched exactly in batches, by queries that are like the rows or unlike them.

Floor: the bytes of all float16 rows for a few queries, the products of all pairs for many, whichever takes
longer. Our scan reads 4 bits an element first and may be below the first.
"""

from __future__ import annotations

from typing import Any

import checks
import data
import numpy as np
import peers
from harness import Bench, Once, Result, beats, target
from ours import Ours, whole

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

    def outside(peer: str, name: str) -> float:
        """A peer measures all cases in one process."""
        told = [[n, batch, k, seed, SEED if seed == NEAR else FAR] for n, batch, k, seed in cases]
        spec = {"rows": sizes.rows, "dim": dim, "seed": SEED, "cases": told}
        return float(asked.ask(peer, "exact", spec, min(90.0, bench.left))[name])

    for name, batch, k, seed in cases:

        def body(result: Result, name: str = name, batch: int = batch, k: int = k, seed: int = seed) -> None:
            rows, ours = filled()
            queries = data.mixture(xp, batch, dim, seed, centres=SEED if seed == NEAR else FAR)
            segments = whole(batch)
            ours.prove(queries, segments, 1, k)
            some = checks.spread(batch)
            found = ours.search(queries, segments, k)
            everyone = np.arange(sizes.rows)
            bench.require(result, checks.scan(xp, found, queries, lambda q: (everyone, rows), k, some))
            others = peers.brute_force(bench.device, rows, queries, k)
            if not bench.device.dry:
                others |= {peer: lambda peer=peer: outside(peer, name) for peer in ("faiss", "cuvs")}
            n_bytes, operations = 2.0 * sizes.rows * dim, 2.0 * sizes.rows * dim * batch
            floor = max(n_bytes / bench.copy, operations / bench.matrix)
            before = ours.clock()
            bench.compare(result, lambda: ours.search(queries, segments, k), floor, others)
            result |= ours.since(before)
            ours.prove(queries, segments, 1, k)
            took = result["ours_ms"] * 1e-3
            if batch == 1:
                target(result, "bytes of all rows / time / copy", 0.85, n_bytes / took / bench.copy)
                beats(result, 1.0, "torch", "cuvs")
            elif batch >= MANY or (bench.device.dry and batch == largest):
                target(
                    result,
                    f"products / time / {bench.matrix_type} rate",
                    0.5,
                    operations / took / bench.matrix,
                )
                beats(result, 2.0, "torch", "cuvs")

        bench.workload("exact", name, 6.0 if filled.made else 20.0, body)
    filled.clear()
    bench.device.release()


def _name(batch: int, rows: int, dim: int, k: int) -> str:
    return f"exact, {batch} {'query' if batch == 1 else 'queries'}, {rows} rows, d {dim}, k {k}"
