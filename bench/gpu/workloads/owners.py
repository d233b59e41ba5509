"""Every query over its own owner: equal sizes, sizes by Zipf's law, and those with a filter of each query.

As many owners as the memory of host and device, and the seconds of a fill, hold; each result says how many.
Floor: the bytes of all float16 rows. Both sides are judged from host arrays to host arrays; what device
arrays take is told of ours and of torch over equal owners.
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
HOST_PEERS, DEVICE_PEERS = 2.4, 2.4
"""Bytes an element that peers take beside ours: FAISS fills float16 lists on the host before it has them on
the device; torch has float16 rows there, made from a block of float32."""


def run(bench: Bench, dim: int) -> None:
    sizes = bench.sizes
    needs = min(sizes.fill_seconds, 30.0) + 20.0  # a fill takes no more than half of what is left
    equal = f"owners, {sizes.owners} queries, each over its own {sizes.owner_rows} rows, d {dim}"
    if bench.wanted(equal):
        each = [sizes.owner_rows] * sizes.owners
        made = _Owners(bench, dim, each)
        bench.workload("owners", equal, needs, made.equal)
        made.close()
    own = f"each over its own {sizes.zipf_least} to {sizes.zipf_most} rows"
    zipf = f"owners, {sizes.owners} queries, {own}, d {dim}"
    filtered = f"{zipf}, filtered"
    if bench.wanted(zipf) or bench.wanted(filtered):
        each = data.zipf_sizes(sizes.owners, sizes.zipf_most, sizes.zipf_least)
        # Any number of them in their order should hold large and small ones.
        each = [each[i] for i in np.random.default_rng(SEED).permutation(len(each))]
        made = _Owners(bench, dim, each)
        bench.workload("owners", zipf, needs, made.zipf)
        bench.workload("owners", filtered, 6.0 if made.fill.made else needs, made.filtered)
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
        """Whole owners, block by block, until the memory or the seconds are used up; a third of the seconds
        is for bringing them onto the device."""
        bench, sizes = self.bench, self.bench.sizes
        elements = min(
            host_bytes() / (ROW_BYTES + HOST_PEERS), bench.device.free_bytes() / (ROW_BYTES + DEVICE_PEERS)
        )
        room = 0.8 * elements / self.dim
        ends = np.cumsum(self.wanted)
        most = int(np.searchsorted(ends, room, side="right"))
        if most == 0:
            raise peers.Unavailable("there is no memory for one owner")
        seconds = min(sizes.fill_seconds, bench.left / 2)
        until = time.monotonic() + seconds * 2 / 3
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
        loaded = made.load(max(until, time.monotonic()) + seconds / 3)
        if loaded < filled:
            made.pool.drop(list(range(loaded, filled)))
        self.each = self.wanted[:loaded]
        return made

    def equal(self, result: Result) -> None:
        ours = self.filled(result)
        self._measure(result, ours, None)
        self._torch(result, None, equal=True)
        self._preassigned(result)
        took = result["ours_ms"] * 1e-3
        n_bytes = 2.0 * sum(self.each) * self.dim
        target(result, "bytes of all rows / time / copy", 0.8, n_bytes / took / self.bench.copy)
        beats(result, 1.0, "faiss search_preassigned", "torch f16 bmm")

    def zipf(self, result: Result) -> None:
        ours = self.filled(result)
        self._measure(result, ours, None)
        self._torch(result, None)
        self._preassigned(result)
        beats_best(result, 5.0)

    def filtered(self, result: Result) -> None:
        """Query i takes rows whose numbers end in at most i % 9. FAISS on a device has no filter of each
        query's own, so its time is one of a search without any, and decides nothing."""
        ours = self.filled(result)
        most = np.arange(len(self.each)) % 9
        self._measure(result, ours, most)
        self._torch(result, most)
        self._preassigned(result)
        for name, peer in result["peers"].items():
            if name.startswith("faiss"):
                peer["other"] = "without the filter"
        beats_best(result, 5.0)

    def _torch(self, result: Result, most: Any, *, equal: bool = False) -> None:
        """Peers in this process. Their rows are given back before others are asked."""
        bench, rows = self.bench, self._rows(result)
        if rows is None:
            return
        there = self._queries()
        here = np.ascontiguousarray(data.to_host(there))
        if equal:
            n = bench.sizes.owner_rows
            bench.peers(result, peers.padded_batches(bench.device, rows, here, n, K))
            there_too = peers.padded_batches(bench.device, rows, there, n, K)
            bench.peers(result, there_too, "device_arrays_ms")
        bench.peers(result, peers.loop(bench.device, rows, here, self.each, K, most))

    def _measure(self, result: Result, ours: Ours, most: Any) -> None:
        """Ours, correct and timed. most: of each query the last digit that passes, or None."""
        bench, n = self.bench, len(self.each)
        queries = self._queries()
        here = np.ascontiguousarray(data.to_host(queries))
        segments: Any = whole(n, np.arange(n))
        if most is not None:
            segments = [(q, q, 0, ((0, 0, 0, int(most[q])),), (), None) for q in range(n)]
        ours.prove(here, segments, n, K)
        starts = np.concatenate([[0], np.cumsum(self.each)])

        def rows_of(q: int) -> tuple[Any, Any]:
            ids = np.arange(starts[q], starts[q + 1])
            rows = self._part(int(starts[q]), int(starts[q + 1]))
            if most is None:
                return ids, rows
            pass_ = ids % 10 <= most[q]
            return ids[pass_], rows[bench.device.xp.asarray(pass_)]

        found = ours.search(here, segments, K)
        bench.require(result, checks.scan(bench.device.xp, found, queries, rows_of, K, checks.spread(n)))
        floor = 2.0 * sum(self.each) * self.dim / bench.copy
        before = ours.clock()
        bench.compare(result, lambda: ours.search(here, segments, K), floor, {})
        result |= ours.since(before)
        bench.there(result, lambda: ours.search_there(queries, segments, K))
        ours.prove(here, segments, n, K)

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
            seconds = self.bench.for_peers(150.0)
            return float(self._asked.ask("faiss", "owners", spec, seconds, "search_preassigned"))

        if not self.bench.device.dry:
            self.bench.device.release()
            self.bench.peers(result, {"faiss search_preassigned": asked})
