"""The k-th write, fsync, rename, open, unlink or truncate of a store's life fails, for every k.

A child opens a store, changes it in all ways, closes it, and one call to its disk fails on the way. Whatever
comes of that: the error is a typed one, nothing is acknowledged after a sync of the data has failed, and
once the disk is well the store opens with everything that was acknowledged."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import warpmem
from durability import memories, shim
from durability.harness import ForkServer
from durability.power import Trace

KINDS = (
    ("write", errno.EIO, False),
    ("write", errno.ENOSPC, True),
    ("fsync", errno.EIO, False),
    ("rename", errno.EIO, False),
    ("open", errno.EMFILE, False),
    ("unlink", errno.EIO, False),
    ("truncate", errno.EIO, False),
)
"""(operation, errno, whether half of a failing write's bytes arrive)"""

STEPS = 24


def name(kind: int) -> str:
    """The kind in words."""
    operation, number, half = KINDS[kind]
    return f"failing {operation}, {errno.errorcode[number]}{', half written' if half else ''}"


def child(path: str, seed: int, acknowledge: Callable[[bytes], None]) -> None:
    """Works through a fixed list of changes; `seed` names the call that fails. Says "late" before the first
    change that begins after the fault."""
    kind, at = seed % len(KINDS), seed // len(KINDS)
    operation, number, half = KINDS[kind]
    trace = path + ".trace"
    shim.begin(path, trace=trace, fail=operation, at=at, number=number, half=half)
    late = False
    memory = None
    try:
        memory = warpmem.open(path, embedder="hashing", memtable_bytes=memories.MEMTABLE_BYTES)
        for change in _changes(memory):
            if not late and _injected(trace):
                late = True
                acknowledge(b"late - - -")
            try:
                for token in change():
                    acknowledge(token.encode())
            except warpmem.WarpmemError as error:
                acknowledge(f"error - {getattr(change, '__name__', '-')} {type(error).__name__}".encode())
    except warpmem.WarpmemError as error:
        acknowledge(f"error - open {type(error).__name__}".encode())
    finally:
        if memory is not None:
            try:
                memory.close()
            except warpmem.WarpmemError as error:
                acknowledge(f"error - close {type(error).__name__}".encode())


def _injected(trace: str) -> bool:
    with open(trace, "rb") as lines:
        return any(line.startswith(b"F ") for line in lines)


def _changes(memory: warpmem.Memory) -> Iterator[Callable[[], list[str]]]:
    known: list[str] = []
    texts: dict[str, str] = {}

    def add(name: str, key: str | None) -> list[str]:
        text = f"{name} " + "long " * 400
        result = memory.add(text, user_id="ann", key=key)
        assert isinstance(result, warpmem.AddResult)
        known.append(result.id)
        texts[result.id] = text
        return [f"is 1 {result.id} {text}"]

    def update(name: str) -> list[str]:
        item = memory.update(known[0], text=f"updated {name}")
        return [f"is {item.version} {item.id} updated {name}"]

    def delete() -> list[str]:
        gone = known.pop()
        memory.delete(gone)
        return [f"gone 0 {gone} -"]

    def checkpoint() -> list[str]:
        memory.checkpoint()
        return []

    for step in range(STEPS):
        yield lambda name=f"step {step}", key=("slot" if step % 5 == 0 else None): add(name, key)  # type: ignore[misc]
        if step % 4 == 3 and known:
            yield lambda name=f"step {step}": update(name)  # type: ignore[misc]
        if step % 6 == 5 and len(known) > 1:
            yield delete
        if step % 8 == 7:
            yield checkpoint


def run(folder: Path, kind: int, first: int, most: int) -> tuple[int, Counter[str]]:
    """Let call number `first`, `first + 1`, ... of a kind fail, `most` of them at most; returns how many did
    before the life of the store had no such call any more, and what came of them. AssertionError when a
    promise
    broke."""
    server = ForkServer("durability.faults:child", shim.environment())
    outcomes: Counter[str] = Counter()
    operation = KINDS[kind][0]
    try:
        for done in range(most):
            path = str(folder / f"{operation}-{kind}-{first + done}")
            tokens = server.run(path, (first + done) * len(KINDS) + kind, None)
            fault = Trace(path, path + ".trace").fault
            if fault is None:
                return done, outcomes
            outcomes[_judge(path, operation, fault, tokens)] += 1
            shutil.rmtree(path, ignore_errors=True)
            os.unlink(path + ".trace")
    finally:
        server.close()
    return most, outcomes


def _judge(path: str, operation: str, fault: str, tokens: list[bytes]) -> str:
    late = tokens.index(b"late - - -") if b"late - - -" in tokens else len(tokens)
    acknowledged = [token for token in tokens if token.startswith((b"is", b"gone"))]
    after = [token for token in tokens[late:] if token.startswith((b"is", b"gone"))]
    errors = [token.decode().split()[2:] for token in tokens if token.startswith(b"error")]
    # A checkpoint is derived: a sync of its own that fails concerns nobody else.
    if operation == "fsync" and [where for where, _ in errors] != ["checkpoint"]:
        assert not after, f"{len(after)} changes were acknowledged after a failed fsync: {fault}"
    if os.path.isdir(path):
        memories.check(path, acknowledged)
    else:
        assert not acknowledged
    return "refused by {1} in {0}".format(*errors[0]) if errors else "harmless"
