"""Lists of four times the device's budget, searched by Zipf's law: hits, latency, answers.

All lists are of one size. For these Belady's rule that may also leave a list out (of those that are there and
the one that is asked for, the one that is asked for again last goes) is the optimum for the trace; for sizes
that differ it is NP-hard. It is given the whole budget, of which ours keeps an eighth for tables and
launches; what it could do with seven eighths is told too. The optimum keeps whole lists. So does the cache;
in a second run it may keep codes alone on the device, with their rows in pinned memory of the host.
"""

from __future__ import annotations

import heapq
import time
from functools import partial
from typing import Any

import data
import numpy as np
import peers
from harness import Bench, Once, Result, target
from ours import Least, whole

from warpmem.index.cpu import CpuBackend

SEED, QUERIES, K = 41, 42, 10
DIM = 384
KINDS = 4
"""Different queries of each list, whose answers are known before."""
LEAST_VRAM = 1 << 20


def run(bench: Bench) -> None:
    sizes = bench.sizes
    dim = 24 if bench.device.dry else DIM
    names = {}
    for pinned in (False, True):
        for exponent in sizes.exponents:
            name = f"VRAM cache, {sizes.cache_lists} lists of {sizes.cache_rows} rows, 4x the budget, "
            name += f"Zipf {exponent:g}, d {dim}" + (", rows in pinned memory" if pinned else "")
            names[name] = (exponent, pinned)
    if not any(bench.wanted(name) for name in names):
        return
    lists = Once(lambda: _Lists(bench, dim))

    def measure(result: Result, exponent: float, pinned: bool) -> None:
        lists().measure(result, exponent, pinned)

    for name, (exponent, pinned) in names.items():
        needs = 10.0 if lists.made else 40.0
        bench.workload("vram_cache", name, needs, partial(measure, exponent=exponent, pinned=pinned))
    lists.clear()
    bench.device.release()


class _Lists:
    """The host's pool, what a list takes on the device, and the right answers, which the host gives."""

    def __init__(self, bench: Bench, dim: int) -> None:
        self.bench, self.sizes = bench, bench.sizes
        device, n_lists, n = bench.device, bench.sizes.cache_lists, bench.sizes.cache_rows
        queries = data.mixture(device.xp, KINDS, dim, QUERIES, centres=SEED)
        self.queries = np.ascontiguousarray(data.to_host(queries))
        self.host = CpuBackend().pool(dim, 1, storage="f16", threads=device.threads)
        self.reference = device.backend().pool(dim, 1, storage="f16") if device.reference else None
        for first, rows in data.blocks(device.xp, n_lists * n, dim, SEED):
            part = np.ascontiguousarray(data.to_host(rows))
            ids = np.arange(first, first + len(part))
            for pool in filter(None, (self.host, self.reference)):
                pool.apply([], ids // n, ids, ids.astype(np.uint32), (ids % 10)[:, None], part)
        self.answers = {}
        for kind in range(KINDS):
            query = np.repeat(self.queries[kind : kind + 1], n_lists, axis=0)
            found = self.host.scan(query, whole(n_lists, np.arange(n_lists)), K)
            for i in range(n_lists):
                self.answers[i, kind] = tuple(part[i].tobytes() for part in found)
        self.list_bytes, self.budget = 1, n_lists // 4
        if self.reference is None:
            probe = self._tiered(LEAST_VRAM * 64, 0)
            probe.warm([0], wait=True)
            self.list_bytes = int(probe.tiers()["bytes"])
            self.budget = max(self.list_bytes * n_lists // 4, LEAST_VRAM)

    def measure(self, result: Result, exponent: float, pinned: bool) -> None:
        trace = data.zipf_trace(
            np.random.default_rng(round(exponent * 100)),
            self.sizes.cache_lists,
            self.sizes.cache_searches,
            exponent,
        )
        room = max(1, self.budget // self.list_bytes)
        if self.reference is None:
            pool = self._tiered(self.budget, self.list_bytes * self.sizes.cache_lists if pinned else 0)
        else:
            pool = Least(self.reference, room)
        times, wrong = [], 0
        for i, list_id in enumerate(trace.tolist()):
            kind = i % KINDS
            segments = whole(1, np.array([list_id]))
            started = time.perf_counter()
            found = pool.scan(self.queries[kind : kind + 1], segments, K)
            times.append((time.perf_counter() - started) * 1e3)
            wrong += tuple(part[0].tobytes() for part in found) != self.answers[list_id, kind]
        counts = pool.tiers()
        if counts.get("failure"):
            raise peers.Unavailable(f"the device failed: {counts['failure']}")
        result["wrong"] = wrong
        self.bench.require(result, wrong == 0)
        rate = counts["hits"] / max(1, counts["hits"] + counts["misses"])
        best, best_of_pages = (belady(trace, max(1, part)) / len(trace) for part in (room, room * 7 // 8))
        result |= {"hit_rate": rate, "optimum": best, "optimum_of_seven_eighths": best_of_pages}
        result |= {"budget_bytes": self.budget, "list_bytes": self.list_bytes, "searches": len(times)}
        result["p50_ms"], result["p99_ms"] = (float(np.percentile(times, share)) for share in (50, 99))
        result["ours_ms"], result["peers"] = result["p50_ms"], {}
        target(result, "hit rate / offline optimum", 0.95, rate / best)
        target(result, "p99 ms", 5.0, result["p99_ms"], most=True)
        target(result, "wrong answers", 0, wrong, most=True)

    def _tiered(self, vram_bytes: int, pinned_bytes: int) -> Any:
        """The host's pool with an empty cache."""
        backend = self.bench.device.backend(least_work=0, vram_bytes=vram_bytes, pinned_bytes=pinned_bytes)
        return backend.adopt(self.host)


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
