"""Stores and timing for the benchmarks. Vectors are random and given, so that embedding masks nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

import warpmem
from warpmem import NewItem, Scope

DIMENSION = 256
CHUNK = 5_000


def unit_rows(n: int, dimension: int = DIMENSION, seed: int = 20_260_601) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((n, dimension), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def fill(memory: warpmem.Memory, users: Sequence[str], rows: NDArray[np.float32]) -> None:
    """Add one item a row, row i to users[i], in large unsynced batches, and sync at the end."""
    for start in range(0, len(rows), CHUNK):
        batch = [
            NewItem(text=f"item {start + i}", kind="message", scope=Scope(user_id=user))
            for i, user in enumerate(users[start : start + CHUNK])
        ]
        memory.add_many(batch, vectors=rows[start : start + CHUNK], durability="os")
    memory.flush()


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def alternate(calls: Sequence[Callable[[int], object]], rounds: int, warm_up: int = 20) -> list[float]:
    """Median seconds of each call. They take turns, so that a slow moment of the machine hits all of them."""
    times: list[list[float]] = [[] for _ in calls]
    for i in range(rounds + warm_up):
        for call, measured in zip(calls, times, strict=True):
            started = time.perf_counter()
            call(i)
            elapsed = time.perf_counter() - started
            if i >= warm_up:
                measured.append(elapsed)
    return [statistics.median(measured) for measured in times]
