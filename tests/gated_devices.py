"""A device whose batches the tests hold up and look at, and its scheduler."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from warpmem.errors import DeadlineExceeded, InputError, ModelError, ModelUnavailable, Overloaded
from warpmem.ops.scheduler import Scheduler


class Device:
    """Doubles numbers; notes its batches and that it is never entered by more threads than it may."""

    def __init__(self, parallel: int = 1, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.parallel = parallel
        self.batches: list[tuple[Hashable, list[Any]]] = []
        self.threads: set[int] = set()
        self._free = threading.Semaphore(parallel)
        self.gate: threading.Event | None = None

    def open(self) -> None:
        assert self.gate is not None
        self.gate.set()

    def run(self, kind: Hashable, works: Sequence[Any]) -> list[Any]:
        assert self._free.acquire(blocking=False), "too many threads at once"
        try:
            if self.gate is not None:
                assert self.gate.wait(10)
            if self.seconds:
                time.sleep(self.seconds)
            self.batches.append((kind, list(works)))
            self.threads.add(threading.get_ident())
            if "refused" in works:
                raise InputError("refused")
            if "indigestible" in works:
                raise ModelError("indigestible")
            if "broken" in works:
                raise ModelUnavailable("broken")
            if "late" in works:
                raise DeadlineExceeded("late")
            if "full" in works:
                raise Overloaded("full", 7.0)
            return [2 * work for work in works]
        finally:
            self._free.release()


def gated(**options: Any) -> tuple[Device, Scheduler]:
    """A device that serves nothing until its gate is opened, and its scheduler."""
    device = Device()
    device.gate = threading.Event()
    return device, Scheduler(device.run, **options)


def occupy(pool: ThreadPoolExecutor, scheduler: Scheduler, tokens: int = 1) -> Future[list[Any]]:
    """The device is busy from now on, with a request of its own. tokens: what it costs; with many the device
    counts as fast, however long it is held up."""
    first = pool.submit(scheduler.submit, [0], [tokens])
    while not scheduler._serving:
        time.sleep(0.001)
    return first


def wait_for(scheduler: Scheduler, waiting: int) -> None:
    for _ in range(5000):
        if sum(scheduler.stats()["waiting"].values()) == waiting:
            return
        time.sleep(0.001)
    raise AssertionError(scheduler.stats())
