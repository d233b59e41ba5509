"""How a VectorIndex scales: time a query against rows of an owner, number of owners, batch and threads; and
the cost of a change against the size of the index. 384 dimensions, k = 10.

WARPMEM_BENCH_DATA names the data as for bench_scan.py. WARPMEM_BENCH_OUT names a folder for scaling.json and,
with matplotlib installed, scaling.png. What must be flat is gated, with room for a busy machine.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from stores import seconds, unit_rows

from warpmem.index import VectorIndex

DIMENSION, K = 384, 10
FLAT = 2.0
Report = Callable[[str], None]
F32 = NDArray[np.float32]


@pytest.fixture(scope="module")
def rows() -> F32:
    folder = os.environ.get("WARPMEM_BENCH_DATA")
    return unit_rows(100_000, DIMENSION) if folder is None else np.load(Path(folder) / "rows.npy")


@pytest.fixture(scope="module")
def queries() -> F32:
    return unit_rows(512, DIMENSION, seed=5)


@pytest.fixture(scope="module")
def curves() -> Iterator[dict[str, dict[int, float]]]:
    """What was measured, written when all is done."""
    found: dict[str, dict[int, float]] = {}
    yield found
    out = os.environ.get("WARPMEM_BENCH_OUT")
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        (Path(out) / "scaling.json").write_text(json.dumps(found, indent=1) + "\n")
        if importlib.util.find_spec("matplotlib") is not None:
            _plot(found, Path(out) / "scaling.png")


def _median(call: Callable[[int], object], rounds: int) -> float:
    call(0)
    return statistics.median(seconds(lambda i=i: call(i)) for i in range(rounds))


def _sizes(limit: int) -> list[int]:
    return [n for n in (100, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000) if n <= limit]


def _say(report: Report, what: str, curve: dict[int, float], unit: str = "us") -> None:
    report(f"{what}: " + ", ".join(f"{x:,}: {y * 1e6:,.1f} {unit}" for x, y in curve.items()))


def test_rows_of_an_owner(rows: F32, queries: F32, report: Report, curves: dict[str, Any]) -> None:
    curve: dict[int, float] = {}
    index = VectorIndex(DIMENSION, threads=1)
    for n in _sizes(len(rows)):
        index.add(rows[len(index) : n])
        curve[n] = _median(lambda i: index.search(queries[i % 512], K), 15 if n >= 100_000 else 60)
    _say(report, "one query by rows of its owner", curve)
    curves["rows of the owner"] = curve
    assert curve[max(curve)] < curve[1_000] * max(curve) / 1_000, "growth above linear"


def test_number_of_owners(rows: F32, queries: F32, report: Report, curves: dict[str, Any]) -> None:
    """Each owner has 100 rows; a query reads those of one."""
    curve: dict[int, float] = {}
    index = VectorIndex(DIMENSION, threads=1)
    for n in [n for n in (1, 10, 100, 1_000, 10_000) if n * 100 <= len(rows)]:
        start = len(index)
        index.add(rows[start : n * 100], owners=np.arange(start, n * 100) // 100)
        rng = np.random.default_rng(n)
        owners = rng.integers(0, n, 512)
        curve[n] = _median(lambda i, o=owners: index.search(queries[i % 512], K, owners=int(o[i % 512])), 300)
    _say(report, "one query by number of owners", curve)
    curves["number of owners"] = curve
    assert max(curve.values()) < FLAT * curve[100]


def test_batches(rows: F32, queries: F32, report: Report, curves: dict[str, Any]) -> None:
    index = VectorIndex(DIMENSION, threads=1)
    index.add(rows[:100_000])
    curve = {
        n: _median(lambda i, n=n: index.search(queries[:n], K), max(3, 40 // n)) / n
        for n in (1, 2, 4, 8, 16, 32, 64, 128, 256)
    }
    _say(report, "a query by batch, 100,000 rows", curve)
    curves["queries a call"] = curve
    assert curve[64] < curve[1]


def test_threads(rows: F32, queries: F32, report: Report, curves: dict[str, Any]) -> None:
    curve: dict[int, float] = {}
    for threads in [n for n in (1, 2, 4, 8, 16) if n <= len(os.sched_getaffinity(0))]:
        index = VectorIndex(DIMENSION, threads=threads)
        index.add(rows[:100_000])
        curve[threads] = _median(lambda i, x=index: x.search(queries[:64], K), 5) / 64
    _say(report, "a query by threads, 64 a call, 100,000 rows", curve)
    curves["threads"] = curve


def test_changes(rows: F32, report: Report, curves: dict[str, Any]) -> None:
    """Single adds and removals, alternating, in a growing index."""
    adds: dict[int, float] = {}
    removals: dict[int, float] = {}
    index = VectorIndex(DIMENSION, threads=1)
    for n in _sizes(len(rows)):
        index.add(rows[len(index) : n])
        added, removed = [], []
        for i in range(300):
            vector = rows[i : i + 1]
            added.append(seconds(lambda v=vector, i=i: index.add(v, ids=10**9 + i)))
            removed.append(seconds(lambda i=i: index.remove(10**9 + i)))
        adds[n], removals[n] = statistics.median(added), statistics.median(removed)
    _say(report, "an add by rows of the index", adds)
    _say(report, "a removal", removals)
    curves["add"], curves["remove"] = adds, removals
    assert adds[max(adds)] < FLAT * adds[1_000]
    assert removals[max(removals)] < FLAT * removals[1_000]


def _plot(curves: dict[str, dict[int, float]], path: Path) -> None:
    from matplotlib import pyplot  # type: ignore[import-not-found]

    panels = [["rows of the owner"], ["number of owners"], ["queries a call"], ["threads"], ["add", "remove"]]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4 * len(panels), 3.4), layout="constrained")
    for axis, names in zip(axes, panels, strict=True):
        for name in names:
            curve = curves.get(name, {})
            axis.plot(list(curve), [seconds * 1e6 for seconds in curve.values()], "o-", label=name)
        axis.set_xscale("log", base=2 if names[0] in ("queries a call", "threads") else 10)
        axis.set_yscale("log" if names[0] == "rows of the owner" else "linear")
        if axis.get_yscale() == "linear":
            axis.set_ylim(bottom=0)
        axis.set_xlabel("rows of the index" if "add" in names else names[0])
        axis.set_ylabel("microseconds a " + ("change" if "add" in names else "query"))
        axis.grid(alpha=0.3)
        if len(names) > 1:
            axis.legend()
    figure.savefig(path, dpi=110)
