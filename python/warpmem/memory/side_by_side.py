"""Work on several groups at a time, each in a thread, and on groups of one key one after the other."""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Final, Generic, TypeVar

from ..ops.cancel import Cancellation, current

T = TypeVar("T")
R = TypeVar("R")

_HELD: Final = 4
"""Groups that wait for one of their own key to end, for each that may be under way."""


class SideBySide(Generic[T, R]):
    """One round of work. most: groups at a time; of those with the same key one, in their order. With 1 all
    is done by the thread that asks."""

    def __init__(self, work: Callable[[T], R], most: int) -> None:
        self._work = work
        self._most = most
        self._ended: SimpleQueue[tuple[Hashable, Future[R]] | None] = SimpleQueue()
        self._under_way: dict[Hashable, Cancellation] = {}
        self._told = False

    def look_again(self) -> None:
        """There may be more groups. From any thread."""
        if not self._told:
            self._told = True
            self._ended.put(None)

    def run(self, groups: Callable[[], Iterator[tuple[Hashable, T]]]) -> Generator[Future[R], None, None]:
        """What became of each group, as they end: futures that have a result or an exception. groups: called
        for those that there are, and after `look_again` for what has come since.

        `work` sees the caller's context variables. Where the caller is cancelled what waits in `work` is
        cancelled, too. Who closes the iterator waits for what is under way, and nothing begins any more; who
        is interrupted while he waits here leaves it to end by itself.
        """
        if self._most <= 1:
            for _, group in groups():
                yield _settled(self._work, group)
            return
        coming: Iterator[tuple[Hashable, T]] | None = groups()
        held: dict[Hashable, deque[T]] = {}
        try:
            while True:
                coming = self._begin_all(coming, held)
                if not self._under_way:
                    return
                future = self._next()
                if future is not None:
                    yield future
                elif coming is None:
                    coming = groups()
        except (KeyboardInterrupt, SystemExit):
            self._give_up()
            self._under_way.clear()
            raise
        finally:
            while self._under_way:
                self._next()

    def _begin_all(
        self, coming: Iterator[tuple[Hashable, T]] | None, held: dict[Hashable, deque[T]]
    ) -> Iterator[tuple[Hashable, T]] | None:
        """Begin what may begin; what is left of those that come, None at their end."""
        while len(self._under_way) < self._most:
            key = next((key for key in held if key not in self._under_way), None)
            if key is not None:
                self._begin(key, held[key].popleft())
                if not held[key]:
                    del held[key]
                continue
            if coming is None or sum(map(len, held.values())) >= _HELD * self._most:
                return coming
            following = next(coming, None)
            if following is None:
                return None
            key, group = following
            if key in self._under_way:
                held.setdefault(key, deque()).append(group)
            else:
                self._begin(key, group)
        return coming

    def _begin(self, key: Hashable, group: T) -> None:
        self._under_way[key] = cancellation = Cancellation()
        context = contextvars.copy_context()
        context.run(current.set, cancellation)

        def serve() -> None:
            self._ended.put((key, context.run(_settled, self._work, group)))

        # A daemon: no process has to wait at its end for a model that does not answer.
        thread = threading.Thread(target=serve, name="warpmem-pending-work", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads
            serve()
        except BaseException:
            self._under_way.pop(key, None)  # nobody may ever tell that it has ended
            raise

    def _next(self) -> Future[R] | None:
        """The next to end, or None where there may be more groups."""
        caller = current.get()
        with contextlib.nullcontext() if caller is None else caller.waking(self._give_up):
            ended = self._ended.get()
        if ended is None:
            self._told = False
            return None
        key, future = ended
        self._under_way.pop(key, None)
        return future

    def _give_up(self) -> None:
        for cancellation in list(self._under_way.values()):
            cancellation.cancel()


def _settled(work: Callable[[T], R], group: T) -> Future[R]:
    future: Future[R] = Future()
    try:
        future.set_result(work(group))
    except BaseException as error:  # noqa: BLE001  raised where the result is asked for
        future.set_exception(error)
    return future
