"""What a store counts of its calls, for metrics(), and tells of them to the log (ops/events.py)."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from ..errors import WarpmemError
from ..ops import events
from ..ops.metrics import Family, Histogram, Sample
from ..ops.tracing import NO_SPAN
from ..protocols import Tracer
from ..types import SearchResult

_STAGES: Final = ("prepare", "scan", "fetch", "rerank")


class Telemetry:
    """Counts since the store was opened. Thread-safe; a search costs it a few microseconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stages = {stage: Histogram() for stage in (*_STAGES, "all")}
        self._prepare, self._scan, self._fetch, self._rerank, self._all = self._stages.values()
        self._searches = 0
        self._degraded: Counter[str] = Counter()
        self._adds = Histogram()
        self._actions: Counter[str] = Counter()
        self._errors: Counter[tuple[str, str]] = Counter()

    def searched(self, results: Sequence[SearchResult]) -> None:
        """Searches that went together were answered."""
        if not results:
            return
        timings, degraded = results[0].timings, results[0].degraded
        prepare, scan, fetch = timings["prepare"], timings["scan"], timings["fetch"]
        total = prepare + scan + fetch
        with self._lock:
            self._searches += len(results)
            self._prepare.observe(prepare)
            self._scan.observe(scan)
            self._fetch.observe(fetch)
            if "rerank" in timings:
                rerank = sum(result.timings["rerank"] for result in results)
                total += rerank
                self._rerank.observe(rerank)
            self._all.observe(total)
            if degraded:
                self._degraded.update(part for result in results for part in result.degraded)
        if degraded:
            events.tell(events.DEBUG, "degraded", skipped=list(degraded), queries=len(results))
        if events.wanted(events.DEBUG):
            events.tell(
                events.DEBUG, "search", queries=len(results), hits=sum(map(len, results)), seconds=total,
                stages=dict(timings), backend=results[0].backend, skipped=list(degraded),
            )  # fmt: skip

    def condensed(self, degraded: tuple[str, ...]) -> None:
        """The long items of a context were cut, without what `degraded` names."""
        if degraded:
            with self._lock:
                self._degraded.update(degraded)
            events.tell(events.DEBUG, "degraded", skipped=list(degraded), queries=1)

    @contextmanager
    def adding(self, items: int, tracer: Tracer | None) -> Iterator[list[str]]:
        """While items are being added: the block says in what it is given what became of each."""
        began, done = time.perf_counter(), list[str]()
        try:
            with NO_SPAN if tracer is None else tracer.span("add", items=items):
                yield done
        except WarpmemError as error:
            self.failed("add", error)
            raise
        seconds = time.perf_counter() - began
        with self._lock:
            self._adds.observe(seconds)
            for action in done:
                self._actions[action] += 1
        events.tell(events.DEBUG, "add", count=items, seconds=seconds)

    def failed(self, call: str, error: WarpmemError) -> None:
        """A call raised."""
        name = type(error).__name__
        with self._lock:
            self._errors[call, name] += 1
        events.tell(events.DEBUG, "failed", call=call, error=name)

    def families(self) -> list[Family]:
        """What was counted."""
        with self._lock:
            stages = [
                sample
                for stage, histogram in self._stages.items()
                for sample in histogram.samples({"stage": stage})
            ]
            adds = self._adds.samples({})
            searches = self._searches
            degraded = [Sample({"part": part}, count) for part, count in sorted(self._degraded.items())]
            actions = [Sample({"action": name}, count) for name, count in sorted(self._actions.items())]
            errors = [
                Sample({"call": call, "error": name}, count)
                for (call, name), count in sorted(self._errors.items())
            ]
        return [
            Family(
                "warpmem_searches_total", "counter", "Searches that were answered.", [Sample({}, searches)]
            ),
            Family("warpmem_search_seconds", "histogram", "Seconds of searches, by stage.", stages),
            Family(
                "warpmem_degraded_total",
                "counter",
                "Parts of searches and contexts left out under load.",
                degraded,
            ),
            Family("warpmem_added_total", "counter", "Items given to add, by what that did.", actions),
            Family("warpmem_add_seconds", "histogram", "Seconds of calls that add.", adds),
            Family("warpmem_errors_total", "counter", "Calls that raised, by exception.", errors),
        ]
