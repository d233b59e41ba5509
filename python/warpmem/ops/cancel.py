"""A caller who gives up, and the thread that waits for something on his behalf."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from ..errors import DeadlineExceeded


class Cancellation:
    """Set by the caller, from any thread; looked at by a thread wherever it waits. Once."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # the collector may have a call given up in the thread that holds it
        self._wake: Callable[[], object] | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """Wake the thread, if it waits where it can be woken."""
        with self._lock:
            self._cancelled = True
            if self._wake is not None:
                self._wake()

    @contextmanager
    def waking(self, wake: Callable[[], object]) -> Iterator[None]:
        """Have `wake` called when the caller gives up within the block, or has done so before."""
        with self._lock:
            self._wake = wake
            if self._cancelled:
                wake()
        try:
            yield
        finally:
            with self._lock:
                self._wake = None

    def check(self) -> None:
        """Raises DeadlineExceeded once the caller has given up; nobody waits for that."""
        if self._cancelled:
            raise DeadlineExceeded("the caller gave up before its turn came; nothing was changed")


current: Final[ContextVar[Cancellation | None]] = ContextVar("current", default=None)
"""That of the call which this thread works for."""
