"""From opening to closing: when a Memory may be used, and that it gives its store back."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable

from ..errors import StoreClosed


class Lifetime:
    """The time in which `owner` may be used. Thread-safe.

    release: called once, by close(), or when the owner is dropped without it, at the latest when Python ends.
    Never in a forked child, which lacks the threads that may hold locks: it touches nothing of the store.
    """

    def __init__(self, owner: object, release: Callable[[], None]) -> None:
        self._refusal: str | None = None
        self._closing = threading.Lock()
        self._release = weakref.finalize(owner, release)
        _lifetimes.add(self)

    def check(self) -> None:
        """Raise StoreClosed unless the owner may be used."""
        if self._refusal is not None:
            raise StoreClosed(self._refusal)

    def close(self, before: Callable[[], None]) -> None:
        """Call `before`, whatever it raises, and release. Idempotent."""
        if self._refusal is not None:
            return
        with self._closing:
            if self._refusal is None:
                try:
                    before()
                finally:
                    self._release()
                    self._refusal = "this Memory was closed; open the store again"

    def _fork(self) -> None:
        self._refusal = "this Memory was opened before a fork: open the store in the child as well"
        self._release.detach()


_lifetimes: weakref.WeakSet[Lifetime] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for lifetime in list(_lifetimes):
        lifetime._fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
