"""One scheduler for each device or endpoint of a process, for all who want something of it."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, Protocol

from .scheduler import Scheduler

_schedulers: Final[weakref.WeakValueDictionary[Hashable, Scheduler]] = weakref.WeakValueDictionary()
_lock: Final = threading.Lock()


class Kind(Protocol):
    """What works of one batch have in common: who serves them. Hashable."""

    def serve(self, works: Sequence[Any]) -> Sequence[Any]:
        """One result for each work; see scheduler.Run."""
        ...


def scheduler_of(place: Hashable, parallel: Callable[[], int] | None = None) -> Scheduler:
    """The scheduler of a device ("cuda:0") or endpoint, made by the first who asks for it. Works are of kinds
    that serve them. parallel: how many batches at a time, as the first says; 1 where he does not. A fork has
    others: the threads of its parent that were at work are not there to finish."""
    name = (os.getpid(), place)
    with _lock:
        found = _schedulers.get(name)
        if found is None:
            found = _schedulers[name] = Scheduler(_serve, parallel=parallel or (lambda: 1))
        return found


def _serve(kind: Any, works: Sequence[Any]) -> Sequence[Any]:
    served: Sequence[Any] = kind.serve(works)
    return served
