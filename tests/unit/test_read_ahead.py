"""The thread that reads owners for searches: what it is given, what it says, how it ends."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from warpmem.errors import DeadlineExceeded, StoreClosed, StoreCorrupt
from warpmem.index.read_ahead import ReadAhead, Unread, What
from warpmem.ops.cancel import Cancellation, current

FOR_EVER = 1e5
MANY = 10**12
"""Rows of which nobody believes that they take moments."""
BIG = Unread(1, "words", MANY)


class Reading:
    """Reads behind a gate, as owners are read: with a check before each piece."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun = threading.Semaphore(0)
        self.read: list[tuple[int, What]] = []
        self.at_once = self.most_at_once = 0
        self.fault: Exception | None = None
        self.ended: BaseException | None = None
        self.ahead = ReadAhead(self)

    def __call__(self, owner: int, what: What) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.begun.release()
        try:
            assert self.gate.wait(60)
            self.ahead.check()
            if self.fault is not None:
                raise self.fault
            self.read.append((owner, what))
        except BaseException as error:
            self.ended = error
            raise
        finally:
            self.at_once -= 1

    def within(self, unread: Sequence[Unread], seconds: float, *, patient: bool = True) -> bool:
        return self.ahead.within(unread, seconds, patient=patient)

    def settled(self) -> None:
        """Until the thread has ended."""
        thread = self.ahead._thread
        if thread is not None:
            thread.join(60)
            assert not thread.is_alive()


@pytest.fixture
def reading() -> Iterator[Reading]:
    made = Reading()
    yield made
    made.gate.set()
    made.ahead.close()


def test_what_takes_moments_is_left_to_the_search(reading: Reading) -> None:
    assert reading.within([Unread(1, "words", 100)], 1.0)
    reading.ahead.took("words", 10_000, 0.1)
    assert reading.within([Unread(1, "words", 20_000), Unread(2, "words", 20_000)], 1.0)
    assert reading.ahead._thread is None
    assert not reading.read


def test_what_never_ends_in_time_is_said_at_once_and_read_all_the_same(reading: Reading) -> None:
    reading.ahead.took("words", 1024, 1024.0)
    assert not reading.within([BIG], FOR_EVER)  # it would be waited for if nothing were known
    reading.gate.set()
    reading.settled()
    assert reading.read == [BIG.key]
    assert reading.ahead._thread is None


def test_it_is_said_at_once_of_few_rows_too(reading: Reading) -> None:
    """It was waited for whatever it was to take, unless that was longer than the machine had run."""
    reading.ahead.took("words", 1024, 1024.0)
    assert not reading.within([Unread(1, "words", 90)], 80.0)
    reading.gate.set()
    reading.settled()
    assert not reading.within([Unread(2, "words", 90)], 80.0)


def test_a_few_rows_say_nothing_of_many(reading: Reading) -> None:
    reading.ahead.took("words", 10, 10.0)
    assert reading.within([Unread(1, "words", 100)], 1.0)


def test_who_has_the_time_waits_for_it(reading: Reading) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(reading.within, [BIG], FOR_EVER)
        assert reading.begun.acquire(timeout=60)
        assert not waiting.done()
        reading.gate.set()
        assert waiting.result(timeout=60)
    assert reading.read == [BIG.key]


def test_who_has_none_left_goes_on_without(reading: Reading) -> None:
    assert not reading.within([BIG], 0.01)
    assert not reading.within([BIG], -1.0)
    reading.gate.set()
    reading.settled()
    assert reading.read == [BIG.key], "once, however many asked for it"


def test_who_can_do_without_waits_for_nothing_unknown(reading: Reading) -> None:
    assert not reading.within([BIG], FOR_EVER, patient=False)
    reading.gate.set()
    reading.settled()
    assert reading.read == [BIG.key]


def test_what_stands_before_it_counts(reading: Reading) -> None:
    assert not reading.within([BIG], 0.0)
    assert reading.begun.acquire(timeout=60)
    reading.ahead.took("words", 1024, 1024.0)
    assert not reading.within([Unread(2, "rows", MANY)], FOR_EVER)
    reading.gate.set()
    reading.settled()
    assert reading.read == [BIG.key, (2, "rows")]


def test_one_thread_reads_for_all(reading: Reading) -> None:
    wanted = [Unread(owner, what, MANY) for owner in range(20) for what in ("rows", "words")]  # type: ignore[arg-type]
    before = set(threading.enumerate())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: reading.within([one], 0.0), wanted))
        names = [thread.name for thread in set(threading.enumerate()) - before]
        reading.gate.set()
    assert names.count("warpmem-read-ahead") == 1
    reading.settled()
    assert sorted(reading.read) == sorted(one.key for one in wanted)
    assert reading.most_at_once == 1


def test_no_more_waits_than_is_bounded(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warpmem.index.read_ahead._MOST", 3)
    wanted = [Unread(owner, "words", MANY) for owner in range(5)]
    assert not reading.within(wanted, FOR_EVER), "it would be waited for if all of it were read"
    reading.gate.set()
    reading.settled()
    assert reading.read == [one.key for one in wanted[:3]]


def test_what_it_fails_at_is_raised_by_who_asks_next(reading: Reading) -> None:
    reading.fault = StoreCorrupt("damaged")
    reading.gate.set()
    assert not reading.within([BIG], -1.0)
    reading.settled()
    other = Unread(2, "words", MANY)
    reading.fault = None
    assert reading.within([other], FOR_EVER)
    with pytest.raises(StoreCorrupt, match="damaged"):
        reading.within([BIG], FOR_EVER)
    assert reading.within([BIG], FOR_EVER), "and read anew afterwards"
    reading.fault = StoreCorrupt("damaged again")
    with pytest.raises(StoreCorrupt, match="again"):
        reading.within([BIG], FOR_EVER)


class Text:
    """That of somebody who may be erased."""


def test_what_is_kept_of_a_failure_holds_nothing_that_was_read() -> None:
    held: list[weakref.ref[Text]] = []

    def value() -> None:
        text = Text()
        held.append(weakref.ref(text))
        raise ValueError("no checksum")

    def read(owner: int, what: What) -> None:
        text = Text()
        held.append(weakref.ref(text))
        try:
            value()
        except ValueError as error:
            if what == "rows":
                raise StoreCorrupt("damaged rows") from None
            raise StoreCorrupt("damaged words") from error

    ahead = ReadAhead(read)
    wanted = [Unread(1, "rows", MANY), BIG]
    assert not ahead.within(wanted, -1.0, patient=True)
    thread = ahead._thread
    if thread is not None:
        thread.join(60)
    gc.collect()
    assert len(held) == 4
    assert [text() for text in held] == [None] * 4
    for one in wanted:
        with pytest.raises(StoreCorrupt, match=f"damaged {one.what}"):
            ahead.within([one], -1.0, patient=True)


def test_what_failed_is_over_once_somebody_read_it(reading: Reading) -> None:
    reading.fault = StoreCorrupt("damaged")
    reading.gate.set()
    assert not reading.within([BIG, Unread(1, "rows", MANY)], -1.0)
    reading.settled()
    reading.fault = None
    reading.ahead.came(1, "words")
    assert reading.within([BIG], FOR_EVER)
    with pytest.raises(StoreCorrupt, match="damaged"):
        reading.within([Unread(1, "rows", MANY)], FOR_EVER)


def test_what_failed_is_over_once_something_of_the_owner_was_erased(reading: Reading) -> None:
    reading.fault = StoreCorrupt("damaged")
    reading.gate.set()
    mine, other = [BIG, Unread(1, "rows", MANY)], [Unread(2, "rows", MANY)]
    assert not reading.within(mine + other, -1.0)
    reading.settled()
    reading.fault = None
    reading.ahead.forget(1)
    assert reading.within(mine, FOR_EVER)
    with pytest.raises(StoreCorrupt, match="damaged"):
        reading.within(other, FOR_EVER)


@pytest.mark.parametrize("erased", [False, True])
def test_what_fails_after_that_is_looked_at_again(erased: bool) -> None:
    begun, gate = threading.Event(), threading.Event()
    faults = [StoreCorrupt("of what is gone")]

    def read(owner: int, what: What) -> None:
        begun.set()
        assert gate.wait(60)
        if faults:
            raise faults.pop()

    ahead = ReadAhead(read)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ahead.within, [BIG], FOR_EVER, patient=True)
        assert begun.wait(60)
        if erased:
            ahead.forget(1)
        else:
            ahead.came(1, "words")
        gate.set()
        assert waiting.result(timeout=60)
    assert not faults
    ahead.close()


def test_a_search_reads_no_longer_than_it_has_time(reading: Reading) -> None:
    wanted = [Unread(1, "rows", 4), Unread(2, "rows", 4)]
    assert not reading.ahead.read(wanted, time.monotonic() - 1.0), "it does not even begin"
    reading.gate.set()
    reading.settled()
    assert reading.read == [one.key for one in wanted], "the thread does it"
    assert reading.ahead.read(wanted, time.monotonic() + FOR_EVER)
    assert reading.read == 2 * [one.key for one in wanted]
    assert reading.ahead._thread is None
    reading.ahead.check()  # the time of that search is nobody else's


def test_a_search_waits_for_nobody_who_reads_longer_than_it_has_time() -> None:
    lock = threading.Lock()

    def read(owner: int, what: What) -> None:
        with ahead.held(lock):
            read_by.append(threading.current_thread())

    read_by: list[threading.Thread] = []
    ahead = ReadAhead(read)
    with lock:
        assert not ahead.read([BIG], time.monotonic() + 0.01)
        assert not read_by
        thread = ahead._thread
    assert thread is not None
    thread.join(60)
    assert read_by == [thread]
    assert ahead.read([BIG], time.monotonic() + FOR_EVER)
    assert not lock.locked()


def test_what_the_thread_reads_no_search_reads_too(reading: Reading) -> None:
    """However few rows it is taken for."""
    few = Unread(1, "words", 4)
    assert not reading.within([BIG], -1.0)
    assert reading.begun.acquire(timeout=60)
    assert not reading.within([few], 0.01)
    reading.gate.set()
    reading.settled()
    assert reading.within([few], 0.01)


_ENDS = """
import logging, threading
from warpmem.index.read_ahead import ReadAhead, Unread

logging.basicConfig(format="%(message)s, %(error)s")
begun = threading.Event()

def read(owner, what):
    if owner == 1:
        raise RuntimeError("while the process runs")
    begun.set()
    threading.main_thread().join()
    raise RuntimeError("cannot schedule new futures after interpreter shutdown")

ahead = ReadAhead(read)
try:
    ahead.within([Unread(1, "rows", 10**12)], 60.0, patient=True)
except RuntimeError:
    ahead.within([Unread(2, "rows", 10**12)], -1.0, patient=True)
    begun.wait(60)
"""


def test_what_it_meets_while_the_process_ends_is_no_failure() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", _ENDS], capture_output=True, text=True, timeout=60, env=environment, check=True
    )
    assert ended.stderr.splitlines() == ["reading failed, RuntimeError"], "that of the first alone"


def test_closing_ends_what_is_read_and_who_waits(reading: Reading) -> None:
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(reading.within, [BIG], FOR_EVER)
        assert reading.begun.acquire(timeout=60)
        thread = reading.ahead._thread
        assert thread is not None
        reading.ahead.stop()
        assert waiting.result(timeout=60), "who waited goes on, and hears that the store is closed"
        reading.gate.set()
        reading.ahead.close()
        thread.join(60)
    assert isinstance(reading.ended, StoreClosed)
    assert not reading.read
    assert reading.within([BIG], FOR_EVER)
    assert reading.ahead._thread is None, "nothing is begun any more"


def test_who_gives_up_need_not_wait(reading: Reading) -> None:
    cancellation = Cancellation()

    def search() -> None:
        current.set(cancellation)
        reading.within([BIG], FOR_EVER)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(search)
        assert reading.begun.acquire(timeout=60)
        cancellation.cancel()
        with pytest.raises(DeadlineExceeded, match="gave up"):
            waiting.result(timeout=60)


def test_without_a_thread_the_search_does_it(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert reading.within([BIG], 0.0)
    monkeypatch.undo()
    assert not reading.within([BIG], -1.0)
    reading.gate.set()
    reading.settled()
    assert reading.read == [BIG.key]
