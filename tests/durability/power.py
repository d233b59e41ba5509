"""A power loss, played on the folder of a store whose process was killed.

The trace of shim.c tells what had reached the disk for certain: bytes that were written before a sync began
that ended well, and names whose folder was synced after they changed. Everything else may be there or not.
The player takes it back at random: unsynced bytes are cut off or zeroed by sectors, names that were made,
moved or removed since their folder was synced go back in the order opposite to that in which they came."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from durability import extractions, memories, queues, shim

SECTOR = 512
MODES = ("gone", "cut", "zero", "cut and zero", "keep")

Range = tuple[int, int]

# --------------------------------------------------------------------------------------------- ranges


def join(ranges: list[Range]) -> list[Range]:
    """Sorted and merged."""
    out: list[Range] = []
    for start, end in sorted(ranges):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        elif start < end:
            out.append((start, end))
    return out


def without(ranges: list[Range], taken: list[Range]) -> list[Range]:
    """What of `ranges` is not in `taken`."""
    out: list[Range] = []
    for start, end in join(ranges):
        for low, high in join(taken):
            if high <= start or low >= end:
                continue
            if low > start:
                out.append((start, low))
            start = max(start, high)
        if start < end:
            out.append((start, end))
    return out


# ---------------------------------------------------------------------------------------------- trace


@dataclass
class File:
    """What is known of one file. `synced`: bytes that are on the disk; `written`: bytes that were given to
    it."""

    synced: list[Range] = field(default_factory=list)
    written: list[Range] = field(default_factory=list)


@dataclass
class Name:
    """One change of a name, and whether its folder was synced afterwards."""

    what: str
    ino: int
    path: str
    target: str
    kept: str
    folder: int | None
    durable: bool = False


@dataclass
class Sync:
    """A sync under way: what it covers, what was written since it began, how many names there were."""

    ino: int
    covers: list[Range]
    since: list[Range]
    names: int


class Trace:
    """The trace of one life of a store, read to its end."""

    def __init__(self, root: str, path: str) -> None:
        self.files: dict[int, File] = {}
        self.names: list[Name] = []
        self.fault: str | None = None
        self._syncs: dict[int, Sync] = {}
        self._folders = {root: os.stat(root).st_ino} if os.path.isdir(root) else {}
        with open(path, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                if line.endswith("\n"):
                    what, _, rest = line[:-1].partition(" ")
                    getattr(self, f"_{what}")(rest)

    def _C(self, rest: str) -> None:  # noqa: N802
        ino, path = rest.split(" ", 1)
        self.files[int(ino)] = File()
        self._name("C", int(ino), path)

    def _O(self, rest: str) -> None:  # noqa: N802
        ino, size, _ = rest.split(" ", 2)
        if int(ino) not in self.files:
            self.files[int(ino)] = File([(0, int(size))], [(0, int(size))])

    def _W(self, rest: str) -> None:  # noqa: N802
        ino, start, length = map(int, rest.split())
        new = [(start, start + length)]
        file = self.files.setdefault(ino, File())
        file.synced = without(file.synced, new)
        file.written = join(file.written + new)
        for sync in self._syncs.values():
            if sync.ino == ino:
                sync.since += new

    def _T(self, rest: str) -> None:  # noqa: N802
        ino, size = map(int, rest.split())
        file = self.files.setdefault(ino, File())
        beyond = [(size, 1 << 62)]
        file.synced, file.written = without(file.synced, beyond), without(file.written, beyond)

    def _B(self, rest: str) -> None:  # noqa: N802
        number, ino = map(int, rest.split())
        file = self.files.get(ino, File())
        self._syncs[number] = Sync(ino, list(file.written), [], len(self.names))

    def _E(self, rest: str) -> None:  # noqa: N802
        number, ino = map(int, rest.split())
        sync = self._syncs.pop(number)
        if ino in self.files:
            file = self.files[ino]
            file.synced = join(file.synced + without(sync.covers, sync.since))
        for name in self.names[: sync.names]:
            if name.folder == ino:
                name.durable = True

    def _R(self, rest: str) -> None:  # noqa: N802
        ino, paths = rest.split(" ", 1)
        path, target, kept = paths.split("|")
        self._name("R", int(ino), path, target, kept)
        if path in self._folders:
            self._folders[target] = self._folders.pop(path)

    def _U(self, rest: str) -> None:  # noqa: N802
        ino, paths = rest.split(" ", 1)
        path, kept = paths.split("|")
        self._name("U", int(ino), path, kept=kept)

    def _L(self, rest: str) -> None:  # noqa: N802
        ino, path = rest.split(" ", 1)
        self._name("L", int(ino), path)

    def _M(self, rest: str) -> None:  # noqa: N802
        ino, path = rest.split(" ", 1)
        self._folders[path] = int(ino)
        self._name("M", int(ino), path)

    def _F(self, rest: str) -> None:  # noqa: N802
        self.fault = rest

    def _name(self, what: str, ino: int, path: str, target: str = "", kept: str = "") -> None:
        folder = self._folders.get(os.path.dirname(target or path))
        # What stands in no folder that is watched is somebody else's to sync.
        self.names.append(Name(what, ino, path, target, kept, folder, durable=folder is None))


# ---------------------------------------------------------------------------------------------- crash


def crash(root: str, trace: str, rng: random.Random, modes: Sequence[str] = MODES) -> int:
    """Leave below `root` what a power loss at the end of `trace` may leave; returns how many bytes and names
    were taken back."""
    life = Trace(root, trace)
    pending = [name for name in life.names if not name.durable]
    stays = rng.randrange(len(pending) + 1)
    for name in reversed(pending[stays:]):
        with contextlib.suppress(FileNotFoundError, FileExistsError, OSError):
            _undo(name)
    taken = len(pending) - stays
    for folder, _, files in os.walk(root):
        for entry in files:
            path = os.path.join(folder, entry)
            status = os.lstat(path)
            file = life.files.get(status.st_ino)
            if file is not None:
                loose = without([(0, status.st_size)], file.synced)
                taken += _lose(path, loose, status.st_size, rng.choice(modes), rng)
    return taken


def _undo(name: Name) -> None:
    if name.what in "CL":
        if os.lstat(name.path).st_ino == name.ino:
            os.unlink(name.path)
    elif name.what == "M":
        os.rmdir(name.path)
    elif name.what == "U":
        os.link(name.kept, name.path)
    elif name.what == "R":
        if os.lstat(name.target).st_ino == name.ino:
            os.rename(name.target, name.path)
        if name.kept:
            os.link(name.kept, name.target)


def _lose(path: str, loose: list[Range], size: int, mode: str, rng: random.Random) -> int:
    if not loose or mode == "keep":
        return 0
    taken = 0
    with open(path, "r+b") as file:
        if "zero" in mode:
            for start, end in loose:
                at = start
                while at < end:
                    stop = min(end, at - at % SECTOR + SECTOR)
                    if rng.random() < 0.5:
                        file.seek(at)
                        file.write(bytes(stop - at))
                        taken += stop - at
                    at = stop
        if mode != "zero" and loose[-1][1] == size:
            start = loose[-1][0]
            end = start if mode == "gone" else rng.randrange(start, size + 1)
            file.truncate(end)
            taken += size - end
    return taken


# --------------------------------------------------------------------------------------------- cycles


def trace_of(path: str) -> tuple[str, str]:
    """(trace, folder of what was replaced) of the store at `path`."""
    return path + ".trace", path + ".keep"


def _watch(path: str) -> None:
    trace, keep = trace_of(path)
    os.makedirs(keep, exist_ok=True)
    shim.begin(path, trace=trace, keep=keep)


def child(path: str, seed: int, acknowledge: Callable[[bytes], None]) -> None:
    """What memories.child does, watched."""
    _watch(path)
    memories.child(path, seed, acknowledge)


def child_that_queues(path: str, seed: int, acknowledge: Callable[[bytes], None]) -> None:
    """What queues.child does, watched."""
    _watch(path)
    queues.child(path, seed, acknowledge)


def child_that_extracts(path: str, seed: int, acknowledge: Callable[[bytes], None]) -> None:
    """What extractions.child does, watched."""
    _watch(path)
    extractions.child(path, seed, acknowledge)


def child_without_syncs(path: str, seed: int, acknowledge: Callable[[bytes], None]) -> None:
    """The control: the same, acknowledged when the operating system has it. No table is written meanwhile,
    for RocksDB syncs tables, and the logs before the newest with them, whatever was asked of a write."""
    _watch(path)
    memories.child(path, seed, acknowledge, durability="os", memtable_bytes=16 << 20)


def lose_power(path: str, rng: random.Random, modes: Sequence[str] = MODES) -> int:
    """Play a power loss on the store at `path`, whose child was killed."""
    trace, keep = trace_of(path)
    if not os.path.exists(trace):
        return 0
    try:
        return crash(path, trace, rng, modes) if os.path.isdir(path) else 0
    finally:
        os.unlink(trace)
        shutil.rmtree(keep)
