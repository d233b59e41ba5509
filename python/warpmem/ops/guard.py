"""What protects an endpoint from those who ask it, and them from it: how many requests it gets at a time,
which are made again, and when none are made at all.

How many: one more for every round of good answers, half for one that says it is too much or never comes, a
little less for one that takes long for its size (additive increase, multiplicative decrease; Chiu and Jain,
1989). Again: once, and for one request in ten, so that a failing server does not get many more than a working
one. None: after failures in a row, until a single request that is let through finds it well (circuit
breaker); and for as long as it says itself, where it wants more than a second or refused a single request.
One that refuses some of many for less is helped by fewer at a time.
"""

from __future__ import annotations

import random
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from typing import Final, TypeVar

from ..errors import DeadlineExceeded, ModelError, ModelUnavailable, Overloaded

T = TypeVar("T")

_START: Final = 4.0
_SLOW: Final = 2.5
"""Times the best of its size that an answer takes when the endpoint has too much to do."""
_NOTICEABLE: Final = 0.02
"""Seconds by which it is later, at least."""
_BUDGET: Final = 0.1
_SAVED: Final = 10.0
_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
_FAILURES: Final = 5
_OPEN: Final = 1.0
_LONGEST_OPEN: Final = 30.0

_guards: Final[weakref.WeakValueDictionary[Hashable, Guard]] = weakref.WeakValueDictionary()
_guards_lock: Final = threading.Lock()


def guard_of(place: Hashable, parallel: int) -> Guard:
    """The guard of an endpoint, shared by all who ask it; `parallel` as the last of them wants it."""
    with _guards_lock:
        found = _guards.get(place)
        if found is None:
            found = _guards[place] = Guard(parallel)
        found.most = parallel
        return found


class Guard:
    """Of one endpoint. Thread-safe.

    parallel   requests at a time at most
    clock      seconds, never going back
    """

    def __init__(
        self,
        parallel: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.most = parallel
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._limit = min(_START, float(parallel))
        self._lowered = -float("inf")
        self._best: dict[int, float] = {}
        self._inside = 0
        self._budget = 0.0
        self._failures = 0
        self._open = 0.0
        self._open_until = -float("inf")
        self._not_before = -float("inf")
        self._probing = False

    @property
    def limit(self) -> int:
        """How many requests it may get at a time now."""
        return max(1, min(int(self._limit), self.most))

    @property
    def is_open(self) -> bool:
        """Whether requests are refused because it failed."""
        return self._failures >= _FAILURES

    @property
    def refuses(self) -> bool:
        """Whether it is not asked now, but for the one that is let through to see how it is."""
        return self.is_open or self._clock() < self._not_before

    def run(self, ask: Callable[[float | None], T], name: str, size: int, timeout: float | None) -> T:
        """The answer to one request of so many texts. `ask` gets the seconds that are left of `timeout`.

        Raises what `ask` raises, and Overloaded, with the time until it may be tried again, while the
        endpoint is not asked because it failed or wants to be left alone. name: of the endpoint, for
        messages."""
        deadline = None if timeout is None else self._clock() + timeout
        for again in (False, True):
            left = None if deadline is None else deadline - self._clock()
            probe = self._enter(name, again)
            began = self._clock()
            try:
                answer = ask(left)
            except (ModelUnavailable, Overloaded, DeadlineExceeded) as error:
                seconds = self._clock() - began
                pause = self._failed(error, size, seconds, probe)
                out_of_time = deadline is not None and self._clock() + pause >= deadline
                if again or isinstance(error, DeadlineExceeded) or out_of_time or not self._spend(pause):
                    raise
            except ModelError:
                self._refused(probe)
                raise
            except BaseException:
                self._leave(probe)  # it says nothing of whether the endpoint is well
                raise
            else:
                self._answered(size, self._clock() - began, probe)
                return answer
            self._sleep(pause)
        raise AssertionError("unreachable")

    # ------------------------------------------------------------------------------------- details

    def _enter(self, name: str, again: bool) -> bool:
        """Whether this request is the one that is let through to see how the endpoint is."""
        with self._lock:
            now = self._clock()
            probe = self.is_open
            if probe and (self._probing or now < self._open_until):
                raise Overloaded(
                    f"{name} failed {self._failures} times in a row and is not asked",
                    max(_PAUSE, self._open_until - now),
                )
            if now < self._not_before:
                raise Overloaded(f"{name} wants to be left alone", self._not_before - now)
            self._probing = self._probing or probe
            self._inside += 1
            if not again:
                self._budget = min(_SAVED, self._budget + _BUDGET)
            return probe

    def _leave(self, probe: bool) -> None:
        with self._lock:
            self._inside -= 1
            self._probing = self._probing and not probe

    def _answered(self, size: int, seconds: float, probe: bool) -> None:
        with self._lock:
            best = self._best.get(size.bit_length(), seconds)
            # The best is forgotten by and by: a server can become slower for good.
            self._best[size.bit_length()] = min(seconds, best * 1.001)
            self._failures = 0
            self._open = 0.0
            if seconds > _SLOW * best and seconds > best + _NOTICEABLE and self._inside > 1:
                self._lower(0.9, seconds)
            elif self._inside >= int(self._limit):
                self._limit = min(float(self.most), self._limit + 1.0 / self._limit)
        self._leave(probe)

    def _refused(self, probe: bool) -> None:
        """What it says of the request is not good, but says that it is there."""
        with self._lock:
            self._failures = 0
            self._open = 0.0
        self._leave(probe)

    def _failed(self, error: Exception, size: int, seconds: float, probe: bool) -> float:
        """Seconds after which the request may be made again."""
        with self._lock:
            down = isinstance(error, ModelUnavailable)
            if isinstance(error, DeadlineExceeded):
                # A deadline that was too short for it is no fault of the endpoint.
                best = self._best.get(size.bit_length(), 0.0)
                down = seconds > max(5 * _NOTICEABLE, 2 * _SLOW * best)
            alone = self._inside == 1 and self._clock() - seconds >= self._lowered
            if not isinstance(error, ModelUnavailable) and (down or isinstance(error, Overloaded)):
                self._lower(0.5, seconds)
            if isinstance(error, Overloaded) and (alone or error.retry_after > _LONGEST_PAUSE):
                wanted = self._clock() + min(error.retry_after, _LONGEST_OPEN)
                self._not_before = max(self._not_before, wanted)
            self._failures += down
            # Those that were under way when it was found to have failed say nothing new.
            if self.is_open and (probe or self._failures == _FAILURES):
                self._open = min(_LONGEST_OPEN, 2 * self._open or _OPEN)
                self._open_until = self._clock() + self._open
        self._leave(probe)
        return error.retry_after if isinstance(error, Overloaded) else _PAUSE * (1 + random.random())

    def _lower(self, factor: float, seconds: float) -> None:
        """Requests that were under way together tell of the same moment: they count once."""
        now = self._clock()
        if now - seconds >= self._lowered:
            self._limit = max(1.0, self._limit * factor)
            self._lowered = now

    def _spend(self, pause: float) -> bool:
        """Whether a request may be made again."""
        with self._lock:
            if pause > _LONGEST_PAUSE or self._budget < 1.0 or self.is_open:
                return False
            self._budget -= 1.0
            return True
