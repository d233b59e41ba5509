"""The committer: order, groups, durability, faults, and callers that give up."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from committers import Gate, Operations, Recorder, change, committer_of, queue_up, wait_for
from warpmem.errors import DiskFull, StoreClosed, StoreError, StoreReadOnly
from warpmem.storage.committer import Committer
from warpmem.storage.memory import MemoryEngine


def test_one_change_is_written_synced_applied_in_that_order() -> None:
    recorder = Recorder()
    with committer_of(recorder) as committer:
        assert committer.submit(change(b"a", result=7)) == 7
        assert recorder.events == [("write", b"a"), "sync", ("apply", b"a")]


def test_os_durability_does_not_sync_and_a_barrier_does() -> None:
    recorder = Recorder()
    with committer_of(recorder) as committer:
        committer.submit(change(b"a"), "os")
        assert "sync" not in recorder.events
        committer.barrier()
        committer.barrier()
        assert recorder.events == [("write", b"a"), ("apply", b"a"), "sync"]


def test_a_change_without_operations_neither_writes_nor_syncs() -> None:
    recorder = Recorder()
    with committer_of(recorder) as committer:
        assert committer.submit(lambda: ([], "seen", 3)) == 3
        assert recorder.events == [("apply", "seen")]
        committer.submit(change(b"a"), "os")
        committer.submit(lambda: ([], "after", None))  # what it read must be durable before it returns
        assert recorder.events[-2:] == ["sync", ("apply", "after")]


def test_waiting_changes_share_one_sync_and_keep_their_order() -> None:
    recorder = Recorder()
    with committer_of(recorder) as committer:
        gate = Gate(committer)
        names = [b"%d" % i for i in range(20)]
        durabilities = ["sync" if i % 3 == 0 else "os" for i in range(20)]
        submissions = queue_up(
            committer,
            [
                lambda n=name, d=durability: committer.submit(change(n, result=n), d)  # type: ignore[misc]
                for name, durability in zip(names, durabilities, strict=True)
            ],
        )
        recorder.events.clear()
        gate.open()
        for submission in submissions:
            submission.join()
        assert [submission.result for submission in submissions] == names
        events = [event for event in recorder.events if event != ("apply", None)]
        assert events == [*(("write", n) for n in names), "sync", *(("apply", n) for n in names)]


def test_a_job_sees_the_writes_of_its_group() -> None:
    engine = MemoryEngine()
    committer: Committer[Operations, None] = Committer(engine.write, engine.sync, lambda effects: None)

    def increment() -> tuple[Operations, None, int]:
        stored = engine.get("meta", b"n")
        number = (0 if stored is None else int(stored)) + 1
        return [("meta", b"n", b"%d" % number)], None, number

    results: list[int] = []
    threads = [
        threading.Thread(target=lambda: results.extend(committer.submit(increment) for _ in range(50)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    committer.stop()
    assert sorted(results) == list(range(1, 401))
    assert engine.get("meta", b"n") == b"400"


def test_an_exception_of_a_job_reaches_its_submitter_alone() -> None:
    recorder = Recorder()

    def broken() -> tuple[Operations, Any, None]:
        raise LookupError("no such thing")

    with committer_of(recorder) as committer:
        gate = Gate(committer)
        first, bad, last = queue_up(
            committer,
            [
                lambda: committer.submit(change(b"a", 1)),
                lambda: committer.submit(broken),
                lambda: committer.submit(change(b"b", 2)),
            ],
        )
        gate.open()
        for submission in (first, bad, last):
            submission.join()
        assert (first.result, last.result) == (1, 2)
        assert isinstance(bad.error, LookupError) and first.error is None and last.error is None
        assert ("write", b"a") in recorder.events and ("apply", b"b") in recorder.events


def test_a_write_error_fails_its_change_and_a_latched_engine_the_rest() -> None:
    engine = MemoryEngine()
    applied: list[Any] = []
    committer: Committer[Operations, Any] = Committer(engine.write, engine.sync, applied.append)
    engine.fail_after(1, DiskFull("no room"))
    gate = Gate(committer)
    submissions = queue_up(
        committer,
        [lambda n=n: committer.submit(change(n)) for n in (b"a", b"b", b"c")],  # type: ignore[misc]
    )
    gate.open()
    for submission in submissions:
        submission.join()
    assert [type(submission.error) for submission in submissions] == [type(None), DiskFull, DiskFull]
    assert applied == [None, b"a"]
    assert [engine.get("items", n) for n in (b"a", b"b", b"c")] == [b"", None, None]
    engine.clear_faults()
    committer.submit(change(b"d"))
    assert engine.get("items", b"d") == b""
    committer.stop()


def test_a_sync_error_fails_all_that_wait_and_applies_nothing() -> None:
    engine = MemoryEngine()
    applied: list[Any] = []
    committer: Committer[Operations, Any] = Committer(engine.write, engine.sync, applied.append)
    committer.submit(change(b"before"))
    engine.fail_sync(StoreError("I/O error"))
    gate = Gate(committer)
    submissions = queue_up(
        committer,
        [
            lambda: committer.submit(change(b"a"), "os"),
            lambda: committer.submit(change(b"b"), "sync"),
            committer.barrier,
        ],
    )
    gate.open()
    for submission in submissions:
        submission.join()
    errors = [submission.error for submission in submissions]
    assert all(isinstance(error, StoreReadOnly) for error in errors)
    assert len({id(error) for error in errors}) == 3
    assert "I/O error" in str(errors[0])
    assert applied == [b"before", None]
    with pytest.raises(StoreReadOnly):
        committer.submit(change(b"c"))
    assert engine.get("items", b"before") == b""
    committer.stop()


def test_an_exception_of_apply_reaches_its_submitter_and_the_thread_goes_on() -> None:
    recorder = Recorder()
    with committer_of(recorder) as committer:
        recorder.apply_error = ZeroDivisionError("subscriber")
        with pytest.raises(ZeroDivisionError):
            committer.submit(change(b"a"))
        recorder.apply_error = None
        committer.submit(change(b"b"))
        assert recorder.events == [("write", b"a"), "sync", ("write", b"b"), "sync", ("apply", b"b")]


def test_a_change_that_has_begun_is_waited_for() -> None:
    recorder = Recorder()

    def slow() -> tuple[Operations, Any, str]:
        time.sleep(0.1)
        return [("items", b"slow", b"")], None, "done"

    with committer_of(recorder) as committer:
        assert committer.submit(slow, timeout=0.03) == "done"


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell starts its background jobs with SIGINT ignored, and then Python installs no handler for it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_keyboard_interrupt_withdraws_what_has_not_begun() -> None:
    recorder = Recorder()
    with committer_of(recorder) as committer:
        gate = Gate(committer)
        main = threading.main_thread().ident
        assert main is not None
        timer = threading.Timer(0.05, lambda: signal.pthread_kill(main, signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            committer.submit(change(b"interrupted"))
        timer.join()
        gate.open()
        committer.submit(change(b"a"))
        assert ("write", b"interrupted") not in recorder.events
        assert ("apply", b"a") in recorder.events


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_thread_that_could_not_start_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """Its change stayed in the queue, later ones waited for ever, and stop() failed."""

    def fail(self: threading.Thread) -> None:
        raise error

    recorder = Recorder()
    for stopped_at_once in (True, False):
        committer = Committer(recorder.write, recorder.sync, recorder.apply)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fail)
            with pytest.raises(error):
                committer.submit(change(b"interrupted"))
        if not stopped_at_once:
            committer.submit(change(b"a"), timeout=30)
        committer.stop()
    assert ("write", b"interrupted") not in recorder.events
    assert ("apply", b"a") in recorder.events


def test_stop_drains_and_then_refuses() -> None:
    recorder = Recorder()
    with committer_of(recorder) as committer:
        gate = Gate(committer)
        queued = queue_up(
            committer,
            [lambda n=n: committer.submit(change(n)) for n in (b"a", b"b")],  # type: ignore[misc]
        )
        stopping = threading.Thread(target=committer.stop)
        stopping.start()
        wait_for(lambda: committer._stopping)
        with pytest.raises(StoreClosed):
            committer.submit(change(b"late"))
        gate.open()
        stopping.join()
        for submission in queued:
            submission.join()
            assert submission.error is None
        committer.stop()
        assert ("apply", b"b") in recorder.events


def test_stop_without_a_single_change() -> None:
    with committer_of(Recorder()) as committer:
        committer.stop()
        with pytest.raises(StoreClosed):
            committer.barrier()


def test_a_change_cannot_submit_or_stop_from_inside() -> None:
    recorder = Recorder()
    with committer_of(recorder) as committer:
        with pytest.raises(StoreError, match="cannot submit another change"):
            committer.submit(lambda: committer.submit(change(b"inner")))
        with pytest.raises(StoreError, match="cannot close"):
            committer.submit(lambda: committer.stop())  # type: ignore[arg-type, return-value]


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_a_forked_child_gets_a_typed_error() -> None:
    recorder = Recorder()
    with committer_of(recorder) as committer:
        committer.submit(change(b"a"))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                committer.submit(change(b"b"))
            except StoreClosed as error:
                committer.stop()
                code = 0 if "forked child" in str(error) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        committer.submit(change(b"c"))
