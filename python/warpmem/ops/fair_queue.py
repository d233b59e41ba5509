"""Who is served next: the decisions of the scheduler, without threads and without a clock of their own.

Requests wait in lanes. Lanes are served by priority, but the lower ones keep a floor of what is served.
Within a lane owners share tokens fairly: a request gets the tag at which its owner's earlier ones end, and
the smallest tag is served first (start-time fair queueing, Goyal, Vin and Cheng, 1996), so an owner who asks
for much waits behind himself. A request that cannot be in time is refused when it comes, unless nothing
waits or runs then, and dropped when its turn comes too late.

Time is a number of seconds that the caller gives; tests give virtual ones.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Sequence
from typing import Final, NamedTuple

from ..errors import Overloaded
from .speed import Speed

LANES: Final = ("interactive", "ingest", "background")
"""By priority."""

FLOOR: Final = 0.05
"""Share of the served tokens that a lane gets at least while something waits in it."""

UNIT: Final = 0.02
"""Seconds that a batch of the last lane may take, so that it never keeps the first one waiting for long."""

_LONGEST: Final = (0.1, 0.1, UNIT)
"""Seconds that a batch may take, by lane: who comes a moment after it began waits for all of it. Where
several are served at a time, one of the first lane waits for the first of them to end, and its batches may
each take as many times longer: they slow each other down, and shorter ones would only be more of them."""

_GATHER: Final = 0.05
_LONGEST_GATHER: Final = 0.01
"""While all other slots are busy, the next batch waits for those who were answered a moment ago, as they
often have more to ask: for this share of what their batch took, at most so many seconds. Else the first of
them to come back would be a batch by itself."""

_ASIDE: Final = 16
"""How many requests of other kinds a batch may step over."""


class Request:
    """A piece of work that is served whole. tokens: what it costs, at least 1; bytes: what it holds in
    memory while it waits; deadline: when its answer is of no use any more; kind: only requests of one kind
    share a batch."""

    __slots__ = ("bytes", "deadline", "finish", "kind", "lane", "owner", "state", "tokens", "tries", "work")

    def __init__(
        self,
        work: object,
        *,
        lane: int,
        owner: Hashable,
        tokens: int,
        bytes: int,
        deadline: float,
        kind: Hashable,
    ) -> None:
        self.work = work
        self.lane = lane
        self.owner = owner
        self.tokens = max(1, tokens)
        self.bytes = bytes
        self.deadline = deadline
        self.kind = kind
        self.finish = 0.0
        self.tries = False
        """It came when nothing waited or ran: what it takes may be found out, whatever was measured before.
        Were it refused, a measure that is wrong could never be corrected."""
        self.state = "new"
        """new, waiting, taken, dropped, cancelled"""


class Batch(NamedTuple):
    """Requests of one kind that are served together, and those that came too late."""

    requests: list[Request]
    dropped: list[Request]


class _Lane:
    """The requests of one lane, ordered by tag. Cancelled ones stay in the heap until they come up."""

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, Request]] = []
        self.waiting = 0
        self.tokens = 0
        self.now = 0.0  # virtual time: the tag of what was served last
        self.ends: dict[Hashable, float] = {}
        self.backlog: dict[Hashable, int] = {}
        self.credit = 0.0


class FairQueue:
    """Requests that wait for one device or endpoint. Not thread-safe.

    batch_tokens   the most that one batch holds, but for a single request that is larger
    max_tokens     of all waiting requests together; more is Overloaded
    max_bytes      the same for bytes
    rate           tokens a second of one batch that are expected at first; measured from then on
    """

    def __init__(self, batch_tokens: int, max_tokens: int, max_bytes: int, rate: float) -> None:
        self.batch_tokens = batch_tokens
        self.max_tokens = max_tokens
        self.max_bytes = max_bytes
        self.speed = Speed(rate)
        self.slots = 1
        """How many batches are served at a time."""
        self.tokens = 0
        self.bytes = 0
        self.running = 0
        """Tokens of batches that were taken and are not done."""
        self._gathers_until = -float("inf")
        self._gathers = 0
        self._gathered = 0.0
        self._lanes = tuple(_Lane() for _ in LANES)
        self._number = 0

    # -------------------------------------------------------------------------------------- asking

    def __len__(self) -> int:
        return sum(lane.waiting for lane in self._lanes)

    def waiting(self) -> dict[str, int]:
        """How many requests wait, by lane."""
        return {name: lane.waiting for name, lane in zip(LANES, self._lanes, strict=True)}

    def estimate(self, lane: int, owner: Hashable, tokens: int) -> float:
        """Seconds until a request of so many tokens would be answered, were it offered now: what is being
        served, what waits in lanes before it, and in its own lane what fairness puts ahead of it."""
        ahead = self.running + sum(before.tokens for before in self._lanes[:lane])
        own = self._lanes[lane]
        mine = own.backlog.get(owner, 0) + tokens
        ahead += min(own.tokens + tokens, mine * max(1, len(own.backlog) + (owner not in own.backlog)))
        share = 1.0 if lane == 0 else 1.0 - FLOOR * (len(LANES) - 1 - lane)
        # The others' work is divided among the slots, its own is not.
        return self.speed.seconds(ahead, self.batch_tokens) * (
            ((ahead - tokens) / self.slots + tokens) / (ahead * share)
        )

    def limit(self, lane: int) -> int:
        """The most tokens of a batch of a lane, at the measured rate."""
        seconds = _LONGEST[lane] * (1 if lane else self.slots)
        return max(1, int(min(self.batch_tokens, self.speed.within(seconds))))

    # ------------------------------------------------------------------------------------ changing

    def offer(self, request: Request, now: float) -> None:
        """Let a request wait. Raises Overloaded when there is no room for it, or it could not be in time."""
        self.offer_all([request], now)

    def offer_all(self, requests: Sequence[Request], now: float, *, at_once: bool = False) -> None:
        """Let all of them wait, or none and Overloaded. at_once: they could be served now and wait for others
        a moment only, so what is being served is no reason to refuse them."""
        idle = at_once or not (self.tokens or self.running)
        try:
            for request in requests:
                request.tries = idle
                self._offer(request, now)
        except BaseException:
            for request in requests:
                self.cancel(request)
            raise

    def _offer(self, request: Request, now: float) -> None:
        if self.tokens and self.tokens + request.tokens > self.max_tokens:
            raise self._overloaded(f"{self.tokens} tokens wait, at most {self.max_tokens} may", self.tokens)
        if self.bytes and self.bytes + request.bytes > self.max_bytes:
            raise self._overloaded(f"{self.bytes} bytes wait, at most {self.max_bytes} may", self.tokens)
        wait = self.estimate(request.lane, request.owner, request.tokens)
        left = request.deadline - now
        if wait > left and self.speed.measured and not request.tries:
            raise self._overloaded(
                f"an answer takes about {wait:.3g} s, and the deadline is in {max(0.0, left):.3g} s",
                int((wait - left) * self.speed.best),
            )
        lane = self._lanes[request.lane]
        tag = max(lane.now, lane.ends.get(request.owner, 0.0))
        request.finish = lane.ends[request.owner] = tag + request.tokens
        self._enter(request)

    def cancel(self, request: Request) -> bool:
        """Take a waiting request away; False when it does not wait any more. Its room is free at once."""
        if request.state != "waiting":
            return False
        request.state = "cancelled"
        request.work = None  # it may stay in the heap for a while, and its text must not
        self._refund(request)
        self._leave(request)
        lane = self._lanes[request.lane]
        if len(lane.heap) > 64 and len(lane.heap) > 2 * lane.waiting:
            lane.heap = [entry for entry in lane.heap if entry[2].state == "waiting"]
            heapq.heapify(lane.heap)
        return True

    def take(self, now: float) -> Batch:
        """The next batch; empty when nothing waits. Its tokens count as running until `done`."""
        dropped: list[Request] = []
        requests: list[Request] = []
        while not requests:
            number = self._choose()
            if number is None:
                break
            self._fill(number, now, requests, dropped)
        served = sum(request.tokens for request in requests)
        self.running += served
        if requests:
            self._account(requests[0].lane, served)
        return Batch(requests, dropped)

    def give_back(self, request: Request, *, wanted: bool) -> None:
        """A request that was taken and not served: if it is still wanted it waits again, before all that
        came after it."""
        self.running -= request.tokens
        if wanted:
            request.finish = min(request.finish, self._lanes[request.lane].now + request.tokens)
            self._enter(request)
        else:
            request.state = "cancelled"
            request.work = None

    def done(self, tokens: int, seconds: float) -> None:
        """A batch of so many tokens took so long, and the rate follows. 0 seconds: it failed, which says
        nothing of the rate."""
        self.running -= tokens
        if seconds > 0 and tokens > 0:
            self.speed.seen(tokens, seconds)

    def gather(self, tokens: int, seconds: float, now: float) -> None:
        """A batch of so many tokens was answered, after so long."""
        self._gathers = tokens
        self._gathered = seconds
        self._gathers_until = now + min(_GATHER * seconds, _LONGEST_GATHER)

    def pause(self, serving: int, now: float, deadline: float) -> float:
        """Seconds that who has this deadline still waits for others to share a batch, while so many are being
        served: 0 while the device is idle or a second slot is free, once as much waits as was answered, and
        where the answer is wanted before two such batches could be served."""
        if serving != self.slots - 1 or not serving or self.tokens >= self._gathers:
            return 0.0
        if deadline - now < 2 * self._gathered:
            return 0.0
        return max(0.0, self._gathers_until - now)

    # ------------------------------------------------------------------------------------- details

    def _choose(self) -> int | None:
        """The lane to serve: one whose floor is due, else the first that has something."""
        for number, lane in enumerate(self._lanes):
            if number and lane.waiting and lane.credit >= self.limit(number):
                return number
        for number, lane in enumerate(self._lanes):
            if lane.waiting:
                return number
        return None

    def _fill(self, number: int, now: float, requests: list[Request], dropped: list[Request]) -> None:
        lane, limit, taken, first = self._lanes[number], self.limit(number), 0, float("inf")
        aside: list[tuple[float, int, Request]] = []
        while lane.heap and len(aside) < _ASIDE:
            tag, order, request = lane.heap[0]
            if request.state == "cancelled":
                heapq.heappop(lane.heap)
                continue
            if now + (0.0 if request.tries else self._seconds(request.tokens)) > request.deadline:
                # Served now it would be late even alone.
                heapq.heappop(lane.heap)
                request.state = "dropped"
                self._refund(request)
                self._leave(request)
                dropped.append(request)
                continue
            total, soonest = taken + request.tokens, min(first, request.deadline)
            if requests and (total > limit or now + self._seconds(total) > soonest):
                break
            heapq.heappop(lane.heap)
            if requests and request.kind != requests[0].kind:
                aside.append((tag, order, request))
                continue
            lane.now = max(lane.now, tag)
            request.state = "taken"
            self._leave(request)
            requests.append(request)
            taken, first = total, soonest
        for entry in aside:
            heapq.heappush(lane.heap, entry)

    def _seconds(self, tokens: int) -> float:
        """How long so many tokens take; nothing is known of that before the first batch was done."""
        return self.speed.seconds(tokens, self.batch_tokens) if self.speed.measured else 0.0

    def _refund(self, request: Request) -> None:
        """Its owner's next request need not wait for what was never served."""
        ends, now = self._lanes[request.lane].ends, self._lanes[request.lane].now
        if ends.get(request.owner) == request.finish:
            ends[request.owner] = request.finish - request.tokens
            if ends[request.owner] <= now:
                del ends[request.owner]

    def _enter(self, request: Request) -> None:
        """A request waits from now on, at the tag where it begins."""
        lane = self._lanes[request.lane]
        request.state = "waiting"
        self._number += 1
        heapq.heappush(lane.heap, (request.finish - request.tokens, self._number, request))
        lane.backlog[request.owner] = lane.backlog.get(request.owner, 0) + request.tokens
        lane.tokens += request.tokens
        lane.waiting += 1
        self.tokens += request.tokens
        self.bytes += request.bytes

    def _leave(self, request: Request) -> None:
        """A request does not wait any more: give back what it held."""
        lane = self._lanes[request.lane]
        lane.waiting -= 1
        lane.tokens -= request.tokens
        self.tokens -= request.tokens
        self.bytes -= request.bytes
        left = lane.backlog[request.owner] - request.tokens
        if left:
            lane.backlog[request.owner] = left
        else:
            del lane.backlog[request.owner]
            if len(lane.ends) > 64 + 4 * len(lane.backlog):
                lane.ends = {owner: end for owner, end in lane.ends.items() if end > lane.now}
        if not lane.waiting:
            # Nobody is ahead of anybody any more.
            lane.heap.clear()
            lane.ends.clear()
            lane.backlog.clear()
            lane.now = 0.0

    def _account(self, served: int, tokens: int) -> None:
        """Lanes that waited while another was served come closer to their floor."""
        for number, lane in enumerate(self._lanes):
            if number == served:
                lane.credit = max(0.0, lane.credit - tokens)
            elif lane.waiting:
                lane.credit += FLOOR * tokens
            else:
                lane.credit = 0.0

    def _overloaded(self, why: str, tokens: int) -> Overloaded:
        return Overloaded(why, tokens / (self.speed.best * self.slots))
