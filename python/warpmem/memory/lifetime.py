"""From opening to closing: when a Memory may be used, and that it gives its store back."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Final

from ..errors import StoreClosed
from ..ops import events

_PATIENCE: Final = 1.0
_PACKAGE: Final = __name__.partition(".")[0] + "."


class Lifetime:
    """The time in which `owner` may be used. Thread-safe.

    release: called by close(), again when it was interrupted, or when the owner is dropped without it, at the
    latest when Python ends. Never in a forked child, which lacks the threads that may hold locks: it touches
    nothing of the store.
    """

    def __init__(self, owner: object, release: Callable[[], None]) -> None:
        self._refusal: str | None = None
        self._closing = threading.Lock()
        self._release = release
        self._dropped = weakref.finalize(owner, release)
        _lifetimes.add(self)

    def check(self) -> None:
        """Raise StoreClosed unless the owner may be used."""
        if self._refusal is not None:
            raise StoreClosed(self._refusal)

    def close(self, before: Callable[[], None], *, amid: bool = False) -> None:
        """Call `before`, whatever it raises, and release. Idempotent. amid: the thread is in another call,
        which may hold what they need; so another thread does it, for which this waits a while."""
        if self._refusal is not None:
            return
        if not amid:
            self._close(before)
            return
        failures: list[BaseException] = []
        thread = threading.Thread(target=self._close_beside, args=(before, failures), name="warpmem-close")
        thread.start()
        thread.join(_PATIENCE)
        if failures:
            raise failures[0]

    def _close_beside(self, before: Callable[[], None], failures: list[BaseException]) -> None:
        try:
            self._close(before)
        except BaseException as error:  # noqa: BLE001  it belongs to who closes, if he is still there
            failures.append(error)
            events.tell(events.ERROR, "closing failed", error=type(error).__name__)

    def _close(self, before: Callable[[], None]) -> None:
        with self._closing:
            if self._refusal is not None:
                return
            try:
                before()
            finally:
                try:
                    self._release()
                except Exception:
                    self._end()
                    raise
                self._end()

    def _end(self) -> None:
        self._refusal = "this Memory was closed; open the store again"
        self._dropped.detach()

    def _fork(self) -> None:
        self._refusal = (
            "this Memory was opened before a fork and is the parent's: open the store in the child for "
            "reading only; start a process that writes by spawn, forkserver or exec"
        )
        self._dropped.detach()


def amid_a_call(log: object) -> bool:
    """Whether who calls close() stands in the middle of another call of the store with this log: as a signal
    handler, which the main thread runs wherever it is, or a function that was given to that call. What of the
    package is at work on a store has its log."""
    if threading.current_thread() is not threading.main_thread():
        return False
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(_PACKAGE) and frame.f_code.co_name != "__exit__":
            part = frame.f_locals.get("self")
            if part is log or getattr(part, "_log", None) is log:
                return True
        frame = frame.f_back
    return False


_lifetimes: weakref.WeakSet[Lifetime] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for lifetime in list(_lifetimes):
        lifetime._fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
