"""One ordered walk over a family of RocksDB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..errors import StoreClosed
from .rocks_errors import call


class Scan(Iterator[tuple[bytes, bytes]]):
    """One scan. A RocksDB iterator is a snapshot from when it was made, which is when scan() was called."""

    def __init__(
        self, closed: Callable[[], str], iterator: Any, start: bytes, stop: bytes, reverse: bool
    ) -> None:
        self._closed = closed
        self._iterator = iterator
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
            raise StoreClosed(self._closed())
        entry = call(self._step, iterator)
        if entry is None:
            self._done = True
            self._iterator = None
            raise StopIteration
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

    def abandon(self) -> Any:
        """Drop the iterator, which keeps RocksDB open; it is returned."""
        iterator, self._iterator = self._iterator, None
        return iterator
