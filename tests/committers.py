"""A committer under test: what it did, jobs for it, and callers on threads of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from warpmem.storage.committer import Committer

Operations = list[tuple[str, bytes, bytes | None]]


class Recorder:
    """Write, sync and apply that note the order of events."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.write_error: Exception | None = None
        self.sync_error: Exception | None = None
        self.apply_error: Exception | None = None

    def write(self, operations: Operations) -> None:
        if self.write_error is not None:
            raise self.write_error
        self.events.append(("write", operations[0][1]))

    def sync(self) -> None:
        if self.sync_error is not None:
            raise self.sync_error
        self.events.append("sync")

    def apply(self, effects: Any) -> None:
        if self.apply_error is not None:
            raise self.apply_error
        self.events.append(("apply", effects))


@contextmanager
def committer_of(
    recorder: Recorder, max_queue: int = 4096, max_bytes: int = 1 << 62
) -> Iterator[Committer[Operations, Any]]:
    committer: Committer[Operations, Any] = Committer(
        recorder.write, recorder.sync, recorder.apply, max_queue, max_bytes
    )
    try:
        yield committer
    finally:
        committer.stop()


def change(name: bytes, result: Any = None) -> Callable[[], tuple[Operations, Any, Any]]:
    return lambda: ([("items", name, b"")], name, result)


class Gate:
    """Keeps the committer busy inside a job until opened, so that others queue up behind it."""

    def __init__(self, committer: Committer[Operations, Any]) -> None:
        self._opened = threading.Event()
        entered = threading.Event()

        def job() -> tuple[Operations, Any, None]:
            entered.set()
            assert self._opened.wait(10)
            return [], None, None

        self._thread = threading.Thread(target=committer.submit, args=(job, "os"))
        self._thread.start()
        assert entered.wait(10)

    def open(self) -> None:
        self._opened.set()
        self._thread.join()


class Submission(threading.Thread):
    """submit() on a thread of its own, with its outcome."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__()
        self._call = call
        self.result: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self._call()
        except Exception as error:  # noqa: BLE001  the outcome is what the test looks at
            self.error = error


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited 10 s in vain"
        time.sleep(0.001)


def queue_up(committer: Committer[Operations, Any], calls: list[Callable[[], Any]]) -> list[Submission]:
    """Submit each call on its own thread, in this order in the queue."""
    submissions = []
    for call in calls:
        waiting = len(committer._queue)
        submissions.append(Submission(call))
        wait_for(lambda waiting=waiting: len(committer._queue) == waiting + 1)  # type: ignore[misc]
    return submissions
