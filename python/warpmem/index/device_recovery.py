"""A device that failed is tried again: by a thread, after pauses that grow, until it answers its pools."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from typing import Final, Protocol

from ..errors import BackendUnavailable, DeadlineExceeded, Overloaded
from ..ops import events
from ..ops.cancel import Cancellation, current

_LONGEST_PAUSE: Final = 300.0
_MOST_DOUBLINGS: Final = 64
_PATIENCE: Final = 5.0
"""Seconds that close() waits for a driver that is at work."""


class Rebuildable(Protocol):
    """A pool before which a device stands. Hashed by identity."""

    @property
    def pause(self) -> float:
        """Seconds before the first try; 0: it is not tried by itself."""
        ...

    @property
    def failed(self) -> bool:
        """Whether the device answers nothing. Waits for nobody."""
        ...

    @property
    def device(self) -> int | None: ...

    def rebuild(self, *, at_a_turn: bool = False) -> bool: ...


class Pauses:
    """When to try again. Has no clock: it is told the time, in seconds.

    The pause doubles with each try that fails and each failure that follows, up to five minutes, or to
    `first` where that is more; a device that has held for so long begins anew."""

    def __init__(self) -> None:
        self._doublings = 0
        self._answered: float | None = None

    def failed(self, now: float, first: float) -> float:
        """Seconds until the next try. first: of a device that fails for the first time."""
        longest = max(first, _LONGEST_PAUSE)
        if self._answered is not None and now - self._answered >= longest:
            self._doublings = 0
        self._answered = None
        pause = min(longest, first * 2.0**self._doublings)
        self._doublings = min(self._doublings + 1, _MOST_DOUBLINGS)
        return pause

    def answered(self, now: float) -> None:
        self._answered = now


class DeviceRecovery:
    """Has one device tried again for all pools before which it stands, and tells the log of it. Thread-safe.
    In a fork of the process it does nothing: the device is the parent's. The first pause is the shortest that
    a pool asks for.

    clock: seconds, never going back. wait: as Condition.wait_for.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Condition, Callable[[], bool], float], bool] = threading.Condition.wait_for,
    ) -> None:
        self._pauses = Pauses()
        self._clock = clock
        self._wait = wait
        self._process = os.getpid()
        # The collector may have a pool stopped in a thread that holds it: it may be taken twice.
        self._changed = threading.Condition()
        self._pools: weakref.WeakSet[Rebuildable] = weakref.WeakSet()
        self._known: weakref.WeakSet[Rebuildable] = weakref.WeakSet()
        """Those that failed with the device, as was counted."""
        self._thread: threading.Thread | None = None
        self._trying: tuple[Rebuildable, Cancellation] | None = None
        self._stopped = False
        self._failed_at: float | None = None
        self.failures = 0
        """Of the device, however many pools it stands before."""
        self.rebuilds = 0
        with _lock:
            _all.add(self)

    @property
    def ours(self) -> bool:
        """Whether the device is this process's, and not the parent's of a fork."""
        return os.getpid() == self._process

    def join(self, pool: Rebuildable) -> None:
        """Try the device for `pool` too, which is not kept. One that was made while the device is known to
        have failed may show that it answers."""
        with self._changed:
            self._pools.add(pool)
            answered = self._failed_at is not None and not pool.failed
        weakref.finalize(pool, self._collected).atexit = False
        if answered:
            self.answered(pool)

    def notice(self, pool: Rebuildable) -> None:
        """The pool's device answers nothing. Costs next to nothing to say again."""
        if pool in self._known and (self._thread is not None or not pool.pause):
            return
        if not self.ours:
            return
        thread = None
        with self._changed:
            if not pool.failed:  # by now it answers
                return
            known = self._failed_at is not None and any(other.failed for other in self._known)
            new = not known and pool not in self._known
            self._known.add(pool)
            if new:
                self.failures += 1
                self._failed_at = self._clock()
            if pool.pause and self._thread is None and not self._stopped:
                thread = threading.Thread(target=self._work, name="warpmem-rebuild", daemon=True)
                self._thread = thread
        if thread is not None:
            self._start(thread)
        if new:
            events.tell(events.WARNING, "device_failed", device=pool.device, failures=self.failures)

    def answered(self, pool: Rebuildable) -> None:
        """The pool's device was rebuilt. Others that failed with it are still to be."""
        with self._changed:
            now, failed_at = self._clock(), self._failed_at
            self._failed_at = None
            self._pauses.answered(now)
            self._known.update(other for other in self._pools if other.failed)
            self._known.discard(pool)
            self.rebuilds += failed_at is not None
            self._changed.notify_all()
        if failed_at is not None:
            events.tell(
                events.INFO,
                "device_rebuilt",
                device=pool.device,
                seconds=now - failed_at,
                rebuilds=self.rebuilds,
            )

    def stop(self, pool: Rebuildable) -> None:
        """Of a pool whose pause is 0 from now on: a try of it that waits gives up. Waits for nobody."""
        if self.ours:
            with self._changed:
                trying = self._trying
                self._changed.notify_all()
            if trying is not None and trying[0] is pool:
                trying[1].cancel()

    def close(self, pool: Rebuildable) -> None:
        """As stop, and waits a while for a try of the pool that is under way. Idempotent."""
        thread = self._thread
        self.stop(pool)
        if not self.ours or thread is None or thread is threading.current_thread():
            return
        with self._changed:
            self._changed.wait_for(lambda: self._trying is None or self._trying[0] is not pool, _PATIENCE)
            ending = self._trying is None and not self._left()
        if ending:
            with contextlib.suppress(RuntimeError):  # it has yet to begin, and will end at once
                thread.join(_PATIENCE)

    # ------------------------------------------------------------------------------------- thread

    def _start(self, thread: threading.Thread) -> None:
        """Not under the lock: starting takes another, which a thread may hold in which the collector stops
        a pool."""
        try:
            thread.start()
        except (RuntimeError, MemoryError):  # no more threads: the next that notices tries to have one
            with self._changed:
                self._thread = None

    def _stop_all(self) -> None:
        if self.ours:
            with self._changed:
                self._stopped = True
                trying = self._trying
                self._changed.notify_all()
            if trying is not None:
                trying[1].cancel()

    def _collected(self) -> None:
        """In any thread, whatever it holds. Where the lock is another's, the thread learns of it after
        its pause."""
        if self.ours and self._changed.acquire(blocking=False):
            self._changed.notify_all()
            self._changed.release()

    def _left(self) -> list[Rebuildable]:
        """Those to be tried. For holders of the lock."""
        return [] if self._stopped else [pool for pool in self._pools if pool.pause and pool.failed]

    def _work(self) -> None:
        try:
            pause = self._pause_after(0.0, failed=True)
            while self._slept(pause):
                pause = self._pause_after(pause, failed=self._try_all())
        finally:
            with self._changed:
                if self._thread is threading.current_thread():
                    self._thread = None

    def _pause_after(self, pause: float, *, failed: bool) -> float:
        """After a round; the same where the device was not asked, for others had it."""
        with self._changed:
            left = [pool.pause for pool in self._left()]
            return self._pauses.failed(self._clock(), min(left)) if left and failed else pause

    def _slept(self, pause: float) -> bool:
        """False once there is nothing left to be tried: then the thread is nobody's."""
        with self._changed:
            over = not self._left() or self._wait(self._changed, lambda: not self._left(), pause)
            if over:
                self._thread = None
            return not over

    def _try_all(self) -> bool:
        """One after the other; whether the device failed for one of them."""
        with self._changed:
            left = [weakref.ref(pool) for pool in self._left()]
        failed = False
        for of in left:
            pool = of()  # a pool that only this thread knows is nobody's
            if pool is not None:
                failed |= not self._tried(pool)
            del pool
        return failed

    def _tried(self, pool: Rebuildable) -> bool:
        """Whether the device answers, or was not asked."""
        cancellation = Cancellation()
        with self._changed:
            if self._stopped or not pool.pause:
                return True
            self._trying = pool, cancellation
        current.set(cancellation)
        try:
            return pool.rebuild(at_a_turn=True)
        except (Overloaded, DeadlineExceeded):
            return True
        except (BackendUnavailable, MemoryError, OSError, RuntimeError):
            return False
        finally:
            with self._changed:
                self._trying = None
                self._changed.notify_all()


_lock: Final = threading.Lock()
_all: Final[weakref.WeakSet[DeviceRecovery]] = weakref.WeakSet()
_recoveries: Final[weakref.WeakValueDictionary[Hashable, DeviceRecovery]] = weakref.WeakValueDictionary()


def recovery_of(place: Hashable) -> DeviceRecovery:
    """That of a device ("cuda:0"), made by the first who asks for it. A fork has others."""
    name = (os.getpid(), place)
    found = _recoveries.get(name)
    if found is None:
        made = DeviceRecovery()
        with _lock:
            found = _recoveries.setdefault(name, made)
    return found


def _close_all() -> None:
    """Torn off, native code would bring the process down."""
    with _lock:  # others may be made meanwhile
        recoveries = list(_all)
    threads = [recovery._thread for recovery in recoveries if recovery.ours]
    for recovery in recoveries:
        recovery._stop_all()
    ends = time.monotonic() + _PATIENCE
    for thread in threads:
        if thread is not None:
            with contextlib.suppress(RuntimeError):
                thread.join(max(0.0, ends - time.monotonic()))


atexit.register(_close_all)
