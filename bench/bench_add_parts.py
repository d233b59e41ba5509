"""A synced add beside what it cannot do without, in one run (informational): the same bytes written and
synced on the calling thread, a bare fsync of as many, and a job that does nothing on the committer's thread.

All take turns, so that a slow moment of the disk hits all; medians. What an add takes more is Python's. It
runs with cold caches, for the disk was waited for: about twice what the same calls take unsynced.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from stores import alternate, unit_rows

import warpmem
from warpmem import Memory
from warpmem.storage.committer import Committer
from warpmem.storage.rocks import RocksEngine
from warpmem.types import Durability

ROUNDS, BATCH = 200, 100
Operations = Sequence[tuple[str, bytes, bytes | None]]
ROWS = unit_rows(BATCH)


def operations(memory: Memory, monkeypatch: pytest.MonkeyPatch, texts: list[str]) -> Operations:
    """What adding these texts writes."""
    written: list[Operations] = []
    write = RocksEngine.write

    def noted(engine: RocksEngine, some: Operations) -> None:
        written.append(list(some))
        write(engine, some)

    memory.add("the first writes the owner's name too", user_id="noted", vector=ROWS[0])
    with monkeypatch.context() as patch:
        patch.setattr(RocksEngine, "write", noted)
        memory.add(texts, user_id="noted", kind="message", vector=ROWS[: len(texts)])
    return written[-1]


def renamed(some: Operations, number: int) -> Operations:
    """The same bytes under other keys, but for the owner's, which every add writes again."""
    head = number.to_bytes(4, "big")
    return [(family, key if family == "owners" else head + key[4:], value) for family, key, value in some]


@pytest.mark.parametrize("count", [1, BATCH])
def test_parts_of_an_add(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Callable[[str], None]
) -> None:
    numbers = itertools.count()
    with (
        warpmem.open(tmp_path / "given", dimension=ROWS.shape[1]) as given,
        warpmem.open(tmp_path / "embedding") as embedding,
        (tmp_path / "probe").open("wb", buffering=0) as probe,
    ):
        engine = RocksEngine(tmp_path / "bare")
        idle: Committer[list[Any], None] = Committer(lambda _: None, lambda: None, lambda _: None)

        def texts() -> list[str]:
            return [f"line {next(numbers)} of a chat, about as long as such lines are" for _ in range(count)]

        def add(memory: Memory, durability: Durability, vectors: Any) -> None:
            memory.add(texts(), user_id="one", kind="message", vector=vectors, durability=durability)

        some = operations(given, monkeypatch, texts())
        size = sum(len(key) + len(value or b"") for _, key, value in some)

        def write(number: int) -> None:
            engine.write(renamed(some, number))
            engine.sync()

        def sync(number: int) -> None:
            probe.write(bytes(size))
            os.fdatasync(probe.fileno())

        calls: dict[str, Callable[[int], object]] = {
            "vectors given": lambda _: add(given, "sync", ROWS[:count]),
            "embedded": lambda _: add(embedding, "sync", None),
            "given, unsynced": lambda _: add(given, "os", ROWS[:count]),
            "its write and sync": write,
            "an fsync": sync,
            "a job that does nothing": lambda _: idle.submit(lambda: ([], None, None)),
        }
        found = alternate(list(calls.values()), ROUNDS // count + 20)
        idle.stop()
        engine.close()
    what = f"add of {count}, {len(some)} values of {size:,} bytes"
    for name, took in zip(calls, found, strict=True):
        report(f"{what}; {name}: {took / count * 1e6:,.1f} us an item")
