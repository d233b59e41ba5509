"""One ordered walk over a family of RocksDB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..errors import StoreClosed
from .rocks_errors import call


class Scan(Iterator[tuple[bytes, bytes]]):
    """One scan. A RocksDB iterator is a snapshot from when it was made, which is when scan() was called.

    It keeps the files of that moment. When they must go, the scan goes on behind its last entry with an
    iterator of now.
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
        self._iterator = iterate()
        self._start = start
        self._stop = stop
        self._reverse = reverse
        self._done = start >= stop
        self._begun = False

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
        return iterator

    def let_go(self) -> None:
        """Drop the iterator; another one is made when the scan goes on."""
        self._iterator = None

    def abandon(self) -> Any:
        """Drop the iterator, which keeps RocksDB open, for good; it is returned."""
        iterator, self._iterator, self._iterate = self._iterator, None, None
        return iterator
