"""The queue in front of the committer: full by number or by bytes, and callers that wait no longer."""

from __future__ import annotations

import time

import pytest

from committers import Gate, Recorder, Submission, change, committer_of, queue_up
from warpmem.errors import DeadlineExceeded


def test_a_full_queue_blocks_and_a_deadline_changes_nothing() -> None:
    recorder = Recorder()
    with committer_of(recorder, max_queue=2) as committer:
        gate = Gate(committer)
        queued = queue_up(
            committer,
            [lambda n=n: committer.submit(change(n)) for n in (b"a", b"b")],  # type: ignore[misc]
        )
        with pytest.raises(DeadlineExceeded, match=r"2 changes were waiting.*write_queue is 2.*nothing"):
            committer.submit(change(b"late"), timeout=0.02)
        blocked = Submission(lambda: committer.submit(change(b"c", "through")))
        time.sleep(0.02)
        assert blocked.is_alive()
        gate.open()
        for submission in (*queued, blocked):
            submission.join()
        assert blocked.result == "through"
        assert ("write", b"late") not in recorder.events


def test_bytes_that_wait_are_bounded_too() -> None:
    recorder = Recorder()
    with committer_of(recorder, max_bytes=100) as committer:
        gate = Gate(committer)
        large = queue_up(committer, [lambda: committer.submit(change(b"large"), size=1000)])  # waits alone
        with pytest.raises(DeadlineExceeded, match=r"1 changes.*1000 bytes.*write_queue_bytes 100"):
            committer.submit(change(b"late"), timeout=0.01, size=1)
        second = Submission(lambda: committer.submit(change(b"second"), size=60))
        gate.open()
        for submission in (*large, second):
            submission.join()
            assert submission.error is None
        gate = Gate(committer)
        queue_up(committer, [lambda: committer.submit(change(b"a"), size=60)])
        queue_up(committer, [lambda: committer.submit(change(b"b"), size=40)])
        with pytest.raises(DeadlineExceeded):
            committer.submit(change(b"c"), timeout=0.01, size=1)
        blocked = [
            Submission(lambda name=name: committer.submit(change(name), size=50))  # type: ignore[misc]
            for name in (b"d", b"e", b"f")
        ]
        gate.open()
        for submission in blocked:
            submission.join(10)
            assert not submission.is_alive() and submission.error is None
        assert committer._bytes == 0
    written = [event[1] for event in recorder.events if event[0] == "write"]
    assert sorted(written) == [b"a", b"b", b"d", b"e", b"f", b"large", b"second"]


def test_all_are_applied_before_anyone_goes_on() -> None:
    """Threads that were woken take time from the committer, which has the others' changes to apply."""
    recorder = Recorder()
    seen = []
    with committer_of(recorder) as committer:

        def submit(name: bytes) -> None:
            committer.submit(change(name))
            seen.append(sum(event[0] == "apply" for event in recorder.events))

        gate = Gate(committer)
        names = [b"%d" % number for number in range(5)]
        submissions = queue_up(committer, [lambda name=name: submit(name) for name in names])  # type: ignore[misc]
        gate.open()
        for submission in submissions:
            submission.join()
    assert seen == [6] * 5  # and that of the gate


def test_a_deadline_in_the_queue_withdraws_the_change() -> None:
    recorder = Recorder()
    with committer_of(recorder) as committer:
        gate = Gate(committer)
        with pytest.raises(DeadlineExceeded, match=r"did not begin within 0\.02 s; nothing was changed"):
            committer.submit(change(b"late"), timeout=0.02)
        gate.open()
        committer.submit(change(b"a"), timeout=10)
        assert ("write", b"late") not in recorder.events
