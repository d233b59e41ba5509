"""A store that is written while its model changes, until it is killed; what must hold when it is opened."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import warpmem
from durability.harness import run_kills
from durability.memories import USERS, check_items, write
from reembedding import check_vectors, hits
from warpmem import Memory, NewItem
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import FormatError, ModelMismatch
from warpmem.storage.rocks import RocksEngine
from warpmem.storage.vector_build import read_job

DIMENSIONS = (16, 24)
READY = b"ready"
_BATCH = 16
_MANY = 40


def open_either(path: str) -> tuple[Memory, int]:
    """The store, in whichever of the two models it has."""
    for dimension in DIMENSIONS:
        try:
            return warpmem.open(path, embedder=HashingEmbedder(dimension), min_free_bytes=0), dimension
        except ModelMismatch:
            continue
    raise AssertionError("the store has neither model")


def child(path: str, seed: int, acknowledge: Callable[[bytes], None]) -> None:
    """One thread writes as durability.memories does; another changes the model to and fro."""
    memory, dimension = open_either(path)
    if memory.count(user_id="many") < _MANY:
        memory.add_many([NewItem(text=f"many {n}") for n in range(_MANY)], user_id="many")
    acknowledge(READY)

    def turn() -> None:
        nonlocal dimension
        for n in itertools.count():
            dimension = DIMENSIONS[1 - DIMENSIONS.index(dimension)]
            memory.reembed(HashingEmbedder(dimension), batch=_BATCH)
            acknowledge(f"model {dimension} {seed}-{n} -".encode())

    threads = [
        threading.Thread(target=turn),
        threading.Thread(target=write, args=(memory, random.Random(seed), f"{seed}-0", acknowledge)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _switched(path: str) -> bool:
    """Whether a child died between a switch and the end of the old vectors."""
    try:
        engine = RocksEngine(path, read_only=True)
    except FormatError:
        return False  # it died before there was a store
    try:
        job = read_job(engine)
    finally:
        engine.close()
    return job is not None and job.done


def run_reembed_kills(folder: Path, *, kills: int, seed: int, longest: float = 0.8) -> Counter[str]:
    """Kill `kills` children at random moments. Returns what was found: "resumed" jobs, those that had
    "switched", and "acknowledged" changes of the model."""
    found: Counter[str] = Counter()

    def check(path: str, acknowledged: Sequence[bytes]) -> None:
        models = [int(token.split()[1]) for token in acknowledged if token.startswith(b"model")]
        found["acknowledged"] += len(models)
        items = [token for token in acknowledged if not token.startswith((b"model", READY))]
        found["switched"] += _switched(path)
        memory, dimension = open_either(path)
        with memory:
            check_items(memory, items, (*USERS, "many"))
            check_vectors(memory)
            everything = {item.id for item in memory.list(user_id="many", limit=1000)}
            assert {name[0] for name in hits(memory, "many 7", "many")} == everything
            status = memory.stats().reembed
            if status is not None:
                found["resumed"] += 1
                assert not status.switched and status.dimension != dimension
                memory.reembed(HashingEmbedder(status.dimension))
                check_vectors(memory)
                check_items(memory, items, (*USERS, "many"))

    run_kills(
        "durability.reembeds:child",
        check,
        folder,
        kills=kills,
        seed=seed,
        fresh_every=10,
        longest=longest,
    )
    return found
