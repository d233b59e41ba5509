"""Calls of models that take no timeout, under a caller's deadline."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Final, TypeVar

from ..errors import DeadlineExceeded, Overloaded
from .deadline import Deadline

T = TypeVar("T")

_THREADS: Final = 32
"""Calls under a deadline at a time, those that were given up included; others wait for their turn."""
_RETRY_AFTER: Final = 1.0


class Bounded:
    """Calls of one model. Thread-safe. model: what it is, for messages."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._free = threading.Semaphore(_THREADS)

    def within(self, deadline: Deadline, call: Callable[[], T]) -> T:
        """What `call` returns or raises until the deadline. Afterwards it goes on by itself, in a thread that
        the interpreter waits for in the end: torn off, native code would bring the process down. Raises
        DeadlineExceeded, and Overloaded where no thread can be started."""
        left = deadline.left()
        if left is None:
            return call()
        if left <= 0 or not self._free.acquire(timeout=left):
            raise DeadlineExceeded(f"the deadline passed before the {self._model} was asked")
        thread = ThreadPoolExecutor(1, f"warpmem-{self._model.replace(' ', '-')}")
        try:
            future = thread.submit(call)
        except RuntimeError as error:  # the process may have no more threads, or is about to end
            self._free.release()
            raise Overloaded(f"no thread can be started for the {self._model}", _RETRY_AFTER) from error
        finally:
            thread.shutdown(wait=False)
        future.add_done_callback(lambda _: self._free.release())
        wait((future,), max(0.0, deadline.left() or 0.0))
        if not future.done():
            raise DeadlineExceeded(f"the {self._model} did not answer before the deadline")
        return future.result()
