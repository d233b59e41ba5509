"""Owners who are read from the log for searches that have no time to do it themselves."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import AbstractContextManager
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


class _Late(Exception):
    """The time of the search that reads is up."""


class ReadAhead:
    """One thread, while there is something to read. What it fails at is raised by the next search that needs
    it, unless somebody read it meanwhile or something of that owner was erased. Thread-safe.

    read: does it, or nothing where that is done. It calls `check` from time to time, and takes locks that
    others hold while they read as `held` has them.
    """

    def __init__(self, read: Callable[[int, What], None]) -> None:
        self._read = read
        self._changed = threading.Condition()
        self._waiting: OrderedDict[Key, Unread] = OrderedDict()
        """The first is the one that is read."""
        self._failed: dict[Key, Exception] = {}
        self._outdated = False
        """Whether somebody else read the first since it was begun, or something of its owner was erased."""
        self._paces: dict[What, float] = {}
        self._since = 0.0
        """When the first was begun."""
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._mine = threading.local()

    def took(self, what: What, rows: int, seconds: float) -> None:
        """So long it took somebody to read so many rows."""
        if rows >= _LEAST:
            pace = seconds / rows
            self._paces[what] = pace + _MEAN * (self._paces.get(what, pace) - pace)

    def came(self, owner: int, what: What) -> None:
        """Somebody read it: what failed before is over."""
        with self._changed:
            self._failed.pop((owner, what), None)
            self._outdated |= (owner, what) == next(iter(self._waiting), None)

    def forget(self, owner: int) -> None:
        """Something of an owner was erased, or he is not loaded any more: what failed before is over."""
        with self._changed:
            for key in list(self._failed):
                if key[0] == owner:
                    self._failed.pop(key, None)
            self._outdated |= owner == next(iter(self._waiting), (None, ""))[0]

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
                    raise self._failed.pop(key)  # no name here may hold it: its frames will hold the store

        def ended() -> bool:
            check()
            while left and left[0] not in self._waiting:
                left.popleft()
            return self._stopped or not left

        giving_up = contextlib.nullcontext() if cancellation is None else cancellation.waking(self._tell)
        with giving_up, self._changed:
            check()
            moments = 2 * sum(one.rows * self._paces.get(one.what, _SLOW) for one in unread)
            read_now = (
                next(iter(self._waiting), None) in keys
            )  # who began it too would be in the thread's way
            if (moments <= seconds and not read_now) or not self._begin(unread):
                return True
            if not keys <= self._waiting.keys() or self._expected(keys, 0.0 if patient else _SLOW) > seconds:
                return False
            return self._changed.wait_for(ended, seconds)

    def read(self, unread: Sequence[Unread], until: float) -> bool:
        """Read these now, for the search that asks; whether that was done by then (time.monotonic()). What is
        left of them is the thread's, which begins anew: how many rows these are is roughly known at best."""
        left = deque(unread)
        self._mine.until = until
        try:
            while left:
                self.check()
                self._read(left[0].owner, left[0].what)
                left.popleft()
            return True
        except _Late:
            pass
        finally:
            self._mine.until = None
        with self._changed:
            self._begin(left)
        return False

    def check(self) -> None:
        """End what is read, by what this raises: in the thread once nobody waits for it any more, in a search
        once its time is up."""
        if threading.current_thread() is self._thread and self._over():
            raise StoreClosed("the store was closed while an owner was read")
        left = self._left()
        if left is not None and left <= 0.0:
            raise _Late

    def held(self, lock: threading.Lock) -> AbstractContextManager[object]:
        """A lock, to be waited for no longer than the search that reads has time."""
        left = self._left()
        return lock if left is None else _held(lock, left)

    def stop(self) -> None:
        """Nothing is begun any more. Waits for nobody. Idempotent."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            self._failed.clear()
            self._changed.notify_all()

    def close(self) -> None:
        """As stop, and waits a while for what is under way."""
        self.stop()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_PATIENCE)

    def _left(self) -> float | None:
        """Seconds that the search has which this thread reads for; None where there is no such search."""
        until: float | None = getattr(self._mine, "until", None)
        return None if until is None else until - time.monotonic()

    def _over(self) -> bool:
        """Whether nobody waits for the thread any more."""
        return self._stopped or not threading.main_thread().is_alive()

    def _begin(self, unread: Iterable[Unread]) -> bool:
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
                except Exception as error:  # noqa: BLE001  it belongs to who asks next
                    # What it meets once nobody waits, as where no more threads are begun, is no failure.
                    if isinstance(error, StoreClosed) or self._over():
                        self.stop()
                    else:
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
                self._outdated = False
                return next(iter(self._waiting.values()))
            self._end()
            return None

    def _done(self, one: Unread, failure: Exception | None = None) -> None:
        with self._changed:
            if failure is not None and self._outdated and one.key in self._waiting:
                self._waiting.move_to_end(one.key)  # it is looked at again
                return
            self._waiting.pop(one.key, None)
            if failure is not None and not self._stopped and len(self._failed) < _MOST:
                self._failed[one.key] = _bare(failure)
            self._changed.notify_all()
        if failure is not None:
            events.tell(events.ERROR, "reading failed", what=one.what, error=type(failure).__name__)

    def _end(self) -> None:
        """For holders of the lock: what is to be read from now on needs another thread."""
        if self._thread is threading.current_thread():
            self._thread = None
        self._changed.notify_all()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()


@contextlib.contextmanager
def _held(lock: threading.Lock, left: float) -> Iterator[None]:
    if not lock.acquire(timeout=max(0.0, left)):
        raise _Late
    try:
        yield
    finally:
        lock.release()


def _bare(error: Exception) -> Exception:
    """Without the frames that it and what led to it went through: these hold texts, which may be erased."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
