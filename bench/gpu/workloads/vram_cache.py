"""Lists of four times the device's budget, searched by Zipf's law: hits, latency, answers.

All lists are of one size. For these Belady's rule that may also leave a list out (of those that are there and
the one that is asked for, the one that is asked for again last goes) is the optimum for the trace; for sizes
that differ it is NP-hard. It is given the whole budget, of which ours keeps an eighth for tables and
launches; what it could do with seven eighths is told too.
"""

from __future__ import annotations

import heapq
import time
from typing import Any

import data
import numpy as np
import peers
from harness import Bench, Result, target
from ours import Least, Ours, whole

from warpmem.index.cpu import CpuBackend

SEED, QUERIES, K = 41, 42, 10
DIM = 384
KINDS = 4
"""Different queries of each list, whose answers are known before."""
LEAST_VRAM = 1 << 20


def run(bench: Bench) -> None:
    sizes = bench.sizes
    dim = 24 if bench.device.dry else DIM
    names = {
        exponent: f"VRAM cache, {sizes.cache_lists} lists of {sizes.cache_rows} rows, 4x the budget, "
        f"Zipf {exponent:g}, d {dim}"
        for exponent in sizes.exponents
    }
    if not any(bench.wanted(name) for name in names.values()):
        return
    made: list[Any] = []

    def ready() -> Any:
        if not made:
            made.append(_Lists(bench, dim))
        return made[0]

    for exponent, name in names.items():
        bench.workload(
            "vram_cache", name, 40.0 if not made else 15.0,
            lambda result, exponent=exponent: ready().measure(result, exponent),
        )  # fmt: skip
    made.clear()
    bench.device.release()


class _Lists:
    """The pool, its budget, and the right answers, which the reference gives without a device."""

    def __init__(self, bench: Bench, dim: int) -> None:
        self.bench, sizes = bench, bench.sizes
        n = sizes.cache_lists * sizes.cache_rows
        rows = data.mixture(bench.device.xp, n, dim, SEED)
        self.queries = np.ascontiguousarray(
            data.to_host(data.mixture(bench.device.xp, KINDS, dim, QUERIES, centres=SEED))
        )
        lists = np.repeat(np.arange(sizes.cache_lists), sizes.cache_rows)
        probe = Ours(bench.device, dim, vram_bytes=LEAST_VRAM * 64)
        probe.add(lists[: sizes.cache_rows], rows[: sizes.cache_rows])
        self.list_bytes = int(probe.load().pool.tiers()["bytes"]) if probe.on_device else 1
        self.budget = self.list_bytes * sizes.cache_lists // 4
        if probe.on_device:
            self.budget = max(self.budget, LEAST_VRAM)
        del probe
        self.ours = Ours(bench.device, dim, vram_bytes=self.budget)
        host = CpuBackend().pool(dim, 1, storage="f16", threads=bench.device.threads)
        for first in range(0, n, data.CHUNK):
            part = np.ascontiguousarray(data.to_host(rows[first : first + data.CHUNK]))
            ids = np.arange(first, first + len(part))
            host.apply([], lists[ids].astype(np.int64), ids, ids.astype(np.uint32), (ids % 10)[:, None], part)
            self.ours.add(lists[ids].astype(np.int64), part)
        self.answers = {}
        for kind in range(KINDS):
            query = np.repeat(self.queries[kind : kind + 1], sizes.cache_lists, axis=0)
            found = host.scan(query, whole(len(query), np.arange(len(query))), K)
            for i in range(len(query)):
                self.answers[i, kind] = tuple(part[i].tobytes() for part in found)

    def measure(self, result: Result, exponent: float) -> None:
        bench, sizes = self.bench, self.bench.sizes
        random = np.random.default_rng(round(exponent * 100))
        trace = data.zipf_trace(random, sizes.cache_lists, sizes.cache_searches, exponent)
        room = max(1, self.budget // self.list_bytes)
        pool: Any = self.ours.pool if self.ours.on_device else Least(self.ours.pool, room)
        if self.ours.on_device:
            pool.evict(pool.lists())
        before = dict(pool.tiers())
        times, wrong = [], 0
        for i, list_id in enumerate(trace.tolist()):
            kind = i % KINDS
            segments = whole(1, np.array([list_id]))
            started = time.perf_counter()
            found = pool.scan(self.queries[kind : kind + 1], segments, K)
            times.append((time.perf_counter() - started) * 1e3)
            wrong += tuple(part[0].tobytes() for part in found) != self.answers[list_id, kind]
        after = pool.tiers()
        if after.get("failure"):
            raise peers.Unavailable(f"the device failed: {after['failure']}")
        hits, misses = (after[name] - before[name] for name in ("hits", "misses"))
        result["wrong"] = wrong
        bench.require(result, wrong == 0)
        rate = hits / max(1, hits + misses)
        best, best_of_pages = (belady(trace, max(1, part)) / len(trace) for part in (room, room * 7 // 8))
        result |= {"hit_rate": rate, "optimum": best, "optimum_of_seven_eighths": best_of_pages}
        result |= {"budget_bytes": self.budget, "list_bytes": self.list_bytes, "searches": len(times)}
        result["p50_ms"], result["p99_ms"] = (float(np.percentile(times, share)) for share in (50, 99))
        result["ours_ms"], result["peers"] = result["p50_ms"], {}
        target(result, "hit rate / offline optimum", 0.95, rate / best)
        target(result, "p99 ms", 5.0, result["p99_ms"], most=True)
        target(result, "wrong answers", 0, wrong, most=True)


def belady(trace: Any, room: int) -> int:
    """Hits of the best cache of `room` equal items for a trace of numbers, which may leave an item out."""
    n = len(trace)
    following = np.full(n, n, np.int64)
    seen: dict[int, int] = {}
    for i in range(n - 1, -1, -1):
        following[i] = seen.get(int(trace[i]), n)
        seen[int(trace[i])] = i
    kept: dict[int, int] = {}
    latest: list[tuple[int, int]] = []  # -when it is asked for next, the item; old entries are passed over
    hits = 0
    for i, item in enumerate(trace.tolist()):
        hits += item in kept
        kept[item] = int(following[i])
        heapq.heappush(latest, (-kept[item], item))
        while len(kept) > room:
            when, last = heapq.heappop(latest)
            if kept.get(last) == -when:
                del kept[last]
    return hits
