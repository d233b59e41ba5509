"""Times on a machine that does other work, too."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

import numpy as np


@contextmanager
def undisturbed() -> Iterator[bool]:
    """Whether this thread has a processor to itself within, which takes the right to a real-time policy."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    have = False
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        have = True
    try:
        yield have
    finally:
        if have:
            os.sched_setscheduler(0, before[0], before[1])


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def rounds(calls: Mapping[str, Callable[[], object]], n: int) -> dict[str, list[float]]:
    """Seconds of each call in each of n rounds, after one that does not count. In every round all take turns
    in an order of its own, so that a slow moment of the machine hits all and none always comes first."""
    order = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    with undisturbed():
        for _ in range(n):
            for name in order.permutation(list(calls)).tolist():
                times[name].append(seconds(calls[name]))
    return times


def ratio(of: list[float], to: list[float]) -> float:
    """The median over the rounds of a time divided by another."""
    return statistics.median(a / b for a, b in zip(of, to, strict=True))


def processor(call: Callable[[], object], times: int = 3) -> float:
    """The least processor time of some calls: for choices, which need no clock that others can disturb."""
    spent = []
    for _ in range(times):
        began = time.process_time()
        call()
        spent.append(time.process_time() - began)
    return min(spent)
