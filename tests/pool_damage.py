"""Damage of every byte and every length of an index file, as functions for a process of its own: where a
just-in-time compiler has registered its frames, as in the tests' process, each C++ exception costs
milliseconds."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from warpmem._cpu import Pool, open_pool
from warpmem.errors import FormatError, IndexCorrupt


def add(pool: Any, list_id: int, row_ids: list[int], vectors: NDArray[np.float32]) -> None:
    ids = np.array(row_ids, np.int64)
    columns = np.ascontiguousarray((ids % 5).reshape(-1, 1))
    pool.apply([], np.full(len(ids), list_id), ids, ids.astype(np.uint32), columns, vectors)


def small(storage: str) -> Pool:
    pool = Pool(3, 1, storage=storage)
    add(pool, 2, [1, 2, 3], np.random.default_rng(5).standard_normal((3, 3), np.float32))
    return pool


def use(pool: Any, query: NDArray[np.float32], expected: list[bytes]) -> None:
    """Ask and change. Raises IndexCorrupt; answers that come must be right."""
    assert pool.scan(query, [(0, 2, 0, (), (), None)], 3)[0].tobytes() == expected[0]
    assert pool.rows(2)[0].tobytes() == expected[1]
    assert pool.vectors(2, np.array([1, 2, 3])).tobytes() == expected[2]
    add(pool, 2, [4], query)


def flip(folder: Path, storage: str) -> None:
    """Every byte, one after the other."""
    path = folder / "index"
    pool = small(storage)
    query = np.ones((1, 3), np.float32)
    expected = [
        pool.scan(query, [(0, 2, 0, (), (), None)], 3)[0].tobytes(),
        pool.rows(2)[0].tobytes(),
        pool.vectors(2, np.array([1, 2, 3])).tobytes(),
    ]
    pool.save(path, {"note": b"hi"})
    data = path.read_bytes()
    planes, end = struct.unpack_from("<QQ", data, 80)
    use(open_pool(path)[0], query, expected)
    with path.open("r+b", buffering=0) as file:
        for at in range(len(data)):
            os.pwrite(file.fileno(), bytes([data[at] ^ 1 << at % 8]), at)
            error, where = (FormatError, "not a warpmem index") if at < 8 else (IndexCorrupt, str(path))
            if planes <= at < end:
                opened, _ = open_pool(path)
                with pytest.raises(IndexCorrupt, match=r"page 0 \(.*backup"):
                    use(opened, query, expected)
                assert opened.stats()["rows"] == 3
                assert opened.lists().tolist() == [2]
            else:
                with pytest.raises(error, match=where):
                    open_pool(path)
            os.pwrite(file.fileno(), data[at : at + 1], at)
    use(open_pool(path)[0], query, expected)


def cut(folder: Path) -> None:
    """Every length but the whole one, and more than that."""
    path = folder / "index"
    small("int8").save(path, {"note": b"hi"})
    data = path.read_bytes()
    for length in range(len(data) - 1, -1, -1):
        os.truncate(path, length)
        with pytest.raises(IndexCorrupt, match=f"it has {length} bytes"):
            open_pool(path)
    for more in (b"\0", bytes(64), data):
        path.write_bytes(data + more)
        with pytest.raises(IndexCorrupt, match=f"{len(data + more)} bytes, but was written with {len(data)}"):
            open_pool(path)
