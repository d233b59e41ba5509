"""Rows that come and go while an index is searched: by turns on one thread, which every package allows, and
for warpmem beside a thread that searches."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from approximate import built, loaded
from data import Data, nearest
from systems import F32, I64, Setting, System, package
from timing import seconds, undisturbed

TURNS, HUNDREDS = 1_000, 10
SLACK = 0.02
"""Recall after the changes may be so much less than what was tuned to before them."""


class Changed(Protocol):
    """An index that takes rows by number and gives them up."""

    def add(self, numbers: I64, rows: F32) -> None: ...
    def remove(self, number: int) -> None: ...


class _Ours:
    def __init__(self, system: Any) -> None:
        self._index = system.index

    def add(self, numbers: I64, rows: F32) -> None:
        self._index.add(rows, ids=numbers)

    def remove(self, number: int) -> None:
        self._index.remove(number)


class _Hnswlib:
    def __init__(self, system: Any) -> None:
        self._index = system.index

    def add(self, numbers: I64, rows: F32) -> None:
        self._index.add_items(rows, numbers, num_threads=1, replace_deleted=True)

    def remove(self, number: int) -> None:
        self._index.mark_deleted(number)


class _USearch:
    def __init__(self, system: Any) -> None:
        self._index = system.index

    def add(self, numbers: I64, rows: F32) -> None:
        if len(numbers) == 1:
            self._index.add(int(numbers[0]), rows[0], threads=1)
        else:
            self._index.add(numbers, rows, threads=1)

    def remove(self, number: int) -> None:
        self._index.remove(number)


class _Scann:
    def __init__(self, system: Any) -> None:
        self._index = system.index
        numbers = list(range(self._index.size()))  # it was built without names of its rows
        self._index.docids, self._index.docid_to_id = numbers, {number: number for number in numbers}

    def add(self, numbers: I64, rows: F32) -> None:
        self._index.upsert(numbers.tolist(), rows, batch_size=len(numbers))

    def remove(self, number: int) -> None:
        self._index.delete(number)


class _Faiss:
    def __init__(self, system: Any) -> None:
        self._index = system.index
        faiss = package("faiss")
        self._index.set_direct_map_type(faiss.DirectMap.Hashtable)

    def add(self, numbers: I64, rows: F32) -> None:
        self._index.add_with_ids(rows, numbers)

    def remove(self, number: int) -> None:
        self._index.remove_ids(np.array([number], np.int64))


CHANGED: dict[str, Callable[[Any], Changed]] = {
    "warpmem": _Ours,
    "hnswlib-16": _Hnswlib,
    "usearch-f16-16": _USearch,
    "usearch-i8-16": _USearch,
    "scann-2": _Scann,
    "faiss-flat": _Faiss,
}


def compare(
    data: Data, work: Path, settings: dict[str, Setting], report: Callable[[str], None]
) -> list[dict[str, Any]]:
    """settings: by key, those of recall 0.95 and one query a call."""
    out = []
    for key, make in CHANGED.items():
        if key in settings and built(work, key) is not None:
            system = loaded(work, key, data)
            system.choose(settings[key])
            line = {"key": key, "system": system.name, **_turns(data, system, make(system))}
            if key == "warpmem":
                line |= _beside(data, system, make(system))
            out.append(line)
            report(f"changes {line}")
    return out


def _new_rows(data: Data, n: int) -> F32:
    """Rows like those that are there: each the middle of one and another, of unit length."""
    rng = np.random.default_rng(3)
    first, second = rng.integers(0, len(data.rows), (2, n))
    rows = 0.8 * data.rows[first] + 0.2 * data.rows[second]
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def _turns(data: Data, system: System, index: Changed) -> dict[str, Any]:
    """One row comes, one goes, one query is answered, a thousand times; then rows by the hundred."""
    n = len(data.rows)
    coming = _new_rows(data, TURNS + 100 * HUNDREDS)
    numbers = n + np.arange(len(coming))
    going = np.random.default_rng(4).choice(n, TURNS, replace=False)
    times: dict[str, list[float]] = {"add": [], "remove": [], "search": [], "hundred": []}
    with undisturbed():
        for i in range(TURNS):
            query = data.queries[i % len(data.queries)][None]
            one = slice(i, i + 1)
            times["add"].append(seconds(lambda one=one: index.add(numbers[one], coming[one])))
            times["remove"].append(seconds(lambda i=i: index.remove(int(going[i]))))
            times["search"].append(seconds(lambda query=query: system.search(query)))
        for i in range(HUNDREDS):
            some = slice(TURNS + 100 * i, TURNS + 100 * (i + 1))
            times["hundred"].append(seconds(lambda some=some: index.add(numbers[some], coming[some])))
    everyone = np.concatenate([data.rows, coming])
    there = np.ones(len(everyone), bool)
    there[going] = False
    asked = data.queries[data.measured]
    found = np.concatenate([system.search(asked[i : i + 1]) for i in range(len(asked))])
    assert there[found[found >= 0]].all(), "a removed row is found"
    recall = float(data.recall(found, data.measured, nearest(everyone, asked, there)).mean())
    itself = np.concatenate([system.search(coming[i : i + 1]) for i in range(200)])
    return {
        "adds_a_second": 1 / statistics.mean(times["add"]),
        "adds_a_second_by_hundred": 100 / statistics.mean(times["hundred"]),
        "removes_a_second": 1 / statistics.mean(times["remove"]),
        "searches_a_second": 1 / statistics.median(times["search"]),
        "recall_after": recall,
        "new_rows_found": float((itself == numbers[:200, None]).any(axis=1).mean()),
    }


def _beside(data: Data, system: System, index: Changed) -> dict[str, Any]:
    """Searches alone, and beside a thread that adds and removes a row by turns."""
    coming = _new_rows(data, 4_000)
    numbers = 2 * len(data.rows) + np.arange(len(coming))
    over = threading.Event()
    spent: list[float] = []

    def search(n: int) -> list[float]:
        with undisturbed():
            return [
                seconds(lambda i=i: system.search(data.queries[i % len(data.queries)][None]))
                for i in range(n)
            ]

    def write() -> None:
        with undisturbed():
            for i in range(len(coming)):
                if over.is_set():
                    return
                began = time.perf_counter()
                index.add(numbers[i : i + 1], coming[i : i + 1])
                index.remove(int(numbers[i]))
                spent.append(time.perf_counter() - began)

    search(500)
    alone = search(2_000)
    writer = threading.Thread(target=write)
    writer.start()
    beside = search(2_000)
    over.set()
    writer.join()
    return {
        "beside_pairs_a_second": 1 / statistics.mean(spent),
        "search_us_p50_p99_alone": [float(x) * 1e6 for x in np.percentile(alone, (50, 99))],
        "search_us_p50_p99_beside": [float(x) * 1e6 for x in np.percentile(beside, (50, 99))],
    }


def check(lines: Iterable[dict[str, Any]]) -> None:
    """What changed is searched as well as before, within what the packages say of themselves."""
    for line in lines:
        if line["key"] == "warpmem":
            assert line["recall_after"] >= 0.95 - SLACK, line
            assert line["new_rows_found"] >= 0.99, line
