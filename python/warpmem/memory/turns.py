"""One at a time for each key, and nobody behind another key's."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager


class Turns:
    """A lock for each key that somebody has or waits for. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns: dict[Hashable, tuple[threading.Lock, list[object]]] = {}

    @contextmanager
    def of(self, key: Hashable) -> Iterator[None]:
        """Within the block nobody else has the key's turn."""
        me = object()
        with self._lock:
            turn, wanted = self._turns.setdefault(key, (threading.Lock(), []))
            wanted.append(me)
        try:
            with turn:
                yield
        finally:
            with self._lock:
                wanted.remove(me)
                if not wanted:
                    del self._turns[key]
