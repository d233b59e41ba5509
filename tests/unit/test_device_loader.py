"""Uploads of an index in the background lane of the device's scheduler, with fakes of cache and device."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest

from virtual_time import eventually
from warpmem.embed.hashing import HashingEmbedder
from warpmem.embed.scheduled import ScheduledEmbedder
from warpmem.errors import DeadlineExceeded, Overloaded
from warpmem.index.device_loader import DeviceLoader
from warpmem.ops.cancel import Cancellation, current
from warpmem.ops.devices import scheduler_of
from warpmem.ops.scheduler import Scheduler


class Cache:
    """Lists that wait, each of so many pieces; `copied` says what was done, in order."""

    def __init__(self, between: Callable[[], object]) -> None:
        self.between = between
        self.queue: deque[int] = deque()
        self.copied: list[str] = []
        self.busy: Callable[[], object] = int

    @property
    def waiting(self) -> bool:
        return bool(self.queue)

    def load_next(self) -> bool:
        if not self.queue:
            return False
        for piece in range(self.queue.popleft()):
            if piece:
                self.between()
            self.busy()
            self.copied.append("piece")
        return True


class Device:
    """An embedder of a device, which tells the cache's record when it was asked."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._made = HashingEmbedder(8)
        self.model_id, self.dimension = self._made.model_id, 8
        self.before: Callable[[], object] = int

    def embed(self, texts: Sequence[str], *, role: Literal["document", "query"]) -> Any:
        self.before()
        return self._made.embed(texts, role=role)


@pytest.fixture
def scheduler() -> Scheduler:
    return scheduler_of("cuda:test")


@pytest.fixture
def loader(scheduler: Scheduler) -> DeviceLoader:
    return DeviceLoader(scheduler)


@pytest.fixture
def cache(loader: DeviceLoader) -> Cache:
    return Cache(loader.between)


def test_the_lists_that_wait_are_loaded_piece_by_piece(
    scheduler: Scheduler, loader: DeviceLoader, cache: Cache
) -> None:
    loader.wake(cache)
    loader.settle()
    assert cache.copied == [] and loader._thread is None
    cache.queue.extend([1, 3, 2])
    loader.wake(cache)
    loader.settle()
    assert len(cache.copied) == 6 and loader._thread is None
    served = scheduler.stats()["served"]
    assert served["background"] == 6 + 1  # and the look that found nothing more
    assert served["interactive"] == served["ingest"] == 0


def test_an_embedder_of_the_device_has_the_same_scheduler(scheduler: Scheduler) -> None:
    assert ScheduledEmbedder(Device("cuda:test"))._scheduler is scheduler
    assert ScheduledEmbedder(Device("cuda:other"))._scheduler is not scheduler


def test_a_search_goes_before_what_is_loaded_and_between_its_pieces(
    loader: DeviceLoader, cache: Cache
) -> None:
    """The device is at a piece; a search comes, and has the device before the next piece."""
    device = Device("cuda:test")
    embedder = ScheduledEmbedder(device)
    device.before = lambda: cache.copied.append("search")
    waiting: list[threading.Thread] = []

    def busy() -> None:
        if len(cache.copied) == 1:
            thread = threading.Thread(
                target=embedder.embed, args=(["sought"], "query"), kwargs={"lane": "interactive"}
            )
            thread.start()
            waiting.append(thread)
            ends = time.monotonic() + 10
            while not embedder.stats()["waiting"]["interactive"]:
                assert time.monotonic() < ends
                time.sleep(0.001)

    cache.busy = busy
    cache.queue.append(4)
    loader.wake(cache)
    loader.settle()
    waiting[0].join()
    assert cache.copied == ["piece", "piece", "search", "piece", "piece"]


def test_what_is_loaded_waits_for_a_busy_device(
    scheduler: Scheduler, loader: DeviceLoader, cache: Cache
) -> None:
    cache.queue.append(1)
    with scheduler.turn("interactive"):
        loader.wake(cache)
        time.sleep(0.05)
        assert cache.copied == []
    loader.settle()
    assert cache.copied == ["piece"]


def test_a_scheduler_without_room_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, scheduler: Scheduler, loader: DeviceLoader, cache: Cache
) -> None:
    refusals = [Overloaded("much", 0.001)] * 3
    turn = scheduler.turn

    def sometimes(lane: str, **options: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return turn(lane, **options)

    monkeypatch.setattr(scheduler, "turn", sometimes)
    cache.queue.append(2)
    loader.wake(cache)
    loader.settle()
    assert len(cache.copied) == 2 and refusals == []


def test_what_is_done_alone_has_a_turn_after_all_that_is_loaded(
    scheduler: Scheduler, loader: DeviceLoader, cache: Cache
) -> None:
    """A load in its middle waits for a turn, so who had one and waited for the load would wait for ever."""
    go = threading.Event()
    cache.busy = lambda: go.wait(10)
    cache.queue.append(3)
    loader.wake(cache)
    threading.Timer(0.05, go.set).start()
    turns = scheduler.stats()["served"]["background"]
    assert loader.alone(lambda: len(cache.copied) == 3)
    assert scheduler.stats()["served"]["background"] > turns + 1
    with scheduler.turn("interactive"):
        pass


def test_a_load_that_fails_leaves_the_device_free(
    scheduler: Scheduler, loader: DeviceLoader, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise MemoryError

    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    cache.busy = broken
    cache.queue.append(1)
    loader.wake(cache)
    loader.settle()
    cache.busy = int
    cache.queue.append(1)
    loader.wake(cache)
    loader.settle()
    assert cache.copied == ["piece"]
    with scheduler.turn("interactive"):
        pass


def test_whoever_asks_while_others_do_is_not_forgotten(loader: DeviceLoader, cache: Cache) -> None:
    def ask() -> None:
        for _ in range(100):
            cache.queue.append(1)
            loader.wake(cache)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loader.settle()
    assert len(cache.copied) == 400 and not cache.queue


def test_a_cache_that_is_done_is_not_kept(scheduler: Scheduler) -> None:
    """Its memory is the device's."""
    loader = DeviceLoader(scheduler)
    cache = Cache(loader.between)
    cache.queue.append(1)
    loader.wake(cache)
    loader.settle()
    gone = weakref.ref(cache)
    del cache
    gc.collect()
    assert gone() is None


def test_what_wants_the_device_alone_lets_a_load_that_began_meanwhile_go_first(
    scheduler: Scheduler, loader: DeviceLoader, cache: Cache
) -> None:
    """The load may be in the middle, waiting for the very turn."""
    found: list[int] = []
    alone = threading.Thread(target=lambda: loader.alone(lambda: not found.append(len(cache.copied))))
    with scheduler.turn("interactive"):
        alone.start()
        eventually(lambda: scheduler.stats()["waiting"]["background"] == 1)
        cache.queue.append(2)
        loader.wake(cache)
        eventually(lambda: scheduler.stats()["waiting"]["background"] == 2)
    alone.join(20)
    assert found == [2]


def test_whoever_waits_for_loads_may_give_up(
    scheduler: Scheduler, loader: DeviceLoader, cache: Cache
) -> None:
    cancellation, outcome = Cancellation(), list[str]()

    def settle() -> None:
        current.set(cancellation)
        try:
            loader.settle()
        except DeadlineExceeded:
            outcome.append("gave up")

    waiting = threading.Thread(target=settle)
    with scheduler.turn("interactive"):
        cache.queue.append(2)
        loader.wake(cache)
        waiting.start()
        waiting.join(0.05)
        assert waiting.is_alive()
        cancellation.cancel()
        waiting.join(20)
        assert outcome == ["gave up"]
    loader.settle()
    assert len(cache.copied) == 2


def test_a_call_is_given_up_by_the_thread_that_begins_to_wait_for_it() -> None:
    """As the collector may do, at any moment."""
    cancellation = Cancellation()

    def begin() -> None:
        with cancellation._lock:
            cancellation.cancel()

    beginning = threading.Thread(target=begin, daemon=True)
    beginning.start()
    beginning.join(20)
    with pytest.raises(DeadlineExceeded):
        cancellation.check()
