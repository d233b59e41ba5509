"""A device that failed is tried again: by a thread, after pauses that grow, until it answers."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final, Protocol

from ..errors import BackendUnavailable, DeadlineExceeded, Overloaded
from ..ops import events
from ..ops.cancel import Cancellation, current

_LONGEST_PAUSE: Final = 300.0
_PATIENCE: Final = 5.0
"""Seconds that close() waits for a driver that is at work."""


class Rebuildable(Protocol):
    """A pool before which a device stands."""

    @property
    def failure(self) -> str | None: ...

    @property
    def device(self) -> int | None: ...

    def rebuild(self, *, at_a_turn: bool = False) -> bool: ...


class Pauses:
    """When to try again. Has no clock: it is told the time, in seconds.

    The pause doubles with each try that fails and each failure that follows, up to five minutes, or to
    `first` where that is more; a device that has held for so long begins anew."""

    def __init__(self, first: float) -> None:
        self._first = first
        self._longest = max(first, _LONGEST_PAUSE)
        self._next = first
        self._answered: float | None = None

    def failed(self, now: float) -> float:
        """Seconds until the next try."""
        if self._answered is not None and now - self._answered >= self._longest:
            self._next = self._first
        self._answered = None
        pause, self._next = self._next, min(self._longest, 2 * self._next)
        return pause

    def answered(self, now: float) -> None:
        self._answered = now


class DeviceRecovery:
    """Has one pool's device tried again, and tells the log of it. Thread-safe. In a fork of the process it
    does nothing: the device is the parent's.

    pause: seconds before the first try; 0: rebuild() alone tries. clock: seconds, never going back. wait: as
    Condition.wait_for.
    """

    def __init__(
        self,
        pause: float = 0.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Condition, Callable[[], bool], float], bool] = threading.Condition.wait_for,
    ) -> None:
        self._automatic = pause > 0
        self._pauses = Pauses(min(pause, threading.TIMEOUT_MAX))
        self._clock = clock
        self._wait = wait
        self._process = os.getpid()
        # The collector may call stop() in a thread that holds it: its lock is one that may be taken twice.
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._cancellation = Cancellation()
        self._stopped = False
        self._failed_at: float | None = None
        self.failures = 0
        self.rebuilds = 0
        _all.add(self)

    def notice(self, pool: Rebuildable) -> None:
        """The pool's device answers nothing. Costs next to nothing to say again."""
        if self._failed_at is not None and (self._thread is not None or not self._automatic):
            return
        if os.getpid() != self._process:
            return
        with self._changed:
            new = self._failed_at is None
            if pool.failure is None:  # by now it answers
                return
            if new:
                self.failures += 1
                self._failed_at = self._clock()
            if self._automatic and self._thread is None and not self._stopped:
                self._start(pool)
        if new:
            events.tell(events.WARNING, "device_failed", device=pool.device, failures=self.failures)

    def answered(self, pool: Rebuildable) -> None:
        """The pool's device was rebuilt: the thread ends."""
        with self._changed:
            now, failed_at = self._clock(), self._failed_at
            self._failed_at = None
            self._pauses.answered(now)
            self.rebuilds += 1
            self._end()
        seconds = 0.0 if failed_at is None else now - failed_at
        events.tell(
            events.INFO, "device_rebuilt", device=pool.device, seconds=seconds, rebuilds=self.rebuilds
        )

    def stop(self) -> None:
        """Nothing is tried any more. Does not wait for a try that is under way."""
        if os.getpid() == self._process:
            with self._changed:
                self._stopped = True
                self._end()
            self._cancellation.cancel()

    def close(self) -> None:
        """As stop, and waits a while for a try that is under way. Idempotent."""
        thread = self._thread
        self.stop()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_PATIENCE)

    # ------------------------------------------------------------------------------------- thread

    def _start(self, pool: Rebuildable) -> None:
        """For holders of the lock."""
        of = weakref.ref(pool, lambda _: self.stop())
        pause = self._pauses.failed(self._clock())
        thread = threading.Thread(target=self._work, args=(of, pause), name="warpmem-rebuild", daemon=True)
        self._thread = thread
        try:
            thread.start()
        except RuntimeError:  # no more threads: the next that notices tries to have one
            self._thread = None

    def _end(self) -> None:
        """For holders of the lock."""
        self._thread = None
        self._changed.notify_all()

    def _work(self, of: weakref.ref[Rebuildable], pause: float) -> None:
        current.set(self._cancellation)
        this = threading.current_thread()
        try:
            while True:
                with self._changed:
                    if self._wait(self._changed, lambda: self._thread is not this, pause):
                        return
                pool = of()
                if pool is None:
                    return
                try:
                    if pool.rebuild(at_a_turn=True):
                        return
                    pause = self._pauses.failed(self._clock())
                except (Overloaded, DeadlineExceeded):  # others have the device: it was not tried
                    pass
                except (BackendUnavailable, MemoryError, OSError, RuntimeError):
                    pause = self._pauses.failed(self._clock())
                del pool  # a pool that only this thread knows is nobody's
        finally:
            with self._changed:
                if self._thread is this:
                    self._end()


_all: Final[weakref.WeakSet[DeviceRecovery]] = weakref.WeakSet()


def _close_all() -> None:
    """Torn off, native code would bring the process down."""
    for recovery in list(_all):
        recovery.close()


atexit.register(_close_all)
