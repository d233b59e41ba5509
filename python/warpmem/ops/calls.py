"""What threads wait for at a scheduler: calls of one or several requests each."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from .fair_queue import Request

Charge = Callable[[int, float], None]
"""(tokens, seconds): what works of one call had of a batch, whose time is shared by tokens. Told also of
batches that failed, or that nobody waits for any more; must not raise."""

FOREVER: Final = float("inf")


class Call:
    """What one thread waits for: several requests, all of them or an error."""

    __slots__ = ("_asleep", "batch", "charge", "error", "left", "results", "waiting")

    def __init__(self, count: int, charge: Charge | None) -> None:
        self.charge = charge
        self.left = count
        self.waiting = count
        """Its requests that nobody serves yet."""
        self.results: list[Any] = [None] * count
        self.error: BaseException | None = None
        self.batch: list[Request] | None = None
        """What its thread serves now or is to serve next; then it will look for more by itself."""
        # A bare lock wakes in a fraction of the time that a Semaphore or an Event takes.
        self._asleep = threading.Lock()
        self._asleep.acquire()

    @property
    def over(self) -> bool:
        """Its thread has nothing to wait for any more."""
        return self.left == 0 or self.error is not None

    def settle(self, place: int, result: Any, error: BaseException | None) -> None:
        self.results[place] = result
        self.error = self.error or error
        self.left -= 1

    def wake(self) -> None:
        """Let the next `sleep` end, or the one that is under way."""
        with contextlib.suppress(RuntimeError):  # it is awake, or another wakes it at this moment
            self._asleep.release()

    def sleep(self, timeout: float) -> bool:
        """Until the next `wake`; False when `timeout` seconds passed before it."""
        return self._asleep.acquire(timeout=-1 if timeout == FOREVER else max(0.0, timeout))


def work_of(request: Request) -> tuple[Call, int, Any]:
    """(call, place among its requests, work)."""
    work: tuple[Call, int, Any] = request.work  # type: ignore[assignment]
    return work


def charge_all(requests: Sequence[Request], tokens: int, seconds: float) -> None:
    """Tell each call what it had of a batch of so many tokens that took so long."""
    parts: dict[Call, int] = {}
    for request in requests:
        call = work_of(request)[0]
        parts[call] = parts.get(call, 0) + request.tokens
    for call, part in parts.items():
        if call.charge is not None:
            call.charge(part, seconds * part / tokens)


def own_error(error: Exception) -> Exception:
    """An exception for one thread, of several that raise it at the same time. Traceback, cause and context
    are of the batch, whose frames hold the texts of others, and stay behind. Made without its constructor,
    whose arguments are not known."""
    other = type(error).__new__(type(error))
    other.args = error.args
    vars(other).update(vars(error))
    return other
