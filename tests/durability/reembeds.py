"""A store that is written while its model changes, until it is killed; what must hold when it is opened."""

from __future__ import annotations

import itertools
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import warpmem
from durability.harness import run_kills
from durability.memories import USERS, check_items, write
from reembedding import check_vectors, hits
from warpmem import Memory, NewItem
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import FormatError, ModelMismatch
from warpmem.storage.rocks import RocksEngine
from warpmem.storage.vector_build import VectorBuild, read_job

DIMENSIONS = (16, 24)
READY = b"ready"
_BATCH = 16
_MANY = 40
_PAUSE = 0.02
_WINDOW = 0.06


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
    memory, dimension = _open_filled(path)
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


def _open_filled(path: str) -> tuple[Memory, int]:
    memory, dimension = open_either(path)
    if memory.count(user_id="many") < _MANY:
        memory.add_many([NewItem(text=f"many {n}") for n in range(_MANY)], user_id="many")
    return memory, dimension


def child_that_switches(path: str, seed: int, acknowledge: Callable[[bytes], None]) -> None:
    """Changes the model once. Its first acknowledgement is that of the switch; from then on one thread writes
    while the old vectors go, with pauses between the steps, so that kills fall there."""
    memory, dimension = _open_filled(path)
    dimension = DIMENSIONS[1 - DIMENSIONS.index(dimension)]
    switch, clear = VectorBuild.switch, RocksEngine.clear

    def and_tell(build: VectorBuild, *arguments: Any) -> Any:
        lacking = switch(build, *arguments)
        if lacking is None:
            acknowledge(f"model {dimension} {seed} -".encode())
            threading.Thread(
                target=write, args=(memory, random.Random(seed), f"{seed}-0", acknowledge), daemon=True
            ).start()
        return lacking

    def slowly(engine: RocksEngine, family: str) -> None:
        time.sleep(_PAUSE)
        clear(engine, family)
        time.sleep(_PAUSE)

    VectorBuild.switch = and_tell  # type: ignore[method-assign]
    RocksEngine.clear = slowly  # type: ignore[method-assign]
    memory.reembed(HashingEmbedder(dimension), batch=_BATCH)
    signal.pause()


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


def run_reembed_kills(folder: Path, *, kills: int, seed: int, switching: bool = False) -> Counter[str]:
    """Kill `kills` children at random moments; switching: moments after a switch. Returns what was found:
    "resumed" jobs, those that had "switched", and "acknowledged" changes of the model."""
    found: Counter[str] = Counter()

    def check(path: str, acknowledged: Sequence[bytes]) -> None:
        models = [int(token.split()[1]) for token in acknowledged if token.startswith(b"model")]
        found["acknowledged"] += len(models)
        items = [token for token in acknowledged if not token.startswith((b"model", READY))]
        found["switched"] += _switched(path)
        memory, dimension = open_either(path)
        assert not switching or dimension == models[-1], "an acknowledged switch was lost"
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
        report = warpmem.verify(path)
        assert report.ok, report.faults

    run_kills(
        "durability.reembeds:child_that_switches" if switching else "durability.reembeds:child",
        check,
        folder,
        kills=kills,
        seed=seed,
        fresh_every=10,
        longest=_WINDOW if switching else 0.8,
        at_work=1.0 if switching else 0.67,
    )
    return found
