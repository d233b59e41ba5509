"""Owners who are read from the log for searches that have no time to do it themselves."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence, Set
from typing import Final, Literal, NamedTuple

from ..errors import StoreClosed
from ..ops import events
from ..ops.cancel import current

What = Literal["rows", "words", "entities"]
Key = tuple[int, What]

_LEAST: Final = 1024
"""Rows of a reading that tells how long one takes: of fewer the rest of the work would be counted too."""
_SLOW: Final = 5e-5
"""Seconds for a row, where nothing is known yet: three times what it takes on a slow core."""
_MEAN: Final = 0.5
_MOST: Final = 4096
_PATIENCE: Final = 5.0


class Unread(NamedTuple):
    """What a search lacks of an owner. rows: how many these are, roughly."""

    owner: int
    what: What
    rows: int

    @property
    def key(self) -> Key:
        return self.owner, self.what


class ReadAhead:
    """One thread, while there is something to read. What it fails at is raised by the next search that needs
    it. Thread-safe.

    read: does it. It calls `check` from time to time.
    """

    def __init__(self, read: Callable[[int, What], None]) -> None:
        self._read = read
        self._changed = threading.Condition()
        self._waiting: OrderedDict[Key, Unread] = OrderedDict()
        """The first is the one that is read."""
        self._failed: dict[Key, Exception] = {}
        self._paces: dict[What, float] = {}
        self._since = 0.0
        """When the first was begun."""
        self._thread: threading.Thread | None = None
        self._stopped = False

    def took(self, what: What, rows: int, seconds: float) -> None:
        """So long it took somebody to read so many rows."""
        if rows >= _LEAST:
            pace = seconds / rows
            self._paces[what] = pace + _MEAN * (self._paces.get(what, pace) - pace)

    def within(self, unread: Sequence[Unread], seconds: float, *, patient: bool) -> bool:
        """Whether a search goes on: with what was read for it, or since it is a matter of moments or cannot
        be done here, and the search does it. Else it is read in time for another; that is said at once where
        it is to be expected, or after so many seconds. patient: also where nothing is known, since nothing
        takes its place. Raises what reading it raised, and DeadlineExceeded when the caller has given up."""
        keys = {one.key for one in unread}
        left = deque(one.key for one in unread)
        cancellation = current.get()

        def check() -> None:
            if cancellation is not None:
                cancellation.check()
            for key in self._failed:
                if key in keys:
                    raise self._failed.pop(key)  # no name here may hold it: its frames hold the store

        def ended() -> bool:
            check()
            while left and left[0] not in self._waiting:
                left.popleft()
            return self._stopped or not left

        giving_up = contextlib.nullcontext() if cancellation is None else cancellation.waking(self._tell)
        with giving_up, self._changed:
            check()
            moments = 2 * sum(one.rows * self._paces.get(one.what, _SLOW) for one in unread)
            if moments <= seconds or not self._begin(unread):
                return True
            if not keys <= self._waiting.keys() or self._expected(keys, 0.0 if patient else _SLOW) > seconds:
                return False
            return self._changed.wait_for(ended, seconds)

    def check(self) -> None:
        """Raise StoreClosed in the thread once nobody waits for it any more."""
        if threading.current_thread() is self._thread and (
            self._stopped or not threading.main_thread().is_alive()
        ):
            raise StoreClosed("the store was closed while an owner was read")

    def stop(self) -> None:
        """Nothing is begun any more. Waits for nobody. Idempotent."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            self._failed.clear()  # their frames hold the store
            self._changed.notify_all()

    def close(self) -> None:
        """As stop, and waits a while for what is under way."""
        self.stop()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_PATIENCE)

    def _begin(self, unread: Sequence[Unread]) -> bool:
        """For holders of the lock. Whether it is, or will be, read by the thread."""
        if self._stopped:
            return False
        if not self._waiting:
            self._since = time.monotonic()
        for one in unread:
            if len(self._waiting) < _MOST:
                self._waiting.setdefault(one.key, one)
        if self._thread is None and self._waiting:
            # The interpreter waits for it in the end: torn off, native code would bring the process down.
            thread = threading.Thread(target=self._work, name="warpmem-read-ahead", daemon=False)
            try:
                thread.start()
            except RuntimeError:  # no more threads
                self._waiting.clear()
                return False
            self._thread = thread
        return True

    def _expected(self, keys: Set[Key], unknown: float) -> float:
        """Seconds until these are read. unknown: for a row where nothing is known. For holders of the
        lock."""
        last = 0.0
        total = self._since - time.monotonic()
        for key, one in self._waiting.items():
            total = max(0.0, total + one.rows * self._paces.get(one.what, unknown))
            last = total if key in keys else last
        return last

    # ------------------------------------------------------------------------------------- thread

    def _work(self) -> None:
        try:
            while (one := self._next()) is not None:
                try:
                    self.check()
                    self._read(one.owner, one.what)
                except StoreClosed:
                    self.stop()
                except Exception as error:  # noqa: BLE001  it belongs to who asks next
                    self._done(one, error)
                else:
                    self._done(one)
        finally:
            with self._changed:
                self._end()

    def _next(self) -> Unread | None:
        with self._changed:
            if self._waiting:
                self._since = time.monotonic()
                return next(iter(self._waiting.values()))
            self._end()
            return None

    def _done(self, one: Unread, failure: Exception | None = None) -> None:
        if failure is not None:
            events.tell(events.ERROR, "reading failed", what=one.what, error=type(failure).__name__)
        with self._changed:
            self._waiting.pop(one.key, None)
            if failure is not None and not self._stopped and len(self._failed) < _MOST:
                self._failed[one.key] = failure
            self._changed.notify_all()

    def _end(self) -> None:
        """For holders of the lock: what is to be read from now on needs another thread."""
        if self._thread is threading.current_thread():
            self._thread = None
        self._changed.notify_all()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()
