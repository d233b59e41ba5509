"""Time that passes when a test says so, for threads that wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_PATIENCE = 20.0


class VirtualTime:
    """Seconds. `clock` and `wait` are what DeviceRecovery takes."""

    def __init__(self) -> None:
        self._now = 0.0
        self._changed: set[threading.Condition] = set()
        self._waiting = 0
        self.pauses: list[float] = []
        """What was waited for, in order."""

    def clock(self) -> float:
        return self._now

    def wait(self, changed: threading.Condition, over: Callable[[], bool], seconds: float) -> bool:
        self._changed.add(changed)
        until = self._now + seconds
        self.pauses.append(seconds)
        self._waiting += 1
        try:
            passed = changed.wait_for(lambda: over() or self._now >= until, _PATIENCE)
        finally:
            self._waiting -= 1
        assert passed, "nobody advanced the time"
        return over()

    def advance(self, seconds: float) -> None:
        """Once somebody waits for it."""
        eventually(lambda: self._waiting > 0)
        self._now += seconds
        for changed in list(self._changed):
            with changed:
                changed.notify_all()


def eventually(true: Callable[[], bool]) -> None:
    """In real time, what other threads are about to do."""
    ends = time.monotonic() + _PATIENCE
    while not true():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.002)


def threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]
