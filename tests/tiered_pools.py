"""Rows in a tiered pool on the emulator and in a native one, to be compared."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emulated_cuda import emulated
from warpmem.errors import Overloaded
from warpmem.index.cpu import CpuBackend
from warpmem.index.cuda_backend import CudaBackend
from warpmem.index.tiered import TieredPool

DIM = 48
PAGE = 24_576  # bytes of a page on the device, at most: 64 float32 rows of 64, codes, two columns


def rows(n: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)


@contextmanager
def healthy_device() -> Iterator[None]:
    """Around a test: a device without faults, no pools that wait to be collected; and nobody called the
    device with the interpreter's lock, or without having entered it."""
    gc.collect()
    emulated().heal()
    before = emulated().locked_calls(), emulated().strangers()
    yield
    emulated().heal()
    gc.collect()
    assert (emulated().locked_calls(), emulated().strangers()) == before


def busy_after(granted: int, turn: Callable[..., Any]) -> Callable[..., Any]:
    """Turns of a scheduler that has too much to do for more than so many."""
    left = granted

    def refuse(lane: str, **options: Any) -> Any:
        nonlocal left
        if left == 0:
            raise Overloaded("much", 1.0)
        left -= 1
        return turn(lane, **options)

    return refuse


class Pair:
    """The same rows in a tiered pool and in a native one."""

    def __init__(self, vram_bytes: int = 1 << 26, **options: Any) -> None:
        given = {"pinned_bytes": 0, "rebuild_ms": 0, **options}
        backend = CudaBackend(module=emulated().module, vram_bytes=vram_bytes, least_work=0, **given)
        pool = backend.pool(DIM, 2)
        assert isinstance(pool, TieredPool)
        self.tiered = pool
        self.native: Any = CpuBackend().pool(DIM, 2)
        self.next_id = 0

    def add(self, list_id: int, vectors: NDArray[np.float32]) -> NDArray[np.int64]:
        n = len(vectors)
        ids = np.arange(self.next_id, self.next_id + n)
        self.next_id += n
        columns = np.stack([ids % 10, ids], axis=1)
        for pool in (self.tiered, self.native):
            pool.apply([], np.full(n, list_id), ids, ids.astype(np.uint32), columns, vectors)
        return ids

    def remove(self, list_id: int, ids: NDArray[np.int64]) -> None:
        none = np.zeros(0, np.int64)
        for pool in (self.tiered, self.native):
            pool.apply(
                [(list_id, int(i)) for i in ids],
                none, none, none.astype(np.uint32), np.zeros((0, 2), np.int64), rows(0, 0),
            )  # fmt: skip

    def drop(self, *lists: int) -> None:
        for pool in (self.tiered, self.native):
            pool.drop(lists)

    def check(self, lists: list[int], k: int = 7, seed: int = 0, **options: Any) -> dict[str, Any]:
        """Equal bits; returns the plan."""
        queries = rows(3, 1000 + seed)
        segments: Any = [(q, i, i % 2, [], [], None) for q in range(3) for i in lists]
        found = self.tiered.scan(queries, segments, k, explain=True, **options)
        wanted = self.native.scan(queries, segments, k, **options)
        assert [part.tobytes() for part in found[:5]] == [part.tobytes() for part in wanted]
        plan: dict[str, Any] = found[5]
        return plan
