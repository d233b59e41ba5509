"""One queue for one device or endpoint, shared by all threads that want something of it.

No thread of its own: where the device is idle, the caller's thread serves its own request at once; where it
is busy, whoever waits is woken to serve the next batch, for itself and the others in it. The decisions are
those of fair_queue.py."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Final

from ..errors import DeadlineExceeded, ModelUnavailable, Overloaded
from .cancel import Cancellation, current
from .fair_queue import LANES, FairQueue, Request

Run = Callable[[Hashable, Sequence[Any]], Sequence[Any]]
"""(kind, works) -> one result for each work. Where it raises that the device or endpoint does not answer
(ModelUnavailable, Overloaded, DeadlineExceeded), that is the error of all of them; anything else may be the
fault of one, and each is tried alone."""

Charge = Callable[[int, float], None]
"""(tokens, seconds): what works of one call had of a batch, whose time is shared by tokens. Told also of
batches that failed, or that nobody waits for any more; must not raise."""

_FOREVER: Final = float("inf")
_NOT_ANSWERING: Final = (ModelUnavailable, Overloaded, DeadlineExceeded)


class _Call:
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

    def sleep(self, timeout: float | None) -> bool:
        """Until the next `wake`; False when `timeout` seconds passed before it."""
        return self._asleep.acquire(timeout=-1 if timeout is None else max(0.0, timeout))


class Scheduler:
    """Runs the work of many threads in batches, fairly and in time. Thread-safe; see fair_queue.py for the
    bounds.

    run           serves a batch; called by `parallel` threads at a time at most
    parallel      1 for a device, more for an endpoint that serves several requests at once; asked before
                  every batch
    clock         seconds, never going back
    """

    def __init__(
        self,
        run: Run,
        *,
        parallel: Callable[[], int] = lambda: 1,
        batch_tokens: int = 16_384,
        max_tokens: int = 4_000_000,
        max_bytes: int = 256 << 20,
        rate: float = 20_000.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._parallel = parallel
        self._clock = clock
        self._lock = threading.Lock()
        self._queue = FairQueue(batch_tokens, max_tokens, max_bytes, rate)
        self._serving = 0
        self._waiters: dict[_Call, None] = {}
        self._served = dict.fromkeys(LANES, 0)
        self._tokens = dict.fromkeys(LANES, 0)
        self._batches = 0
        self._busy = 0.0
        self._refused = dict.fromkeys(LANES, 0)
        self._dropped = dict.fromkeys(LANES, 0)

    @property
    def batch_tokens(self) -> int:
        """The most tokens of a batch; a request of more is a batch by itself."""
        return self._queue.batch_tokens

    def limit(self, lane: str) -> int:
        """The same for one lane, by how long a batch of it may take at the measured rate."""
        return self._queue.limit(LANES.index(lane))

    # -------------------------------------------------------------------------------------- calling

    def submit(
        self,
        works: Sequence[Any],
        tokens: Sequence[int],
        *,
        kind: Hashable = None,
        lane: str = "interactive",
        owner: Hashable = None,
        timeout: float | None = None,
        bytes: int = 0,
        charge: Charge | None = None,
    ) -> list[Any]:
        """Have all works served and return their results in order.

        tokens: the cost of each. kind: works of different kinds never share a batch. owner: whose share of
        the lane they use. timeout: seconds until the results are of no use. bytes: what the works hold while
        they wait. charge: told of each batch that some of the works were in.

        Raises Overloaded before anything was done, DeadlineExceeded, also when the caller has given up
        (cancel.py), and what `run` raises. An exception in the waiting thread (KeyboardInterrupt) takes what
        still waits out of the queue."""
        number = LANES.index(lane)
        cancellation = current.get()
        if cancellation is not None:
            cancellation.check()
        if len(works) == 1:
            with self._lock:
                idle = self._serving < self._slots() and not self._queue.tokens
                if idle:
                    self._serving += 1
                    self._queue.running += tokens[0]
            if idle:
                return self._serve_at_once(works, tokens[0], kind, lane, charge)
        deadline = _FOREVER if timeout is None else self._clock() + timeout
        call = _Call(len(works), charge)
        each = bytes // max(1, len(works))
        requests = [
            Request(
                (call, place, work),
                lane=number,
                owner=owner,
                tokens=cost,
                bytes=each,
                deadline=deadline,
                kind=kind,
            )
            for place, (work, cost) in enumerate(zip(works, tokens, strict=True))
        ]
        with self._lock:
            try:
                self._queue.offer_all(requests, self._clock())
            except Overloaded:
                self._refused[lane] += 1
                raise
            self._waiters[call] = None
        try:
            waking = contextlib.nullcontext() if cancellation is None else cancellation.waking(call.wake)
            with waking:
                self._wait(call, deadline, cancellation)
        finally:
            self._depart(call, requests)
        error, call.error = call.error, None
        if error is None:
            return call.results
        try:
            raise error
        finally:
            del error  # its traceback holds this frame: nothing of the texts waits for the garbage collector

    @contextlib.contextmanager
    def turn(self, lane: str, *, owner: Hashable = None) -> Iterator[None]:
        """The device for the calling thread's own work: within the block it is nobody else's, so that should
        take no longer than a batch of the lane may. What it took says nothing of the rate. Raises as submit,
        before the block."""
        number = LANES.index(lane)
        cancellation = current.get()
        call = _Call(1, None)
        with self._lock:
            tokens = self._queue.limit(number)
            request = Request(
                (call, 0, None),
                lane=number,
                owner=owner,
                tokens=tokens,
                bytes=0,
                deadline=_FOREVER,
                kind=call,
            )
            self._queue.offer_all([request], self._clock())
            self._waiters[call] = None
        try:
            waking = contextlib.nullcontext() if cancellation is None else cancellation.waking(call.wake)
            with waking:
                self._next_batch(call, _FOREVER, cancellation)
            call.waiting = call.left = 0
            began = self._clock()
            try:
                yield
            finally:
                with self._lock:
                    call.batch = None
                    self._note(lane, 1, tokens, self._clock() - began, failed=True)
        finally:
            self._depart(call, [request])

    def stats(self) -> dict[str, Any]:
        """Counts since the beginning, what waits now, and the measured rate (tokens a second). By lane:
        requests served and their tokens, those waiting, calls refused as Overloaded, requests dropped that
        left unserved."""
        with self._lock:
            return {
                "served": dict(self._served),
                "tokens": dict(self._tokens),
                "waiting": self._queue.waiting(),
                "batches": self._batches,
                "busy_seconds": self._busy,
                "refused": dict(self._refused),
                "dropped": dict(self._dropped),
                "rate": self._queue.speed.best,
            }

    # -------------------------------------------------------------------------------------- serving

    def _serve_at_once(
        self, works: Sequence[Any], tokens: int, kind: Hashable, lane: str, charge: Charge | None
    ) -> list[Any]:
        began = self._clock()
        failed = True
        try:
            results = list(self._run(kind, works))
            failed = False
            return results
        finally:
            seconds = self._clock() - began
            with self._lock:
                self._note(lane, 1, tokens, seconds, failed)
                self._wake_one()
            if charge is not None:
                charge(tokens, seconds)

    def _depart(self, call: _Call, requests: Sequence[Request]) -> None:
        """A call waits no longer, and these of its requests are not wanted any more."""
        with self._lock:
            self._waiters.pop(call, None)
            for request in requests:
                self._dropped[LANES[request.lane]] += self._queue.cancel(request)
            if call.batch is not None:
                self._give_back(call.batch)
            self._wake_one()

    def _wait(self, call: _Call, deadline: float, cancellation: Cancellation | None) -> None:
        """Until all of a call is settled: serve batches where the device is free."""
        while (batch := self._next_batch(call, deadline, cancellation)) is not None:
            self._serve(batch, call)

    def _next_batch(
        self, call: _Call, deadline: float, cancellation: Cancellation | None
    ) -> list[Request] | None:
        """What a call's thread is to serve next, for which it sleeps; None when the call is settled."""
        while True:
            with self._lock:
                if call.over:
                    return None
                if cancellation is not None:
                    cancellation.check()
                if call.batch is None and call.waiting and self._serving < self._slots() and self._take(call):
                    continue
                batch = call.batch
            if batch is not None:
                return batch
            left = None if deadline == _FOREVER else deadline - self._clock()
            if not call.sleep(left):
                raise DeadlineExceeded("the deadline passed while the request waited; nothing was changed")

    def _serve(self, requests: list[Request], mine: _Call) -> None:
        # By length, so that a model that pads pads little.
        requests.sort(key=lambda request: request.tokens)
        lane, tokens = LANES[requests[0].lane], sum(request.tokens for request in requests)
        began = self._clock()
        outcomes = self._attempt(requests)
        seconds = self._clock() - began
        _charge(requests, tokens, seconds)  # before anybody is told that it is done
        with self._lock:
            mine.batch = None
            failed = any(error is not None for _, error in outcomes)
            self._note(lane, len(requests), tokens, seconds, failed)
            for request, (result, error) in zip(requests, outcomes, strict=True):
                self._settle(request, result, error)
            self._wake_one()

    def _attempt(self, requests: Sequence[Request]) -> list[tuple[Any, BaseException | None]]:
        works = [_work(request)[2] for request in requests]
        try:
            results = self._run(requests[0].kind, works)
            return [(result, None) for _, result in zip(works, results, strict=True)]
        except Exception as error:  # noqa: BLE001  it is raised in the threads that wait for it
            if len(works) == 1 or isinstance(error, _NOT_ANSWERING):
                return [(None, _own(error)) for _ in works]
        return [self._attempt([request])[0] for request in requests]

    # ------------------------------------------------------------------------------ with the lock held

    def _slots(self) -> int:
        self._queue.slots = max(1, self._parallel())
        return self._queue.slots

    def _note(self, lane: str, requests: int, tokens: int, seconds: float, failed: bool) -> None:
        self._serving -= 1
        self._queue.done(tokens, 0.0 if failed else seconds)
        self._served[lane] += requests
        self._tokens[lane] += tokens
        self._batches += 1
        self._busy += seconds

    def _settle(self, request: Request, result: Any, error: BaseException | None) -> None:
        call, place, _ = _work(request)
        request.work = None
        call.settle(place, result, error)
        if call.left == 0 or error is not None:
            call.wake()

    def _take(self, taker: _Call) -> bool:
        """Give the next batch to a thread that has a request in it: whoever serves what is not its own may
        be answered long before it can leave. False when nothing waits."""
        requests, dropped = self._queue.take(self._clock())
        for request in dropped:
            _work(request)[0].waiting -= 1
            self._settle(request, None, DeadlineExceeded("its turn came too late; nothing was changed"))
            self._dropped[LANES[request.lane]] += 1
        if requests:
            self._serving += 1
            calls = dict.fromkeys(_work(request)[0] for request in requests)
            for request in requests:
                _work(request)[0].waiting -= 1
            # A call of several requests has one thread, which may be at work: then another's, if it waits.
            theirs = ([taker] if taker in calls else []) + list(calls)
            free = (call for call in theirs if call.batch is None and not call.over)
            server = next(free, None) or next(self._idle_calls(), None)
            if server is None:
                self._give_back(requests)
            else:
                server.batch = requests
                if server is not taker:
                    server.wake()
                self._wake_one()
        return bool(requests or dropped)

    def _give_back(self, requests: list[Request]) -> None:
        """A batch that was not served: those who wait for it still do."""
        self._serving -= 1
        for request in requests:
            call = _work(request)[0]
            wanted = call in self._waiters
            self._queue.give_back(request, wanted=wanted)
            call.waiting += wanted
            self._dropped[LANES[request.lane]] += not wanted

    def _wake_one(self) -> None:
        """The device is free and something waits: let one of those who wait for it serve."""
        if self._serving < self._slots() and self._queue.tokens:
            call = next(self._idle_calls(), None)
            if call is not None:
                call.wake()

    def _idle_calls(self) -> Iterator[_Call]:
        """Those whose threads have nothing to do but to wait for requests that nobody serves."""
        return (call for call in self._waiters if call.waiting and call.batch is None and not call.over)


def _work(request: Request) -> tuple[_Call, int, Any]:
    work: tuple[_Call, int, Any] = request.work  # type: ignore[assignment]
    return work


def _charge(requests: Sequence[Request], tokens: int, seconds: float) -> None:
    parts: dict[_Call, int] = {}
    for request in requests:
        call = _work(request)[0]
        parts[call] = parts.get(call, 0) + request.tokens
    for call, part in parts.items():
        if call.charge is not None:
            call.charge(part, seconds * part / tokens)


def _own(error: Exception) -> Exception:
    """An exception for one thread, of several that raise it at the same time. Traceback, cause and context
    are of the batch, whose frames hold the texts of others, and stay behind. Made without its constructor,
    whose arguments are not known."""
    other = type(error).__new__(type(error))
    other.args = error.args
    vars(other).update(vars(error))
    return other
