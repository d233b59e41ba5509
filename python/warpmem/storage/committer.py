"""The committer: the one thread that changes the store, and the queue in front of it.

A sync costs hundreds of microseconds and serves everything written before it, so waiting jobs
are taken as a group:

    each job of the group:  job() -> (operations, effects, result), write(operations)
    once:                   sync(), when any of them asked for "sync" and something is unsynced
    each job, in order:     apply(effects), then its submitter goes on

A job sees the writes of the jobs before it in its group. A job with durability "os" that shares a group with
a "sync" job waits for the sync too: effects then reach subscribers in the order of the writes, and none of a
"sync" job before it is durable.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from ..errors import DeadlineExceeded, StoreClosed, StoreError, StoreReadOnly
from ..types import Durability

W = TypeVar("W")
E = TypeVar("E")
R = TypeVar("R")

Job = Callable[[], tuple[W, E, R]]

MAX_GROUP: Final = 256


class _Request:
    """One job in the queue. `done` is a lock, held until the outcome is there: cheaper than an Event."""

    __slots__ = ("done", "durability", "effects", "error", "job", "result", "size")

    def __init__(self, job: Job[Any, Any, Any] | None, durability: Durability, size: int = 0) -> None:
        self.job = job
        self.size = size
        self.durability = durability
        self.effects: Any = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()

    def finish(self, error: BaseException | None = None) -> None:
        if error is not None:
            self.error = error
        self.done.release()


class Committer(Generic[W, E]):
    """Runs jobs one after the other on a thread of its own, which starts with the first one.

    write      apply a job's operations, all or nothing; raises StoreError with nothing applied. Not called
               with operations that are false (an empty list), and then nothing is left to sync either
    sync       make every earlier write durable
    apply      called with the effects of each durable job, in the order of the writes
    max_queue  jobs that may wait; further submitters block
    max_bytes  as many bytes may wait, by what submitters say of their jobs; one job may be larger

    Thread-safe. A forked child cannot use its parent's committer.
    """

    def __init__(
        self,
        write: Callable[[W], None],
        sync: Callable[[], None],
        apply: Callable[[E], None],
        max_queue: int = 4096,
        max_bytes: int = 1 << 62,
    ) -> None:
        self._write = write
        self._sync = sync
        self._apply = apply
        self._max_queue = max_queue
        self._max_bytes = max_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._space = threading.Condition(self._lock)
        self._queue: deque[_Request] = deque()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._unsynced = False
        self._pid = os.getpid()

    @property
    def unsynced(self) -> bool:
        """Whether something that was written may not be durable yet. For jobs: it holds until they return."""
        return self._unsynced

    # ---------------------------------------------------------------------------------- submitters

    def submit(
        self,
        job: Job[W, E, R],
        durability: Durability = "sync",
        timeout: float | None = None,
        size: int = 0,
    ) -> R:
        """Run `job` on the committer thread and return its result once it is durable and applied.

        Exceptions of the job pass through with nothing written. A StoreError of the write means the same.
        When the sync fails StoreReadOnly is raised and effects are not applied; the change may or may not be
        found after the next open. An exception of apply passes through too, although the change is stored.

        timeout: seconds that the job may wait for its turn. DeadlineExceeded, with nothing changed, when it
        has not begun by then; once begun it is waited for. An exception in the waiting thread
        (KeyboardInterrupt) withdraws the job if it has not begun; otherwise the job goes its way. size: bytes
        that the job holds while it waits.

        Raises StoreClosed after stop() and in a forked child.
        """
        result: R = self._enter(_Request(job, durability, size), timeout)
        return result

    def barrier(self, timeout: float | None = None) -> None:
        """Return when every earlier job is done and every earlier write durable. Raises as submit."""
        self._enter(_Request(None, "sync"), timeout)

    def stop(self) -> None:
        """Finish what is queued, then end the thread. Later submits raise StoreClosed. Idempotent; no
        effect in a forked child."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._stopping = True
            self._work.notify_all()
            self._space.notify_all()
            thread = self._thread
        if thread is threading.current_thread():
            raise StoreError("a change cannot close the store it runs in: close it after the change")
        if thread is not None and thread.ident is not None:
            thread.join()

    def _enter(self, request: _Request, timeout: float | None) -> Any:
        if os.getpid() != self._pid:
            raise StoreClosed(
                f"the store was opened in process {self._pid} and this is its forked child {os.getpid()}: "
                "open it there for reading only; start a process that writes by spawn, forkserver or exec"
            )
        if threading.current_thread() is self._thread:
            raise StoreError(
                "a change cannot submit another change: make them one change, or submit it afterwards"
            )
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            while not self._has_room(request.size) and not self._stopping:
                left = None if deadline is None else deadline - time.monotonic()
                if (left is not None and left <= 0) or not self._space.wait(left):
                    raise DeadlineExceeded(
                        f"{len(self._queue)} changes were waiting for {timeout} s, of {self._bytes} bytes, "
                        f"as many as may (write_queue is {self._max_queue}, write_queue_bytes "
                        f"{self._max_bytes}); nothing was changed"
                    )
            if self._stopping:
                raise StoreClosed("the store is closed: open it again")
            if self._thread is None or self._thread.ident is None:  # it could not start, or was interrupted
                self._thread = threading.Thread(target=self._run, name="warpmem-committer", daemon=True)
                self._thread.start()
            self._queue.append(request)
            self._bytes += request.size
            self._work.notify()
        try:
            if deadline is None:
                request.done.acquire()
            elif not request.done.acquire(timeout=max(0.0, deadline - time.monotonic())):
                if self._withdraw(request):
                    raise DeadlineExceeded(
                        f"the change did not begin within {timeout} s; nothing was changed"
                    )
                request.done.acquire()
        except BaseException:
            self._withdraw(request)
            raise
        if request.error is not None:
            try:
                raise request.error
            finally:
                request.error = None  # the traceback refers to this frame: no cycle
        return request.result

    def _has_room(self, size: int) -> bool:
        if not self._queue:
            return True
        return len(self._queue) < self._max_queue and self._bytes + size <= self._max_bytes

    def _withdraw(self, request: _Request) -> bool:
        """Take a request out of the queue; False when it has begun."""
        with self._lock:
            try:
                self._queue.remove(request)
            except ValueError:
                return False
            self._bytes -= request.size
            self._space.notify_all()
            return True

    # ------------------------------------------------------------------------------------- thread

    def _run(self) -> None:
        with self._lock:
            if self._thread is not threading.current_thread():
                return  # it started so late that another one took its place
        group: list[_Request] = []
        try:
            while True:
                with self._lock:
                    while not self._queue:
                        if self._stopping:
                            return
                        self._work.wait()
                    group = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_GROUP))]
                    self._bytes -= sum(request.size for request in group)
                    self._space.notify_all()
                self._commit(group)
                group = []
        finally:
            # Reached with requests only when the thread itself fails; nobody may wait for ever then.
            with self._lock:
                self._stopping = True
                self._space.notify_all()
                left = [*group, *self._queue]
                self._queue.clear()
            for request in left:
                if request.done.locked():
                    request.finish(
                        StoreClosed("the committer ended unexpectedly: close the store and open it again")
                    )

    def _commit(self, group: Sequence[_Request]) -> None:
        written = []
        for request in group:
            error = _attempt(self._execute, request)
            if error is None:
                written.append(request)
            else:
                request.finish(error)
        if self._unsynced and any(request.durability == "sync" for request in written):
            error = _attempt(self._sync)
            if error is not None:
                for request in written:
                    # An exception of its own for each: several threads raise them at the same time.
                    failure = StoreReadOnly(f"the change could not be made durable: {error}")
                    failure.__cause__ = error
                    request.finish(failure)
                return
            self._unsynced = False
        # A barrier changed nothing, so there is nothing to apply. All are applied before the first submitter
        # is woken: those that run again take time from this thread.
        errors = [
            None if request.job is None else _attempt(self._apply, request.effects) for request in written
        ]
        for request, error in zip(written, errors, strict=True):
            request.finish(error)

    def _execute(self, request: _Request) -> None:
        if request.job is None:
            return
        operations, request.effects, request.result = request.job()
        if operations:
            self._write(operations)
            self._unsynced = True


def _attempt(function: Callable[..., None], *arguments: Any) -> BaseException | None:
    """Call it and return what it raised: the exception continues in the thread that submitted the job."""
    try:
        function(*arguments)
    except BaseException as error:  # noqa: BLE001  whatever a job raises belongs to its submitter, not to this thread
        return error
    return None
