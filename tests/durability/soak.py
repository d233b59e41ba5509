"""A store under steady load: memory and descriptors stay flat.

A process of its own opens a store and works at 80 % of what its threads could: adds, searches, updates,
deletes, contexts, checkpoints, with as many items coming as going. It says once a second what it uses; the
first third of the samples is warm-up."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

LOAD = 0.8
THREADS = 3
LIVE = 600
"""Items that each thread keeps."""


class Soak(NamedTuple):
    """What a run showed: medians of the middle and of the last third of the samples. RSS in bytes, without
    the block cache and the memtables of the store, which fill up to their bounds. Descriptors without those
    of tables that are there: the store keeps its history, so it has more of them all the time, and the engine
    holds MOST_TABLES of them open. tables: how many it held open at most."""

    seconds: float
    operations: int
    rss_before: float
    rss_after: float
    descriptors_before: float
    descriptors_after: float
    errors: int
    tables: int


MOST_TABLES = 256
"""_MAX_OPEN_FILES of the engine."""


def usage() -> tuple[int, int, int]:
    """(resident bytes, open descriptors but for tables that are there, such tables) of this process, once
    what is free has been given back."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # a C library that is not glibc
        ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    names = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # of the listing itself
            names.append(os.readlink(f"/proc/self/fd/{number}"))
    tables = sum(name.endswith(".sst") for name in names)  # a removed one's name ends in "(deleted)"
    return pages * os.sysconf("SC_PAGE_SIZE"), len(names) - tables, tables


def work(path: str, seconds: float) -> None:
    """Runs in the process of its own: prints a line of JSON a second."""
    import warpmem

    memory: Any = warpmem.open(
        path, embedder="hashing", memtable_bytes=1 << 20, embedding_cache_bytes=1 << 20, durability="os"
    )
    ends = time.monotonic() + seconds
    counts = [0] * THREADS
    errors: list[str] = []

    def load(thread: int) -> None:
        rng = random.Random(thread)
        known: deque[str] = deque()
        user = f"user-{thread}"
        for n in itertools.count():
            began = time.monotonic()
            if began >= ends:
                return
            what = rng.random()
            try:
                if what < 0.4 or len(known) < 20:
                    known.append(
                        memory.add(f"note {thread} {n} {rng.random()}", user_id=user, metadata={"n": n}).id
                    )
                elif what < 0.5:
                    memory.update(rng.choice(known), text=f"corrected {n}")
                elif what < 0.9:
                    memory.search(
                        f"note {rng.randrange(1000)}",
                        user_id=user,
                        k=10,
                        filters={"metadata.n": {"gte": n // 2}},
                    )
                else:
                    memory.context(f"note {n}", user_id=user, max_tokens=200)
                while len(known) > LIVE:
                    memory.delete(known.popleft())
            except warpmem.WarpmemError as error:
                errors.append(repr(error))
            counts[thread] += 1
            time.sleep((time.monotonic() - began) * (1 / LOAD - 1))

    threads = [threading.Thread(target=load, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    while time.monotonic() < ends:
        time.sleep(min(1.0, seconds / 60))
        with contextlib.suppress(warpmem.WarpmemError):
            memory.checkpoint()
        resident, descriptors, tables = usage()
        sizes = memory.stats().storage
        known = sizes["block_cache"] + sizes["memtables"]
        print(json.dumps([resident - known, descriptors, sum(counts), len(errors), tables]), flush=True)
    for thread in threads:
        thread.join()
    memory.close()
    if errors:
        print(errors[0], file=sys.stderr)


def run(folder: Path, seconds: float) -> Soak:
    """Soak for so long. AssertionError when the process fails."""
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    script = "import sys; from durability import soak; soak.work(sys.argv[1], float(sys.argv[2]))"
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder / "store"), str(seconds)],
        env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if done.stderr:
        print(done.stderr[-500:])
    samples = [json.loads(line) for line in done.stdout.splitlines()]
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[2 * third :]
    return Soak(
        time.monotonic() - began,
        samples[-1][2],
        statistics.median(sample[0] for sample in middle),
        statistics.median(sample[0] for sample in last),
        statistics.median(sample[1] for sample in middle),
        statistics.median(sample[1] for sample in last),
        samples[-1][3],
        max(sample[4] for sample in samples),
    )


def judge(found: Soak) -> None:
    """AssertionError when it leaks: more than 5 % and 8 MiB, or more than four descriptors, from third to
    third, or more tables than the engine may hold open."""
    assert found.errors == 0, f"{found.errors} operations failed"
    assert found.rss_after <= max(1.05 * found.rss_before, found.rss_before + (8 << 20)), found
    assert found.descriptors_after <= found.descriptors_before + 4, found
    assert found.tables <= MOST_TABLES, found
