"""A store whose items are embedded later, until its process is killed; what must hold when it is opened."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import warpmem
from durability.harness import run_kills
from durability.memories import MEMTABLE_BYTES, check_items, write
from reembedding import Hooked, check_vectors
from warpmem import Memory
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import FormatError, ModelMismatch, StoreCorrupt, WarpmemError
from warpmem.storage.directory import looks_like_store

DIMENSIONS = (16, 24)


def _open(path: str, **options: object) -> Memory:
    """The store, in whichever of the two models it has."""
    for dimension in DIMENSIONS:
        try:
            return warpmem.open(path, embedder=Hooked(dimension), **options)
        except ModelMismatch:
            continue
    raise AssertionError("the store has neither model")


def child(path: str, seed: int, acknowledge: Callable[[bytes], None]) -> None:
    """Two threads add, update and delete, everything to be embedded later; the store's own thread embeds, and
    two others save the index and, with odd seeds, change the model to and fro."""
    memory = _open(path, embed="later", memtable_bytes=MEMTABLE_BYTES)

    def keep() -> None:
        while True:
            memory.checkpoint()

    def turn() -> None:
        try:
            while seed % 2:
                dimension = next(one for one in DIMENSIONS if one != memory.stats().dimension)
                memory.reembed(HashingEmbedder(dimension), batch=16)
        except WarpmemError as error:
            acknowledge(f"failed {type(error).__name__}: {error}".encode()[:200])

    threads = [threading.Thread(target=keep), threading.Thread(target=turn)]
    for number in range(2):
        tag = f"{seed}-{number}"
        threads.append(
            threading.Thread(target=write, args=(memory, random.Random(seed * 2 + number), tag, acknowledge))
        )
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def check_whole(path: str, acknowledged: Sequence[bytes]) -> None:
    """The store is there and without a fault. Raises StoreCorrupt where it is to be repaired first."""
    if looks_like_store(path):
        try:
            report = warpmem.verify(path)
        except FormatError:  # it was never completely created, which the next open does
            assert not acknowledged, "the store's format was lost"
            return
        if not acknowledged and not any(report.entries.values()):
            return  # it was created but for its identity, which the next open writes
        if not report.opened:
            raise StoreCorrupt("the store is refused, and to be repaired")
        assert report.ok, report.faults
    else:
        assert not acknowledged, "the whole store was lost"


def check(path: str, acknowledged: Sequence[bytes]) -> Counter[str]:
    """Every acknowledged item is there; what waits and what has its vector agree; what waits is embedded now,
    once. How many were "waiting", and whether any had been "embedded" before."""
    failed = [token for token in acknowledged if token.startswith(b"failed")]
    assert not failed, failed
    check_whole(path, acknowledged)
    with _open(path, background_work=False) as memory:
        waits = memory.stats().pending["embed"].waiting
        assert memory.embed_pending() == waits, "work was lost, or done twice"
        assert memory.stats().pending["embed"].waiting == 0
        if memory.stats().reembed is None:
            check_vectors(memory)
        check_items(memory, acknowledged)
        changes = Counter(change.operation for change in memory.changes(limit=10_000))
    assert warpmem.verify(path).ok
    return Counter({"waiting": waits, "embedded": int(changes["embed"] > waits)})


def run_queue_kills(folder: Path, *, kills: int, seed: int) -> Counter[str]:
    """Kill `kills` children at random moments; what `check` found, and how many changes were
    "acknowledged"."""
    return counted_kills("durability.queues:child", check, folder, kills=kills, seed=seed)


def counted_kills(
    target: str,
    look: Callable[[str, Sequence[bytes]], Counter[str]],
    folder: Path,
    *,
    kills: int,
    seed: int,
) -> Counter[str]:
    """As run_kills, with the sum of what `look` found, and how many changes were "acknowledged"."""
    found: Counter[str] = Counter()
    found["acknowledged"] = run_kills(
        target,
        lambda path, acknowledged: found.update(look(path, acknowledged)),
        folder,
        kills=kills,
        seed=seed,
        fresh_every=8,
        longest=0.4,
    )
    return found
