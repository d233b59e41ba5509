"""Lists on their way to a device that others use besides: loaded piece by piece, each at its turn."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from ..errors import Overloaded
from ..ops.cancel import current
from ..ops.scheduler import Scheduler

_PATIENCE: Final = 1.0


class DeviceLoader:
    """Loads what waits in a `_cuda.PageCache`, in the background lane of the device's scheduler, so that an
    embedder on the same device goes before it. One thread, while there is something. Thread-safe.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._more = False
        self._turn = contextlib.ExitStack()

    def wake(self, cache: Any) -> None:
        """Load what waits in the cache, if anything does."""
        if not cache.waiting:
            return
        with self._changed:
            self._more = True
            if self._thread is None:
                # The interpreter waits for it in the end: torn off, native code would bring the process down.
                thread = threading.Thread(
                    target=self._load, args=(cache,), name="warpmem-upload", daemon=False
                )
                with contextlib.suppress(RuntimeError):  # no more threads: the host answers meanwhile
                    thread.start()
                    self._thread = thread

    def settle(self) -> None:
        """Wait until nothing waits to be loaded. Raises DeadlineExceeded when the caller has given up."""
        cancellation = current.get()

        def settled() -> bool:
            if self._thread is not None and cancellation is not None:
                cancellation.check()
            return self._thread is None

        giving_up = contextlib.nullcontext() if cancellation is None else cancellation.waking(self._tell)
        with giving_up, self._changed:
            self._changed.wait_for(settled)

    def alone(self, do: Callable[[], bool]) -> bool:
        """What `do` returns, at a turn of its own, while nothing is loaded. Raises Overloaded, and
        DeadlineExceeded when the caller has given up."""
        while True:
            self.settle()
            with self._scheduler.turn("background"):
                if self._thread is None:  # else it waits for this turn, in the middle of a load perhaps
                    return do()

    def between(self) -> None:
        """Called by the cache in the middle of a load, after the time that a turn may take: let others have
        the device, and wait for the next turn."""
        self._turn.close()
        self._begin()

    # ------------------------------------------------------------------------------------- thread

    def _load(self, cache: Any) -> None:
        try:
            while True:
                self._more = False
                while self._next(cache):
                    pass
                with self._changed:
                    if not self._more:
                        self._end()
                        return
        finally:
            with self._changed:
                if self._thread is threading.current_thread():
                    self._end()

    def _next(self, cache: Any) -> bool:
        self._begin()
        try:
            loaded: bool = cache.load_next()
        finally:
            self._turn.close()
        return loaded

    def _begin(self) -> None:
        while True:
            try:
                self._turn.enter_context(self._scheduler.turn("background"))
                return
            except Overloaded as error:
                time.sleep(min(error.retry_after, _PATIENCE))

    def _end(self) -> None:
        self._thread = None
        self._changed.notify_all()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()
