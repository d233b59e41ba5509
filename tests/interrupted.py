"""A process whose main thread is interrupted in the middle of calls of a store; a module, run with arguments.

amid PATH WHERE     a signal handler closes the store while the frame below holds a lock of it, and goes on
exit PATH WHERE     as amid, and the handler raises SystemExit(3) after that
often PATH CALL N   KeyboardInterrupt somewhere in a call, N times, each time followed by close()
"""

from __future__ import annotations

import contextlib
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import numpy as np

import warpmem
from warpmem.errors import StoreClosed
from warpmem.storage.committer import Committer
from warpmem.storage.rocks import RocksEngine
from warpmem.storage.rocks_follow import FollowingEngine

Call = Callable[[warpmem.Memory], Any]

CALLS: Final[dict[str, Call]] = {
    "add": lambda memory: memory.add(f"{random.random()}", user_id="a", vector=np.ones(4), durability="os"),
    "search": lambda memory: memory.search(vector=np.ones(4), user_id="a"),
    "checkpoint": warpmem.Memory.checkpoint,
    "refresh": warpmem.Memory.refresh,
    "stats": warpmem.Memory.stats,
    "close": warpmem.Memory.close,
}
WHERE: Final[dict[str, tuple[type, str, str]]] = {
    "committer": (Committer, "_has_room", "add"),
    "follower": (FollowingEngine, "catch_up", "refresh"),
    "lag": (FollowingEngine, "catch_up", "stats"),
    "closing": (RocksEngine, "close", "close"),
}
FOLLOWER: Final = ("refresh", "stats")


def opened(path: str, call: str) -> warpmem.Memory:
    """The store, as the process does in which a call has something to do."""
    if call in FOLLOWER:
        return warpmem.open(path, backend="cpu", follow=True, follow_ms=1)
    return warpmem.open(path, backend="cpu", min_free_bytes=0, jobs_minutes=0)


def amid(path: str, where: str, *, leave: bool) -> None:
    """See above."""
    kind, name, call = WHERE[where]
    memory = opened(path, call)
    inside = getattr(kind, name)
    told: list[bool] = []

    def interrupted(self: Any, *arguments: Any) -> Any:
        if threading.current_thread() is threading.main_thread() and not told:
            told.append(True)
            time.sleep(0.1)  # by then a follower's own thread waits for this one
            signal.raise_signal(signal.SIGALRM)
        return inside(self, *arguments)

    def close(signum: int, frame: FrameType | None) -> None:
        memory.close()
        if leave:
            sys.exit(3)

    setattr(kind, name, interrupted)
    signal.signal(signal.SIGALRM, close)
    with memory, contextlib.suppress(StoreClosed):
        CALLS[call](memory)
    assert told
    with contextlib.suppress(StoreClosed):
        memory.stats()
        raise AssertionError("it is not closed")
    opened(path, call).close()


def often(path: str, call: str, times: int) -> None:
    """See above."""
    came: list[bool] = []

    def interrupt(signum: int, frame: FrameType | None) -> None:
        came.append(True)
        signal.default_int_handler(signum, frame)

    signal.signal(signal.SIGALRM, interrupt)
    sys.unraisablehook = lambda _: None  # one that came in a destructor, which Python only tells of
    interruptions = 0
    for _ in range(times):
        memory = opened(path, call)
        CALLS["search"](memory)
        came.clear()
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0005, 0.03))
            CALLS[call](memory)
            while call != "close" and not came:  # Python ignores one that comes in a destructor
                CALLS[call](memory)
                time.sleep(0)  # one that a thread of RocksDB got is seen when the interpreter is taken again
        except KeyboardInterrupt:
            interruptions += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        memory.close()
    with warpmem.open(path, backend="cpu") as memory:
        CALLS["add"](memory)
    print(interruptions)


if __name__ == "__main__":
    if sys.argv[1] == "often":
        often(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        amid(sys.argv[2], sys.argv[3], leave=sys.argv[1] == "exit")
