"""A search through `Memory`, vectors given: one caller, many threads, many at once; the pool beside it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import checks
import data
import numpy as np
import peers
from harness import Bench, Once, Result, target
from ours import Ours, whole

import warpmem
from warpmem import NewItem, Scope

SEED, QUERIES, K = 51, 52, 10
DIM = 384
USER = "u"


def run(bench: Bench) -> None:
    sizes = bench.sizes
    dim = 24 if bench.device.dry else DIM
    of = f"{sizes.memory_items} items of one user, d {dim}"
    names = {
        "one": f"Memory.search, one caller, {of}",
        "threads": f"Memory.search, {sizes.threads} threads, {of}",
        **{
            batch: f"Memory.search_many, {batch} queries, {of}"
            for batch in (sizes.threads, 8 * sizes.threads)
        },
    }
    if not any(bench.wanted(name) for name in names.values()):
        return
    ready = Once(lambda: _Store(bench, dim))
    try:
        for kind, name in names.items():

            def body(result: Result, kind: Any = kind) -> None:
                store = ready()
                if kind == "one":
                    store.one(result)
                elif kind == "threads":
                    store.threads(result)
                else:
                    store.many(result, kind)

            bench.workload("memory", name, 8.0 if ready.made else 30.0, body)
    finally:
        if ready.made:
            ready().memory.close()
        ready.clear()
    bench.device.release()


class _Store:
    def __init__(self, bench: Bench, dim: int) -> None:
        self.bench = bench
        device, sizes = bench.device, bench.sizes
        rows = data.mixture(device.xp, sizes.memory_items, dim, SEED)
        queries = data.mixture(device.xp, max(1024, 8 * sizes.threads), dim, QUERIES, centres=SEED)
        self.queries = np.ascontiguousarray(data.to_host(queries))
        device.backend()  # or why there is none
        self.scope = Scope(user_id=USER)
        self.memory: Any = warpmem.open(dimension=dim, backend="numpy" if device.dry else "cuda")
        host = np.ascontiguousarray(data.to_host(rows))
        self.wide = host.astype(np.float64)
        self.wide /= np.linalg.norm(self.wide, axis=1, keepdims=True)
        for first in range(0, len(host), 5000):
            part = host[first : first + 5000]
            items = [
                NewItem(text=f"item {first + i}", kind="message", scope=self.scope) for i in range(len(part))
            ]
            self.memory.add_many(items, vectors=part, durability="os")
        self.memory.search(vector=self.queries[0], user_id=USER, k=K)
        if not device.dry:
            self.memory.warm(user_id=USER, wait=True)
            self._prove()
        self.raw = Ours(device, dim, storage="f32")
        self.raw.add(np.zeros(len(host), np.int64), host)
        self.raw.load()

    def _prove(self) -> None:
        """Unavailable unless the device answers: the host would, in silence."""
        before = self.memory.stats().device
        self.search(0)
        after = self.memory.stats().device
        if after["failure"] is not None or after["hits"] != before["hits"] + 1:
            raise peers.Unavailable(after["failure"] or "the device does not hold the user's items")

    def search(self, i: int) -> Any:
        return self.memory.search(vector=self.queries[i % len(self.queries)], user_id=USER, k=K)

    def right(self, some: Any) -> bool:
        """Whether hits of some queries are the best by float64 products with the rows."""
        for i, hits in some:
            exact = self.wide @ self.queries[i].astype(np.float64)
            given = np.array([int(hit.item.text.split()[1]) for hit in hits])
            best = np.sort(exact)[::-1][: min(K, len(exact))]
            if len(set(given.tolist())) != len(best) or np.abs(exact[given] - best).max() > checks.CLOSE:
                return False
        return True

    def one(self, result: Result) -> None:
        sizes = self.bench.sizes
        self.bench.require(result, self.right((i, self.search(i)) for i in range(8)))
        times = np.array([_seconds(lambda i=i: self.search(i)) for i in range(sizes.searches)]) * 1e3
        raw = [
            _seconds(lambda i=i: self.raw.pool.scan(self._query(i), whole(1), K)) * 1e3
            for i in range(max(8, sizes.searches // 4))
        ]
        result["p50_ms"], result["p99_ms"] = (float(np.percentile(times, share)) for share in (50, 99))
        result["ours_ms"] = result["p50_ms"]
        result["peers"] = {}
        result["raw_index_ms"] = float(np.median(raw))
        target(result, "p50 ms", 0.2, result["p50_ms"], most=True)
        target(result, "p99 ms", 0.5, result["p99_ms"], most=True)

    def threads(self, result: Result) -> None:
        """Each thread searches one after the other; beside that the same from the pool itself."""
        self.bench.require(result, self._together(lambda i: self.right([(i, self.search(i))]), 1)[1])
        rate, _ = self._together(lambda i: self.search(i), 0)
        raw, _ = self._together(lambda i: self.raw.pool.scan(self._query(i), whole(1), K), 0)
        result["queries_per_second"], result["raw_queries_per_second"] = rate, raw
        result["share_of_raw"] = rate / raw
        result["ours_ms"], result["peers"] = 1e3 / rate, {}

    def many(self, result: Result, batch: int) -> None:
        asked, scopes, segments = self.queries[:batch], [self.scope] * batch, whole(batch)

        def search() -> Any:
            return self.memory.search_many(vectors=asked, scopes=scopes, k=K)

        found = search()
        self.bench.require(result, self.right((i, found[i]) for i in checks.spread(batch)))
        self.bench.compare(result, search, None, {})
        raw = self.bench.device.milliseconds(
            lambda: self.raw.pool.scan(asked, segments, K), self.bench.sizes.rounds
        )
        result["queries_per_second"] = batch / result["ours_ms"] * 1e3
        result["raw_queries_per_second"] = batch / raw * 1e3
        result["share_of_raw"] = raw / result["ours_ms"]

    def _query(self, i: int) -> Any:
        i %= len(self.queries)
        return self.queries[i : i + 1]

    def _together(self, call: Any, each: int) -> tuple[float, bool]:
        """(calls a second, whether all were true) of all threads; each: calls of a thread, 0 for as usual."""
        n = self.bench.sizes.threads
        count = each or max(2, self.bench.sizes.searches // 8)
        barrier = threading.Barrier(n)

        def work(number: int) -> bool:
            barrier.wait()
            return all(call((number * 31 + i) % len(self.queries)) for i in range(count))

        with ThreadPoolExecutor(n) as threads:
            started = time.perf_counter()
            good = list(threads.map(work, range(n)))
            return n * count / (time.perf_counter() - started), all(good)


def _seconds(call: Any) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
