"""A disk that fills up at every step of 64 KiB, while a store on it is being written.

A small tmpfs holds a store and ballast. The ballast leaves so many steps free; changes are added until the
store refuses. Then reads go on, deletes are possible or refused with a typed error, and once the ballast has
gone the very same store takes changes again. At the end it is closed on the full disk, opened on it, and
checked."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import warpmem
from durability import memories
from warpmem.errors import DiskFull, StoreReadOnly

DIMENSION = 256  # of the embedder
STEP = 64 << 10
MIN_FREE = 1 << 20
_SIZE = "96m"


class Unavailable(RuntimeError):
    """A tmpfs cannot be mounted here."""


@contextlib.contextmanager
def small_disk(folder: Path, size: str = _SIZE) -> Iterator[Path]:
    """A tmpfs of its own below `folder`. Raises Unavailable."""
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        raise Unavailable("mounting a small tmpfs needs root and mount(8)")
    disk = folder / "disk"
    disk.mkdir()
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if done.returncode != 0:
        raise Unavailable(f"not permitted to mount a tmpfs: {done.stderr.decode().strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill_to(ballast: Path, free: int) -> None:
    """Let `ballast` grow or shrink until `free` bytes are left on its disk."""
    status = os.statvfs(ballast.parent)
    size = ballast.stat().st_size if ballast.exists() else 0
    want = size + status.f_bavail * status.f_frsize - free
    # Unbuffered: what found no room, for the store took it meanwhile, is not to be tried again at the end.
    with ballast.open("ab", buffering=0) as file:
        file.truncate(min(max(0, want), size))
        while (left := want - file.seek(0, os.SEEK_END)) > 0:
            try:
                file.write(bytes(min(left, 1 << 20)))
            except OSError:
                return


def run(folder: Path, steps: Iterator[int]) -> Counter[str]:
    """One life of a store for each number of steps left free. AssertionError when a promise broke."""
    outcomes: Counter[str] = Counter()
    for step in steps:
        place = folder / f"step-{step}"
        place.mkdir()
        with small_disk(place) as disk:
            outcomes[_life(disk, step)] += 1
        shutil.rmtree(place)
    return outcomes


def _life(disk: Path, step: int) -> str:
    path, ballast = str(disk / "store"), disk / "ballast"
    options = {
        "embedder": "hashing", "memtable_bytes": memories.MEMTABLE_BYTES, "min_free_bytes": MIN_FREE,
    }  # fmt: skip
    acknowledged: list[bytes] = []

    def add(memory: warpmem.Memory, name: str) -> None:
        text = f"{name} " + os.urandom(2_000).hex()
        # A vector is given: to embed so long a text takes longer than everything else here.
        vector = np.random.default_rng(len(acknowledged)).standard_normal(DIMENSION)
        result = memory.add(text, user_id="ann", vector=vector)
        assert isinstance(result, warpmem.AddResult)
        acknowledged.append(f"is 1 {result.id} {text}".encode())

    with warpmem.open(path, **options) as memory:
        for n in range(20):
            add(memory, f"before {n}")
        fill_to(ballast, step * STEP)
        refused = ""
        for n in range(20 + step * STEP // 2_000):
            try:
                add(memory, f"filling {n}")
            except DiskFull:
                refused = "early"
                break
            except StoreReadOnly as error:
                raise AssertionError(f"with {step} steps free the disk was filled to the brim") from error
        assert refused, f"with {step} steps free nothing was ever refused"
        assert len(memory.search("filling", user_id="ann", k=5)) == 5, "reads do not go on"
        first = acknowledged[0].split()[2].decode()
        assert memory.get(first).id == first
        ballast.unlink()
        for n in range(5):
            add(memory, f"resumed {n}")
        fill_to(ballast, 0)
    with warpmem.open(path, read_only=True, **options) as memory:
        assert memory.stats().items == len(acknowledged), "a read-only open on a full disk lacks items"
    with warpmem.open(path, **options) as memory:
        assert memory.stats().items == len(acknowledged)
        with contextlib.suppress(DiskFull):
            add(memory, "on a full disk")
            raise AssertionError("a full disk took a change")
        ballast.unlink()
        add(memory, "room again")
    memories.check(path, acknowledged)
    return refused
