"""Index files: saving against a plain write of the same bytes, opening to the first answer, faiss-cpu beside.

WARPMEM_BENCH_DATA as in bench_scan.py; without it rows are made. Files lie in pytest's temporary folder: give
--basetemp a folder on the disk that is meant. Answers of the opened pool must be those of before (gated).
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_scan import DIMENSION, Data, K, faiss, filled
from numpy.typing import NDArray
from stores import seconds

from warpmem._cpu import IdMap, open_pool

ROUNDS = 7
WRITE_BYTES = 256 << 10  # what Pool.save gives to one system call
Report = Callable[[str], None]


@pytest.fixture(scope="module")
def data() -> Data:
    return Data()


def forget(path: Path) -> None:
    """Ask the system to drop the file from memory."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def write_plainly(path: Path, content: NDArray[np.uint8]) -> None:
    """The floor of saving: a new file, as many bytes, synced."""
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    view = memoryview(content)
    written = 0
    while written < len(view):
        written += os.write(fd, view[written : written + WRITE_BYTES])
    os.fsync(fd)
    os.close(fd)


def first(pool: Any, data: Data, list_id: int) -> Any:
    return pool.scan(data.queries[:1], [(0, list_id, 0, (), (), None)], K)


def timed_open(path: Path, data: Data, list_id: int) -> tuple[float, float]:
    """Seconds to open, and to open and answer."""
    kept: list[Any] = []
    opening = seconds(lambda: kept.append(open_pool(path)))
    return opening, opening + seconds(lambda: first(kept[0][0], data, list_id))


def timed_add(path: Path, data: Data, list_id: int) -> float:
    """Seconds of the first change after opening: it builds the list's row map and copies its last page."""
    pool, _ = open_pool(path)
    one = np.array([list_id])
    change = ([], one, np.array([1 << 40]), one.astype(np.uint32), data.columns[:1], data.rows[:1])
    return seconds(lambda: pool.apply(*change))


@pytest.mark.parametrize("owners", [False, True], ids=["one list", "lists of owners"])
def test_save_and_open(data: Data, report: Report, tmp_path: Path, owners: bool) -> None:
    n = len(data.rows)
    pool = filled(data, n, data.owners if owners else None)
    list_id = int(data.query_owners[0]) if owners else 0
    expected = first(pool, data, list_id)
    path, plain = tmp_path / "index", tmp_path / "plain"
    pool.save(path)
    contents = [np.fromfile(path, np.uint8)]
    size = len(contents[0])
    times: dict[str, list[float]] = {"plain": [], "save": []}
    for i in range(ROUNDS):
        calls: list[tuple[str, Callable[[], object]]] = [
            ("plain", lambda: write_plainly(plain, contents[0])),
            ("save", lambda: (path.unlink(), pool.save(path))),
        ]
        for name, call in calls if i % 2 else calls[::-1]:
            times[name].append(seconds(call))
    ratio = statistics.median(s / p for s, p in zip(times["save"], times["plain"], strict=True))
    report(
        f"{n:,} rows, {size / 1e6:,.0f} MB, {pool.stats()['lists']:,} lists: "
        + ", ".join(f"{name} {statistics.median(t):.2f} s" for name, t in times.items())
        + f", median ratio {ratio:.2f}"
    )
    contents.clear()
    for cold in (False, True):
        opened: list[tuple[float, float]] = []
        for _ in range(5):
            if cold:
                forget(path)
            opened.append(timed_open(path, data, list_id))
        opening, answered = (statistics.median(t) * 1e3 for t in zip(*opened, strict=True))
        added = statistics.median(timed_add(path, data, list_id) for _ in range(5)) * 1e3
        what = "cold" if cold else "warm"
        report(f"  {what}: open {opening:.1f} ms, first answer {answered:.1f} ms; first add {added:.1f} ms")
    found = first(open_pool(path)[0], data, list_id)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(found, expected, strict=True))


@pytest.mark.skipif(faiss is None, reason="faiss-cpu is not installed")
def test_against_faiss(data: Data, report: Report, tmp_path: Path) -> None:
    """Save and open to the first answer, a flat index of the same float32 rows, in turns."""
    assert faiss is not None
    n = len(data.rows)
    pool = filled(data, n)
    flat = faiss.IndexFlatIP(DIMENSION)
    flat.add(data.rows)
    ours, theirs = tmp_path / "index", tmp_path / "faiss"

    def write_synced() -> None:
        faiss.write_index(flat, str(theirs))
        fd = os.open(theirs, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

    calls: dict[str, Callable[[], object]] = {
        "save": lambda: pool.save(ours),
        "faiss write_index and fsync": write_synced,
        "open": lambda: first(open_pool(ours)[0], data, 0),
        "faiss read_index": lambda: faiss.read_index(str(theirs)).search(data.queries[:1], K),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    turns = list(calls.items())
    for i in range(6):  # each first in half of the rounds: what one leaves the disk to do costs the next
        for at in (0, 1, 2, 3) if i % 2 else (1, 0, 3, 2):
            times[turns[at][0]].append(seconds(turns[at][1]))
    for ours_name, peer in (("save", "faiss write_index and fsync"), ("open", "faiss read_index")):
        a, b = times[ours_name], times[peer]
        ratio = statistics.median(y / x for x, y in zip(a, b, strict=True))
        report(
            f"{n:,} rows: {ours_name} {statistics.median(a):.3f} s, {peer} {statistics.median(b):.3f} s "
            f"({ours.stat().st_size / 1e6:,.0f} and {theirs.stat().st_size / 1e6:,.0f} MB), ratio {ratio:.2f}"
        )


def test_id_map(report: Report) -> None:
    n = 1_000_000
    keys = np.random.default_rng(0).permutation(n)
    ids = IdMap()
    put = seconds(lambda: ids.put(keys, keys))
    get = seconds(lambda: ids.get(keys, -1))
    one = np.array([5])
    singles: dict[str, Callable[[], object]] = {
        "get of an int": lambda: ids.get(5, -1),
        "get of an array of one": lambda: ids.get(one, -1),
        "put of an int": lambda: ids.put(5, 5),
    }
    shown = []
    for name, call in singles.items():
        each = seconds(lambda call=call: [call() for _ in range(20_000)]) / 20_000  # type: ignore[misc]
        shown.append(f"{name} {each * 1e6:.2f} us")
    report(f"IdMap of {n:,}: put {put * 1e3:.0f} ms, get {get * 1e3:.0f} ms; " + ", ".join(shown))
    assert len(ids) == n
