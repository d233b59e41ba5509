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
from .calls import FOREVER, Call, Charge, charge_all, own_error, work_of
from .cancel import Cancellation, current
from .fair_queue import LANES, FairQueue, Request

Run = Callable[[Hashable, Sequence[Any]], Sequence[Any]]
"""(kind, works) -> one result for each work. Where it raises that the device or endpoint does not answer
(ModelUnavailable, Overloaded, DeadlineExceeded), that is the error of all of them; anything else may be the
fault of one, and each is tried alone."""

_NOT_ANSWERING: Final = (ModelUnavailable, Overloaded, DeadlineExceeded)


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
        self._waiters: dict[Call, None] = {}
        self._gatherer: Call | None = None
        """Whose thread serves once the next batch need not wait for more."""
        self._served = dict.fromkeys(LANES, 0)
        self._tokens = dict.fromkeys(LANES, 0)
        self._batches = 0
        self._busy = 0.0
        self._turn_seconds = 0.0
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
        deadline = FOREVER if timeout is None else self._clock() + timeout
        if len(works) == 1:
            with self._lock:
                idle = self._is_idle() and not self._pause(deadline)
                if idle:
                    self._serving += 1
                    self._queue.running += tokens[0]
            if idle:
                return self._serve_at_once(works, tokens[0], kind, lane, charge)
        call = Call(len(works), charge)
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
                self._queue.offer_all(requests, self._clock(), at_once=len(works) == 1 and self._is_idle())
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
    def turn(self, lane: str, *, owner: Hashable = None, timeout: float | None = None) -> Iterator[None]:
        """The device for the calling thread's own work: within the block it is nobody else's, so that should
        take no longer than a batch of the lane may. What it took says nothing of the rate. timeout: seconds
        until the turn is of no use. Raises as submit, before the block."""
        number = LANES.index(lane)
        cancellation = current.get()
        deadline = FOREVER if timeout is None else self._clock() + timeout
        call = Call(1, None)
        with self._lock:
            tokens = self._queue.limit(number)
            request = Request(
                (call, 0, None),
                lane=number,
                owner=owner,
                tokens=tokens,
                bytes=0,
                deadline=deadline,
                kind=call,
            )
            self._queue.offer_all([request], self._clock())
            self._waiters[call] = None
        try:
            waking = contextlib.nullcontext() if cancellation is None else cancellation.waking(call.wake)
            with waking:
                if self._next_batch(call, deadline, cancellation) is None and call.error is not None:
                    raise call.error
            call.waiting = call.left = 0
            began = self._clock()
            try:
                yield
            finally:
                with self._lock:
                    call.batch = None
                    self._serving -= 1
                    self._queue.done(tokens, 0.0)
                    self._served[lane] += 1
                    self._turn_seconds += self._clock() - began
        finally:
            self._depart(call, [request])

    def stats(self) -> dict[str, Any]:
        """Counts since the beginning, what waits now, and the measured rate (tokens a second). By lane:
        requests served and their tokens, those waiting, calls refused as Overloaded, requests dropped that
        left unserved. What took `turn_seconds` had a turn of the device; it counts in `served` besides."""
        with self._lock:
            return {
                "served": dict(self._served),
                "tokens": dict(self._tokens),
                "waiting": self._queue.waiting(),
                "batches": self._batches,
                "busy_seconds": self._busy,
                "turn_seconds": self._turn_seconds,
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

    def _depart(self, call: Call, requests: Sequence[Request]) -> None:
        """A call waits no longer, and these of its requests are not wanted any more."""
        if call.left == 0 and call not in self._waiters:  # _settle
            return
        with self._lock:
            self._waiters.pop(call, None)
            if self._gatherer is call:
                self._gatherer = None
            for request in requests:
                self._dropped[LANES[request.lane]] += self._queue.cancel(request)
            if call.batch is not None:
                self._give_back(call.batch)
            self._wake_one()

    def _wait(self, call: Call, deadline: float, cancellation: Cancellation | None) -> None:
        """Until all of a call is settled: serve batches where the device is free."""
        while (batch := self._next_batch(call, deadline, cancellation)) is not None:
            self._serve(batch, call)

    def _next_batch(
        self, call: Call, deadline: float, cancellation: Cancellation | None
    ) -> list[Request] | None:
        """What a call's thread is to serve next, for which it sleeps; None when the call is settled."""
        while True:
            with self._lock:
                if call.over:
                    return None
                if cancellation is not None:
                    cancellation.check()
                pause = self._leads(call, deadline)
                if not pause and self._take(call):
                    continue
                batch = call.batch
            if batch is not None:
                return batch
            pause = pause or FOREVER
            left = deadline - self._clock()
            late = not call.sleep(min(left, pause)) and left <= pause
            if _is_settled(call):  # without the lock: thirty who are answered together would queue for it
                return None
            if late:
                raise DeadlineExceeded("the deadline passed while the request waited; nothing was changed")

    def _serve(self, requests: list[Request], mine: Call) -> None:
        # By length, so that a model that pads pads little.
        requests.sort(key=lambda request: request.tokens)
        lane, tokens = LANES[requests[0].lane], sum(request.tokens for request in requests)
        began = self._clock()
        outcomes = self._attempt(requests)
        seconds = self._clock() - began
        charge_all(requests, tokens, seconds)  # before anybody is told that it is done
        with self._lock:
            mine.batch = None
            failed = any(error is not None for _, error in outcomes)
            self._note(lane, len(requests), tokens, seconds, failed)
            for request, (result, error) in zip(requests, outcomes, strict=True):
                self._settle(request, result, error)
            self._wake_one()

    def _attempt(self, requests: Sequence[Request]) -> list[tuple[Any, BaseException | None]]:
        works = [work_of(request)[2] for request in requests]
        try:
            results = self._run(requests[0].kind, works)
            return [(result, None) for _, result in zip(works, results, strict=True)]
        except Exception as error:  # noqa: BLE001  it is raised in the threads that wait for it
            if len(works) == 1 or isinstance(error, _NOT_ANSWERING):
                return [(None, own_error(error)) for _ in works]
        return [self._attempt([request])[0] for request in requests]

    # ------------------------------------------------------------------------------ with the lock held

    def _slots(self) -> int:
        self._queue.slots = max(1, self._parallel())
        return self._queue.slots

    def _is_free(self) -> bool:
        return self._serving < self._slots()

    def _leads(self, call: Call, deadline: float) -> float:
        """Seconds after which a call's thread is to take the next batch; forever where another's is."""
        if self._gatherer is call:
            self._gatherer = None
            if call.batch is not None:
                self._wake_one()
        if call.batch is not None or not call.waiting or not self._is_free():
            return FOREVER
        pause = self._pause(deadline)
        if pause and self._gatherer is not None:
            return FOREVER
        self._gatherer = call if pause else None
        return pause

    def _is_idle(self) -> bool:
        return not self._queue.tokens and self._is_free()

    def _pause(self, deadline: float) -> float:
        return self._queue.pause(self._serving, self._clock(), deadline)

    def _note(self, lane: str, requests: int, tokens: int, seconds: float, failed: bool) -> None:
        self._serving -= 1
        self._queue.gather(tokens, seconds, self._clock())
        self._queue.done(tokens, 0.0 if failed else seconds)
        self._served[lane] += requests
        self._tokens[lane] += tokens
        self._batches += 1
        self._busy += seconds

    def _settle(self, request: Request, result: Any, error: BaseException | None) -> None:
        call, place, _ = work_of(request)
        request.work = None
        call.settle(place, result, error)
        if call.left == 0 and call.batch is None and call is not self._gatherer:
            self._waiters.pop(call, None)  # nothing is left to give back: it leaves without the lock
        if call.left == 0 or error is not None:
            call.wake()

    def _take(self, taker: Call) -> bool:
        """Give the next batch to a thread that has a request in it: whoever serves what is not its own may
        be answered long before it can leave. False when nothing waits."""
        requests, dropped = self._queue.take(self._clock())
        for request in dropped:
            work_of(request)[0].waiting -= 1
            self._settle(request, None, DeadlineExceeded("its turn came too late; nothing was changed"))
            self._dropped[LANES[request.lane]] += 1
        if requests:
            self._serving += 1
            calls = dict.fromkeys(work_of(request)[0] for request in requests)
            for request in requests:
                work_of(request)[0].waiting -= 1
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
            call = work_of(request)[0]
            wanted = call in self._waiters
            self._queue.give_back(request, wanted=wanted)
            call.waiting += wanted
            self._dropped[LANES[request.lane]] += not wanted

    def _wake_one(self) -> None:
        """The device is free and something waits: let one of those who wait for it serve."""
        if self._is_free() and self._queue.tokens:
            call = next(self._idle_calls(), None)
            if call is not None:
                call.wake()

    def _idle_calls(self) -> Iterator[Call]:
        """Those whose threads have nothing to do but to wait for requests that nobody serves."""
        return (call for call in self._waiters if call.waiting and call.batch is None and not call.over)


def _is_settled(call: Call) -> bool:
    """Asked anew: a thread that slept may find another answer than before."""
    return call.over
