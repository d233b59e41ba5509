"""The pool that is measured: filled from blocks of the device, loaded whole, and asked where it lies."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import data
import numpy as np
import peers
from device import Device

from warpmem.records import SegmentTable

ROW_BYTES = 3.25
"""Bytes of a float16 row with its codes, columns and share of a page, for each dimension."""

AT_ONCE = 64
"""Lists that are loaded between two looks at the clock."""


class Ours:
    """A pool of the backend that is measured. vram_bytes: what it may take, nine tenths of what is free by
    default."""

    def __init__(
        self, device: Device, dim: int, *, storage: str = "f16", vram_bytes: int | None = None
    ) -> None:
        self.device = device
        limit = int(device.free_bytes() * 0.9) if vram_bytes is None else vram_bytes
        made = device.backend(least_work=0, vram_bytes=limit, pinned_bytes=0)
        options = {} if device.reference else {"threads": device.threads}
        self.pool: Any = made.pool(dim, 1, storage=storage, **options)
        self.on_device = hasattr(self.pool, "tiers")
        self._rows = 0

    def add(self, list_ids: Any, rows: Any) -> None:
        """Rows of the device, by list. Row ids count on from the last, and column 0 is their last digit."""
        host = np.ascontiguousarray(data.to_host(rows), np.float32)
        ids = np.arange(self._rows, self._rows + len(host), dtype=np.int64)
        self._rows += len(host)
        self.pool.apply([], list_ids, ids, ids.astype(np.uint32), (ids % 10)[:, None], host)

    def fill(self, parts: Iterable[tuple[int, Any]]) -> Ours:
        """All of `data.blocks` into list 0, and onto the device."""
        for _, rows in parts:
            self.add(np.zeros(len(rows), np.int64), rows)
        self.load()
        return self

    def load(self, until: float = math.inf) -> int:
        """Lists onto the device in their order, as many as there is time for until that moment (of the
        monotonic clock); how many. Unavailable when it does not hold all of these."""
        wanted = sorted(self.pool.lists())
        done = 0 if self.on_device else len(wanted)
        while done < len(wanted) and (done == 0 or time.monotonic() < until):
            self.pool.warm(wanted[done : done + AT_ONCE], wait=True)
            done = min(done + AT_ONCE, len(wanted))
            there = self.pool.tiers()["lists"]
            if there != done:
                raise peers.Unavailable(f"the device holds {there} of {done} lists")
        return done

    def search(self, queries: Any, segments: Any, k: int) -> Any:
        """(scores, similarities, list ids, row ids, counts) from host arrays to host arrays, as a memory
        searches."""
        return self.pool.scan(queries, segments, k)

    def search_there(self, queries: Any, segments: Any, k: int) -> Any:
        """The same from device arrays to device arrays, made and given back within the call. Queries are
        also fetched to the host, which plans the scan."""
        where = {} if self.device.dry else {"results": "device"}
        return self.pool.scan(queries, segments, k, **where)

    def prove(self, queries: Any, segments: Any, lists: int, k: int) -> None:
        """Unavailable unless the device itself answers for all `lists`: the host would, in silence."""
        if not self.on_device:
            return
        said = self.pool.scan(queries, segments, k, explain=True)[5]
        if said["device_lists"] != lists or said["device_failed"]:
            reason = said["device_failure"] or "they are not loaded"
            raise peers.Unavailable(
                f"the device answered for {said['device_lists']} of {lists} lists: {reason}"
            )

    def clock(self) -> dict[str, Any]:
        """Counters of the device; empty without one."""
        return dict(self.pool.tiers()) if self.on_device else {}

    def since(self, before: dict[str, Any]) -> dict[str, float]:
        """device_ms: what a search took since then by the device's own clock."""
        now = self.clock()
        searches = now.get("searches", 0) - before.get("searches", 0)
        return {"device_ms": (now["device_ms"] - before["device_ms"]) / searches} if searches else {}


def whole(n: int, lists: Any = None) -> SegmentTable:
    """Query i over lists[i], or all over list 0."""
    return SegmentTable(np.arange(n), np.zeros(n, np.int64) if lists is None else lists)


class Least:
    """In a dry run, the counts of a cache that keeps the `room` lists that were asked for last."""

    def __init__(self, pool: Any, room: int) -> None:
        self._pool, self._room = pool, room
        self._kept: OrderedDict[int, None] = OrderedDict()
        self.counts = {"hits": 0, "misses": 0}

    def scan(self, queries: Any, segments: Any, k: int) -> Any:
        for list_id in segments.lists.tolist():
            self.counts["hits" if list_id in self._kept else "misses"] += 1
            self._kept[list_id] = None
            self._kept.move_to_end(list_id)
            while len(self._kept) > self._room:
                self._kept.popitem(last=False)
        return self._pool.scan(queries, segments, k)

    def tiers(self) -> dict[str, int]:
        return dict(self.counts)
