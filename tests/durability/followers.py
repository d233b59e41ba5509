"""A process that follows a store, and what its answers must be at any time."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import warpmem
from warpmem import NewItem

DIMENSION = 16
USER = "ann"
BATCH = 3


def open_writer(path: Path | str) -> warpmem.Memory:
    return warpmem.open(path, dimension=DIMENSION, backend="cpu", memtable_bytes=64 << 10, min_free_bytes=0)


def write(memory: warpmem.Memory, number: int) -> None:
    """One round: a list of BATCH items, and with every second round the one of ten rounds ago goes again."""
    rng = np.random.default_rng(number)
    texts = [f"{number} part {part} {'x' * 300}" for part in range(BATCH)]  # a memtable is soon full
    items = [NewItem(text=text, metadata={"round": number}) for text in texts]
    vectors = rng.standard_normal((BATCH, DIMENSION))
    memory.add_many(items, user_id=USER, vectors=vectors, durability="os")
    memory.add(f"now {number}", user_id=USER, key="now", vector=vectors[0], durability="os")
    if number % 2 and number > 10:
        for item in memory.list(user_id=USER, filters={"metadata.round": number - 10}):
            memory.delete(item.id, durability="os")


def check(follower: warpmem.Memory) -> int:
    """What is found is what is listed, lists are whole or gone, and the feed has no gap; returns its length.

    Refreshes happen between the calls, so that the two answers are compared only when no change came between.
    """
    for _ in range(200):
        before = follower.stats()
        feed = [change.cursor for change in follower.changes(limit=10_000)]
        found = follower.search(vector=np.ones(DIMENSION), user_id=USER, k=4096)
        listed = follower.list(user_id=USER, limit=10_000)
        after = follower.stats()
        assert feed[: before.sequence] == list(range(1, min(before.sequence, 10_000) + 1))
        assert after.lag_errors == 0, f"following failed {after.lag_errors} times"
        if before.sequence == after.sequence and before.lag_changes == after.lag_changes == 0:
            assert {hit.item.id for hit in found} == {item.id for item in listed}
            assert sum(item.key == "now" for item in listed) == min(1, len(listed))
            return after.sequence
    return after.sequence


@contextlib.contextmanager
def process(body: Callable[[], None]) -> Iterator[int]:
    """Runs `body` in a forked process; it is killed at the end, or must have ended well."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            body()
            code = 0
        except BaseException:  # noqa: BLE001  the parent fails the test with it
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL, "the process failed"


def tables(path: Path | str) -> set[str]:
    """Names of the tables of a store."""
    return {name for name in os.listdir(path) if name.endswith(".sst")}


def child(path: str, seed: int, acknowledge: Callable[[bytes], None]) -> None:
    """Writes rounds from number `seed` on, and tells after each how many tables were made and how many went
    away since it began: neither happens unless RocksDB's threads are at work."""
    with open_writer(path) as memory:
        before, seen = tables(path), set[str]()
        for number in itertools.count(seed):
            write(memory, number)
            now = tables(path)
            seen |= now
            acknowledge(b"%d %d" % (len(seen - before), len((seen | before) - now)))
