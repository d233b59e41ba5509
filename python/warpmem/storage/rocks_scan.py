"""Ordered walks over a family of RocksDB: an entry at a time, or many."""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import StoreClosed, StoreCorrupt
from .rocks_errors import call


class Scan(Iterator[tuple[bytes, bytes]]):
    """One scan. A RocksDB iterator is a snapshot from when it was made, which is when begin() was called.

    It keeps the files of that moment. When they must go, the scan goes on behind its last entry with an
    iterator of now. One thread walks; let_go() and abandon() may come from any other.
    """

    def __init__(
        self,
        closed: Callable[[], str],
        iterate: Callable[[], Any],
        start: bytes,
        stop: bytes,
        reverse: bool,
    ) -> None:
        self._closed = closed
        self._iterate: Callable[[], Any] | None = iterate
        self._iterator: Any = None
        self._start = start
        self._stop = stop
        self._reverse = reverse
        self._done = start >= stop
        self._begun = False

    def begin(self) -> None:
        """Make the iterator, once those who let walks go know of this one. Raises StoreClosed, StoreError."""
        self._again()

    def __next__(self) -> tuple[bytes, bytes]:
        if self._done:
            raise StopIteration
        iterator = self._iterator
        if iterator is None:
            iterator = self._again()
        entry = call(self._step, iterator)
        if entry is None:
            self._done = True
            self._iterator = None
            raise StopIteration
        if self._reverse:
            self._stop = entry[0]
        else:
            self._start = entry[0] + b"\0"
        return entry

    def _step(self, iterator: Any) -> tuple[bytes, bytes] | None:
        # The bounds of ReadOptions are not honoured for every key in raw mode, so they are compared here.
        if self._begun:
            (iterator.prev if self._reverse else iterator.next)()
        elif self._reverse:
            iterator.seek_for_prev(self._stop)
            if iterator.valid() and iterator.key() == self._stop:
                iterator.prev()
        else:
            iterator.seek(self._start)
        self._begun = True
        if not iterator.valid():
            iterator.status()
            return None
        key = iterator.key()
        if key < self._start if self._reverse else key >= self._stop:
            return None
        return key, iterator.value()

    def _again(self) -> Any:
        iterate = self._iterate
        if iterate is None:
            raise StoreClosed(self._closed())
        self._begun = False
        self._iterator = iterator = iterate()
        if self._iterate is None:  # it was abandoned meanwhile
            self._iterator = iterator = None
            raise StoreClosed(self._closed())
        return iterator

    def let_go(self, wait: bool) -> None:
        """Drop the iterator, which is no snapshot; another one is made when the scan goes on."""
        self._iterator = None

    def abandon(self) -> Any:
        """Drop the iterator, which keeps RocksDB open, for good; it is returned."""
        self._iterate = None
        iterator, self._iterator = self._iterator, None
        return iterator


class Chunks(Iterator[tuple[list[bytes], list[bytes]]]):
    """Ascending entries, up to `size` at a time, in half the time of a Scan.

    The iterator that is quick ends without an error at a damaged block. So where it ends before `stop`, a
    slow one looks at what follows the last entry. That may also have been written since: the binding's
    iterators are of the moment when each is made, whatever snapshot they are made from. So the walk goes on
    there with a quick iterator of now; where that finds nothing of what slow ones see before it and behind
    it, there is damage. When the snapshot must go, it goes on in one of now, too. One thread walks; let_go()
    and abandon() may come from any other.
    """

    def __init__(
        self, closed: Callable[[], str], moment: Callable[[], Any], start: bytes, stop: bytes, size: int
    ) -> None:
        self._closed = closed
        self._moment: Callable[[], Any] | None = moment
        self._last = start
        self._begun = False
        self._lock = threading.Lock()
        self._snapshot: Any = None
        self._entries: Any = None
        self._leave = False
        self._stop = stop
        self._size = size
        self._done = start >= stop
        self._ahead: bytes | None = None
        """What a slow iterator saw behind the last entry, since when the walk has not come on."""

    def begin(self) -> None:
        """Take the snapshot, once those who let walks go know of this one. Raises StoreClosed, StoreError."""
        with self._lock:
            self._open()

    def _open(self) -> tuple[Any, Any]:
        self._leave = False
        self._drop()
        moment = self._moment
        if moment is None:
            raise StoreClosed(self._closed())
        snapshot = moment()
        entries = snapshot.items(from_key=self._last + b"\0" * self._begun)
        self._entries, self._snapshot = entries, snapshot
        if self._moment is None:  # it was abandoned meanwhile
            self._drop()
            del entries, snapshot  # a traceback would keep them, and they RocksDB
            raise StoreClosed(self._closed())
        return entries, snapshot

    def _drop(self) -> None:
        self._entries = self._snapshot = None

    def __next__(self) -> tuple[list[bytes], list[bytes]]:
        if self._done:
            raise StopIteration
        with self._lock:
            try:
                while (found := self._next()) is None:
                    pass
                return found
            finally:
                if self._leave:
                    self._drop()

    def _next(self) -> tuple[list[bytes], list[bytes]] | None:
        """The next entries; None where another iterator is to look for them."""
        entries, snapshot = self._entries, self._snapshot
        if self._leave or entries is None or snapshot is None:
            entries, snapshot = self._open()
        found: list[tuple[bytes, bytes]] = call(list, itertools.islice(entries, self._size))
        keys = [key for key, _ in found]
        within = bisect.bisect_left(keys, self._stop)
        if within:
            self._last, self._begun, self._ahead = keys[within - 1], True, None
        if within < self._size:
            ahead = call(self._behind_last, snapshot) if within == len(keys) else None
            if ahead is None:
                self._done = True
                self.abandon()
                if not within:
                    raise StopIteration
            elif ahead == self._ahead:
                raise StoreCorrupt(
                    f"a walk ended before key {ahead.hex()}, which is there: "
                    "restore the directory from a backup"
                )
            else:
                self._ahead = ahead
                self._drop()
                if not within:
                    return None
        return keys[:within], [value for _, value in found[:within]]

    def _behind_last(self, snapshot: Any) -> bytes | None:
        """The key that follows the last entry now."""
        follower = snapshot.iter()
        follower.seek(self._last + b"\0" * self._begun)
        if not follower.valid():
            follower.status()
            return None
        key: bytes = follower.key()
        return key if key < self._stop else None

    def let_go(self, wait: bool) -> None:
        """Drop iterator and snapshot once nobody is inside; others are made when the walk goes on. wait:
        return when that is done, else at once."""
        self._leave = True
        if self._lock.acquire(blocking=wait):
            self._drop()
            self._lock.release()

    def abandon(self) -> Any:
        """Drop iterator and snapshot, which keep RocksDB open, for good; they are returned."""
        self._moment = None
        kept = self._entries, self._snapshot
        self._drop()
        return kept
