"""Writers that come faster than the store commits wait, and not for longer than they were told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

import warpmem
from warpmem.errors import DeadlineExceeded, InputError

ONE = np.ones(4)


@contextmanager
def busy(memory: warpmem.Memory) -> Iterator[None]:
    """The committer is in the middle of a change."""
    begun, end = threading.Event(), threading.Event()

    def change(transaction: object) -> None:
        begun.set()
        assert end.wait(20)

    thread = threading.Thread(target=memory._log.transact, args=(change,))
    thread.start()
    assert begun.wait(20)
    try:
        yield
    finally:
        end.set()
        thread.join()


@pytest.mark.parametrize("limit", [{"write_queue": 1}, {"write_queue_bytes": 100}, {}])
def test_a_change_that_waits_too_long_is_not_made(limit: dict[str, int]) -> None:
    with warpmem.open(dimension=4, write_wait_ms=50, **limit) as memory:
        memory.add("first", user_id="a", vector=ONE)
        with busy(memory):
            patient = threading.Thread(
                target=lambda: memory._log.transact(lambda transaction: None, size=1000), daemon=True
            )
            memory._log._timeout = None  # type: ignore[attr-defined]
            patient.start()
            while not memory._log._committer._queue:  # type: ignore[attr-defined]
                pass
            memory._log._timeout = 0.05  # type: ignore[attr-defined]
            with pytest.raises(DeadlineExceeded, match="nothing was changed"):
                memory.add("second", user_id="a", vector=ONE)
            with pytest.raises(DeadlineExceeded):
                memory.flush()
            assert len(memory.search(vector=ONE, user_id="a")) == 1  # reads go on
        patient.join()
        memory.add("third", user_id="a", vector=ONE)
        assert {item.text for item in memory.list(user_id="a")} == {"first", "third"}


def test_limits_are_checked() -> None:
    for wrong in ({"write_queue_bytes": 0}, {"write_wait_ms": -1}, {"follow_ms": -1}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            warpmem.open(dimension=4, **wrong)
