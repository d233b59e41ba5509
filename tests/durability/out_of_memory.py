"""A store whose process runs out of memory at one allocation, any of them.

Run as a program, with the shim below preloaded and PYTHONMALLOC=malloc: for each number it forks a child
that opens a store, lets that allocation fail in the middle of its work, and goes on as well as it can or
dies; another child then checks the store.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import warpmem
from warpmem.errors import WarpmemError

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
static volatile long left = -1;
void arm(long count) { left = count; }
long disarm(void) { long was = left; left = -1; return was; }
static int fails(void) {
  if (left < 0) return 0;
  return __sync_fetch_and_sub(&left, 1) == 0;
}
void *malloc(size_t n) { if (fails()) { errno = ENOMEM; return 0; } return __libc_malloc(n); }
void *calloc(size_t a, size_t b) { if (fails()) { errno = ENOMEM; return 0; } return __libc_calloc(a, b); }
void *realloc(void *p, size_t n) { if (fails()) { errno = ENOMEM; return 0; } return __libc_realloc(p, n); }
int posix_memalign(void **p, size_t a, size_t n) {
  if (fails()) return ENOMEM;
  *p = __libc_memalign(a, n);
  return *p ? 0 : ENOMEM;
}
"""
USER = "ann"
ONE = np.ones(8)
MOST = 60_000  # allocations of the work below, about
SECONDS = 30


def build(folder: Path, compiler: str) -> Path:
    """Compile the shim."""
    source, shim = folder / "memory.c", folder / "memory.so"
    source.write_text(SHIM)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"], check=True)
    return shim


def run(shim: Path, folder: Path, *, count: int, seed: int) -> str:
    """Let `count` allocations fail, each in a store of its own; what became of the children."""
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "durability.out_of_memory", str(folder), str(count), str(seed)],
        env={**os.environ, "PYTHONPATH": paths, "LD_PRELOAD": str(shim), "PYTHONMALLOC": "malloc"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def work(path: str, at: int, acknowledge: Callable[[str], None]) -> None:
    """Change a store and search it; allocation `at` of that fails, and the work goes on if it can."""
    library = ctypes.CDLL(None)
    memory = warpmem.open(path, dimension=8, backend="cpu", memtable_bytes=64 << 10)
    ids: list[str] = []

    def add(text: str) -> None:
        result = memory.add(text, user_id=USER, vector=ONE)
        assert isinstance(result, warpmem.AddResult)
        ids.append(result.id)
        acknowledge(f"is {result.id} {text}")

    def delete(item_id: str) -> None:
        acknowledge(f"may {item_id}")
        memory.delete(item_id)
        acknowledge(f"gone {item_id}")

    for n in range(3):
        add(f"before {n}")
    library.arm(at)
    for n in range(12):
        with contextlib.suppress(MemoryError, WarpmemError):
            add(f"text {n} " + "x" * 100 * n)
        with contextlib.suppress(MemoryError, WarpmemError):
            memory.search(vector=ONE, user_id=USER)
        if n == 5:
            with contextlib.suppress(MemoryError, WarpmemError):
                delete(ids[1])
            with contextlib.suppress(MemoryError, WarpmemError):
                memory.checkpoint()
    left = library.disarm()
    with contextlib.suppress(MemoryError, WarpmemError):
        memory.close()
    acknowledge(f"left {left}")


def check(path: str, acknowledged: Sequence[str]) -> None:
    """Everything acknowledged is there, nothing is there by half, and writing goes on."""
    with warpmem.open(path, dimension=8, backend="cpu") as memory:
        stats = memory.stats()
        assert [change.cursor for change in memory.changes(limit=10_000)] == list(
            range(1, stats.sequence + 1)
        )
        listed = {item.id: item.text for item in memory.list(user_id=USER, limit=10_000)}
        found = {hit.item.id for hit in memory.search(vector=ONE, user_id=USER, k=4096)}
        assert set(listed) == found and len(listed) == stats.items
        maybe_gone = {line.split()[1] for line in acknowledged if line.startswith("may")}
        gone = {line.split()[1] for line in acknowledged if line.startswith("gone")}
        for line in acknowledged:
            what, item_id, *text = line.split(" ", 2)
            if what == "is" and item_id not in maybe_gone:
                assert listed[item_id] == text[0]
        assert not gone & set(listed)
        memory.add("afterwards", user_id=USER, vector=ONE)


def in_child(body: Callable[[Callable[[str], None]], None]) -> tuple[list[str], int]:
    """Run `body` in a fork: the lines it acknowledged, and its wait status."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(SECONDS)
            os.close(reading)
            body(lambda line: (os.write(writing, line.encode() + b"\n"), None)[1])
            code = 0
        except BaseException:  # noqa: BLE001  the status tells
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as lines:
        acknowledged = lines.read().splitlines()
    return acknowledged, os.waitpid(child, 0)[1]


def main(folder: str, count: int, seed: int) -> None:
    rng = random.Random(seed)
    outcomes: dict[str, int] = {}
    for number in range(count):
        # As many early as late, so that each of the first is met more often: they are the more diverse.
        at = int(MOST ** rng.random())
        path = os.path.join(folder, f"store-{number}")
        acknowledged, status = in_child(lambda acknowledge: work(path, at, acknowledge))  # noqa: B023
        assert not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM), f"hangs at {at}"
        outcome = f"exit {os.waitstatus_to_exitcode(status)}"  # below zero: the signal
        if acknowledged and acknowledged[-1].startswith("left") and not acknowledged[-1].endswith("-1"):
            outcome = "not reached"
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        _, status = in_child(lambda acknowledge: check(path, acknowledged))  # noqa: B023
        assert status == 0, f"the store is not whole after allocation {at} failed"
        shutil.rmtree(path)
    sys.stdout.write(f"{outcomes}\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
