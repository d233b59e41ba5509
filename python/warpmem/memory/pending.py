"""What a store has left to be done, worked off: by a thread of the process that has it open for writing, as
long as there is something, and by whoever asks for it.

The queue itself is durable (storage/work.py); what is done and what is left are told apart by the change that
does it. So nothing here has to be remembered: a thread that dies, or is never started, loses no work.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from ..errors import Overloaded, StoreClosed, StoreReadOnly
from ..ops.cancel import Cancellation, current

_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
_PATIENCE: Final = 5.0
"""Seconds that stop() waits for a model that is at work."""


class Task(Protocol):
    """A way to do work of one kind."""

    def run(self, again: bool) -> Iterator[int]:
        """Do what waits, batch by batch, and tell of each how much was done and is stored. again: also what
        the model has refused. Raises what keeps it from doing more."""
        ...


class Runner:
    """Runs tasks, one at a time. Thread-safe.

    in_background: by a thread too. It begins when something is there to be done, goes on after failures with
    pauses that grow, and ends when nothing is left that it can do.
    """

    def __init__(self, tasks: Sequence[Task], *, in_background: bool, pause: float = _PAUSE) -> None:
        self._tasks = tasks
        self._in_background = in_background
        self._pause = pause
        self._changed = threading.Condition()
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None
        self._more = False
        self._stopped = False
        self._cancellation = Cancellation()
        self.failure: str | None = None
        """The kind of error that keeps the thread from going on; it will try again."""

    def wake(self) -> None:
        """Something is there to be done."""
        with self._changed:
            self._more = True
            if self._in_background and self._thread is None and not self._stopped:
                thread = threading.Thread(target=self._work, name="warpmem-pending", daemon=True)
                with contextlib.suppress(RuntimeError):  # no more threads: the next to come tries again
                    thread.start()
                    self._thread = thread

    def run(self, task: Task) -> int:
        """Do everything of one kind, here and now, and what was refused before once more; how much that was.
        Waits for the thread to end what it is at. Raises what keeps it from doing more."""
        done = 0
        again = True
        with self._turn:
            while (more := sum(task.run(again))) > 0:
                done += more
                again = False
        return done

    def wait(self, timeout: float | None = None) -> bool:
        """Until the thread has ended; False when `timeout` seconds passed before it."""
        with self._changed:
            return self._changed.wait_for(lambda: self._thread is None, timeout)

    def stop(self) -> None:
        """Have the thread end: at once while it waits, else after its batch, for which this waits a while.
        Nothing begins afterwards. Idempotent."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            thread = self._thread
        self._cancellation.cancel()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_PATIENCE)

    # ------------------------------------------------------------------------------------- thread

    def _work(self) -> None:
        current.set(self._cancellation)
        failures = 0
        try:
            while True:
                self._more = False
                failure: Exception | None = None
                for task in self._tasks:  # what stops one kind of work is no reason to leave the next
                    try:
                        with self._turn:
                            for _ in task.run(again=False):
                                failures = 0
                                self._cancellation.check()
                    except (StoreClosed, StoreReadOnly):
                        return
                    except Exception as error:  # noqa: BLE001  a model of the caller's may raise anything
                        failure = failure or error
                    if self._stopped:
                        return
                if failure is not None:
                    failures += 1
                    self.failure = type(failure).__name__
                    with self._changed:
                        if self._changed.wait_for(
                            lambda: self._stopped, self._pause_after(failure, failures)
                        ):
                            return
                    continue
                self.failure = None
                with self._changed:
                    if not self._more:
                        self._end()
                        return
        finally:
            with self._changed:
                if self._thread is threading.current_thread():
                    self._end()

    def _end(self) -> None:
        """For holders of the lock: what is to be done from now on needs another thread."""
        self._thread = None
        self._changed.notify_all()

    def _pause_after(self, error: Exception, failures: int) -> float:
        seconds = min(_LONGEST_PAUSE, self._pause * 2.0 ** min(failures - 1, 16))
        if isinstance(error, Overloaded):
            seconds = max(min(error.retry_after, _LONGEST_PAUSE), self._pause)
        return seconds * (1.0 + random.random() / 4)  # not all at the same moment
