"""How much slower searches are while many rows are removed and added again: p99 beside the writer and idle.

Once by the thousand, one change after the other, and once all in a single change.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import checks
import data
import numpy as np
from harness import Bench, Once, Result, target
from ours import Ours, whole

SEED, QUERY, K = 5, 6, 10


def run(bench: Bench) -> None:
    sizes, dim = bench.sizes, bench.sizes.change_dim
    changed = min(sizes.changed, sizes.rows)
    pieces = {max(1, changed // 100): f"{max(1, changed // 100)} at a time", changed: "at once"}
    names = {
        piece: f"changes, {changed} of {sizes.rows} rows deleted and appended {how} beside a search, d {dim}"
        for piece, how in pieces.items()
    }
    if not any(bench.wanted(name) for name in names.values()):
        return

    def fill() -> tuple[Any, Ours]:
        rows = data.mixture(bench.device.xp, sizes.rows, dim, SEED)
        parts = ((i, rows[i : i + data.CHUNK]) for i in range(0, len(rows), data.CHUNK))
        return rows, Ours(bench.device, dim).fill(parts)

    filled = Once(fill)
    for piece, name in names.items():
        bench.workload(
            "changes",
            name,
            25.0,
            lambda result, piece=piece: _measure(bench, result, *filled(), changed, piece),
        )
    filled.clear()
    bench.device.release()


def _measure(bench: Bench, result: Result, rows: Any, ours: Ours, changed: int, piece: int) -> None:
    device, span = bench.device, bench.sizes.span
    query = data.mixture(device.xp, 1, bench.sizes.change_dim, QUERY, centres=SEED)
    query = np.ascontiguousarray(data.to_host(query))
    segments, everyone = whole(1), np.arange(len(rows))
    ours.prove(query, segments, 1, K)
    idle = _times(ours, query, span, None)
    host = np.ascontiguousarray(data.to_host(rows[:changed]))
    removes = [[(0, row) for row in range(i, min(i + piece, changed))] for i in range(0, changed, piece)]

    def write() -> None:
        for gone in removes:
            ids = np.array([row for _, row in gone], np.int64)
            order, columns = ids.astype(np.uint32), (ids % 10)[:, None]
            ours.pool.apply(gone, np.zeros(len(ids), np.int64), ids, order, columns, host[ids])

    with ThreadPoolExecutor(1) as writer:
        started = time.perf_counter()
        changing = writer.submit(write)
        busy = _times(ours, query, span, changing)
        changing.result()
        result["change_seconds"] = time.perf_counter() - started
    ours.load()
    found = ours.search(query, segments, K)
    right = checks.scan(device.xp, found, query, lambda q: (everyone, rows), K, [0])
    bench.require(result, right and ours.pool.stats()["rows"] == len(rows))
    result["searches"], result["idle_searches"] = len(busy), len(idle)
    for name, times in (("idle", idle), ("busy", busy)):
        for share in (50, 99):
            result[f"{name}_p{share}_ms"] = float(np.percentile(times, share))
    result["ours_ms"], result["peers"] = result["busy_p99_ms"], {}
    target(result, "p99 / p99 idle", 1.2, result["busy_p99_ms"] / result["idle_p99_ms"], most=True)


def _times(ours: Ours, query: Any, span: float, changing: Future[None] | None) -> list[float]:
    """Milliseconds of searches one after the other, for `span` seconds or as long as it changes: from host
    arrays to host arrays. To wait for the device would be to wait for the writer's copies too."""
    times: list[float] = []
    end = time.monotonic() + span
    while len(times) < 5 or (time.monotonic() < end if changing is None else not changing.done()):
        started = time.perf_counter()
        ours.search(query, whole(1), K)
        times.append((time.perf_counter() - started) * 1e3)
    return times
