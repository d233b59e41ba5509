"""Every query over its own owner: equal sizes, sizes by Zipf's law, and those with a filter of each query.

As many owners as the memory of host and device, and the seconds of a fill, hold; each result says how many.
Floor: the bytes of all float16 rows.
"""

from __future__ import annotations

import time
from typing import Any

import checks
import data
import numpy as np
import peers
from device import host_bytes
from harness import Bench, Once, Result, beats, beats_best, target
from ours import ROW_BYTES, Ours, whole

SEED, QUERIES, K = 3, 4, 10


def run(bench: Bench, dim: int) -> None:
    sizes = bench.sizes
    equal = f"owners, {sizes.owners} queries, each over its own {sizes.owner_rows} rows, d {dim}"
    if bench.wanted(equal):
        each = [sizes.owner_rows] * sizes.owners
        made = _Owners(bench, dim, each)
        bench.workload("owners", equal, 20.0, made.equal)
        made.close()
    own = f"each over its own {sizes.zipf_least} to {sizes.zipf_most} rows"
    zipf = f"owners, {sizes.owners} queries, {own}, d {dim}"
    filtered = f"{zipf}, filtered"
    if bench.wanted(zipf) or bench.wanted(filtered):
        each = data.zipf_sizes(sizes.owners, sizes.zipf_most, sizes.zipf_least)
        # Any number of them in their order should hold large and small ones.
        each = [each[i] for i in np.random.default_rng(SEED).permutation(len(each))]
        made = _Owners(bench, dim, each)
        bench.workload("owners", zipf, 20.0, made.zipf)
        bench.workload("owners", filtered, 6.0, made.filtered)
        made.close()


class _Owners:
    """Owners of these sizes, as many as there is room and time for, made when the first workload asks."""

    def __init__(self, bench: Bench, dim: int, each: list[int]) -> None:
        self.bench, self.dim, self.wanted = bench, dim, each
        self.each: list[int] = []
        self.fill = Once(self._fill)
        self._asked = peers.Asked()

    def close(self) -> None:
        self.fill.clear()
        self.bench.device.release()

    def filled(self, result: Result) -> Ours:
        """All that fit; what is missing is noted."""
        ours = self.fill()
        result["owners"], result["rows"] = len(self.each), sum(self.each)
        if len(self.each) < len(self.wanted):
            reason = "as many as memory and seconds hold"
            result["note"] = f"{len(self.each)} of {len(self.wanted)} owners: {reason}"
        return ours

    def _fill(self) -> Ours:
        """Whole owners, block by block, until the memory or the seconds are used up."""
        bench, sizes = self.bench, self.bench.sizes
        with_peers = (ROW_BYTES + 2.0) * self.dim  # who keep float16 rows beside ours
        room = 0.8 * min(host_bytes(), bench.device.free_bytes()) / with_peers
        ends = np.cumsum(self.wanted)
        most = int(np.searchsorted(ends, room, side="right"))
        if most == 0:
            raise peers.Unavailable("there is no memory for one owner")
        until = time.monotonic() + min(sizes.fill_seconds, bench.left / 2)
        made, list_of = Ours(bench.device, self.dim), np.repeat(np.arange(most), self.wanted[:most])
        done = 0
        for first, rows in data.blocks(bench.device.xp, int(ends[most - 1]), self.dim, SEED):
            made.add(list_of[first : first + len(rows)], rows)
            done = first + len(rows)
            if time.monotonic() > until:
                break
        filled = int(np.searchsorted(ends, done, side="right"))
        if filled == 0:
            raise peers.Unavailable("there was no time to fill one owner")
        if filled < most:  # the last one is not whole
            made.pool.drop([filled])
        if made.on_device:
            made.pool.trim()  # of what only changes need, for the peers' sake
        self.each = self.wanted[:filled]
        return made.load()

    def equal(self, result: Result) -> None:
        ours = self.filled(result)
        self._measure(result, ours, None)
        rows = self._rows(result)
        queries = self._queries()
        if rows is not None:
            self.bench.peers(
                result, peers.padded_batches(self.bench.device, rows, queries, self.bench.sizes.owner_rows, K)
            )
            self.bench.peers(result, peers.loop(self.bench.device, rows, queries, self.each, K))
        self._preassigned(result)
        took = result["ours_ms"] * 1e-3
        n_bytes = 2.0 * sum(self.each) * self.dim
        target(result, "bytes of all rows / time / copy", 0.8, n_bytes / took / self.bench.copy)
        beats(result, 1.0, "faiss search_preassigned", "torch f16 bmm")

    def zipf(self, result: Result) -> None:
        ours = self.filled(result)
        self._measure(result, ours, None)
        rows = self._rows(result)
        if rows is not None:
            self.bench.peers(result, peers.loop(self.bench.device, rows, self._queries(), self.each, K))
        self._preassigned(result)
        beats_best(result, 5.0)

    def filtered(self, result: Result) -> None:
        """Query i takes rows whose numbers end in at most i % 9. FAISS on a device has no filter of each
        query's own, so its time is one of a search without any, and decides nothing."""
        ours = self.filled(result)
        most = np.arange(len(self.each)) % 9
        self._measure(result, ours, most)
        rows = self._rows(result)
        if rows is not None:
            self.bench.peers(result, peers.loop(self.bench.device, rows, self._queries(), self.each, K, most))
        self._preassigned(result)
        for name, peer in result["peers"].items():
            if name.startswith("faiss"):
                peer["other"] = "without the filter"
        beats_best(result, 5.0)

    def _measure(self, result: Result, ours: Ours, most: Any) -> None:
        """Ours, correct and timed. most: of each query the last digit that passes, or None."""
        bench, n = self.bench, len(self.each)
        queries = self._queries()
        segments: Any = whole(n, np.arange(n))
        if most is not None:
            segments = [(q, q, 0, ((0, 0, 0, int(most[q])),), (), None) for q in range(n)]
        ours.prove(queries, segments, n, K)
        starts = np.concatenate([[0], np.cumsum(self.each)])

        def rows_of(q: int) -> tuple[Any, Any]:
            ids = np.arange(starts[q], starts[q + 1])
            rows = self._part(int(starts[q]), int(starts[q + 1]))
            if most is None:
                return ids, rows
            pass_ = ids % 10 <= most[q]
            return ids[pass_], rows[bench.device.xp.asarray(pass_)]

        found = ours.search(queries, segments, K)
        bench.require(result, checks.scan(bench.device.xp, found, queries, rows_of, K, checks.spread(n)))
        floor = 2.0 * sum(self.each) * self.dim / bench.copy
        before = ours.clock()
        bench.compare(result, lambda: ours.search(queries, segments, K), floor, {})
        result |= ours.since(before)
        ours.prove(queries, segments, n, K)

    def _queries(self) -> Any:
        return data.mixture(self.bench.device.xp, len(self.each), self.dim, QUERIES, centres=SEED)

    def _part(self, begin: int, end: int) -> Any:
        """Rows begin .. end - 1, made again."""
        xp, found = self.bench.device.xp, []
        for first, rows in data.blocks(xp, sum(self.wanted), self.dim, SEED, start=begin):
            if first >= end:
                break
            found.append(rows[max(0, begin - first) : end - first])
        return xp.concatenate(found)

    def _rows(self, result: Result) -> Any:
        """All rows in float16, for peers; ours stay where they are. None, with the reason, without memory."""
        needed = 2.4 * sum(self.each) * self.dim
        free = self.bench.device.free_bytes()
        if needed > free:
            name = "torch"
            result.setdefault("peers", {})[name] = {
                "skipped": f"{needed / 1e9:.0f} GB of rows beside ours, {free / 1e9:.0f} GB are free"
            }
            return None
        xp = self.bench.device.xp
        return data.mixture(xp, sum(self.each), self.dim, SEED, dtype=xp.float16)

    def _preassigned(self, result: Result) -> None:
        def asked() -> float:
            spec = {"dim": self.dim, "sizes": self.each, "seed": SEED, "query_seed": QUERIES, "k": K}
            told = self._asked.ask("faiss", "owners", spec, min(150.0, self.bench.left))
            return float(told["search_preassigned"])

        if not self.bench.device.dry:
            self.bench.peers(result, {"faiss search_preassigned": asked})
