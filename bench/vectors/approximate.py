"""Approximate search at equal recall, each system in turn beside warpmem."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from data import Data
from systems import I64, Setting, System, systems
from timing import ratio, rounds
from tuning import one_by_one, tune

TARGETS = (0.95, 0.99)
ROUNDS = {1: 9, 1000: 5}
SLACK = 0.03
"""Recall on the measured queries may be so much less than on those of the tuning: with 250 of each, three
standard errors of the difference."""

KEPT = {"warpmem": "warpmem95"}  # the same index, searched at settings of our choice
Choices = dict[str, dict[int, Setting | None]]


def folder_of(work: Path, key: str) -> Path:
    return work / KEPT.get(key, key)


def built(work: Path, key: str) -> dict[str, Any] | None:
    path = folder_of(work, key) / "built.json"
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return found


def loaded(work: Path, key: str, data: Data) -> System:
    system = systems()[key]
    system.load(folder_of(work, key), data.rows)
    return system


def choices(system: System, data: Data) -> Choices:
    """By target, in words, and by batch."""
    asked = data.queries[data.tuned]

    def mean(found: I64) -> float:
        return float(data.recall(found, data.tuned).mean())

    return {
        str(wanted): tune(system, system.search, asked, mean, wanted, len(data.rows), list(ROUNDS))
        for wanted in TARGETS
    }


def _itself(system: System, data: Data) -> Choices:
    """A system that has one setting is compared at the target that it was built for."""
    (ladder,) = system.ladders(len(data.rows))
    target = system.name.split(",")[0].split()[1]
    return {target: dict.fromkeys(ROUNDS, ladder[0])}


def compare(data: Data, work: Path, report: Callable[[str], None]) -> list[dict[str, Any]]:
    ours = loaded(work, "warpmem", data)
    chosen = choices(ours, data)
    out: list[dict[str, Any]] = []
    for key in systems():
        if built(work, key) is None and systems()[key].family != "warpmem":
            continue
        system = ours if key == "warpmem" else loaded(work, key, data)
        own = "by itself" in system.name
        mine = chosen if key == "warpmem" else _itself(system, data) if own else choices(system, data)
        for target, by_batch in mine.items():
            for batch, setting in by_batch.items():
                line = _line(data, ours, chosen[target][batch], system, setting, batch)
                head = {"key": key, "system": system.name, "target": float(target), "batch": batch}
                out.append({**head, **line})
                report(f"{system.name:34} {target} by {batch:4}: {line}")
    return out


def _line(
    data: Data, ours: System, our_setting: Setting | None, system: System, setting: Setting | None, batch: int
) -> dict[str, Any]:
    """One system at one target: nothing but None where no setting reaches it."""
    if setting is None or our_setting is None:
        return {"setting": None}
    asked = data.queries[data.measured] if batch == 1 else data.queries

    def call(which: System, at: Setting) -> Callable[[], I64]:
        def run() -> I64:
            which.choose(at)
            return one_by_one(which.search, asked) if batch == 1 else which.search(asked)

        return run

    calls = {"ours": call(ours, our_setting), "theirs": call(system, setting)}
    system.choose(setting)
    every = one_by_one(system.search, data.queries) if batch == 1 else system.search(data.queries)
    times = rounds(calls, ROUNDS[batch])
    return {
        "setting": dict(zip(system.knobs, setting, strict=True)),
        **data.summary(every),
        "queries_a_second": len(asked) / statistics.median(times["theirs"]),
        "warpmem_queries_a_second": len(asked) / statistics.median(times["ours"]),
        "warpmem_over_it": ratio(times["theirs"], times["ours"]),
    }


def check(lines: Iterable[dict[str, Any]]) -> None:
    """All that was tuned to a recall has it on the queries that were not tuned on."""
    for line in lines:
        if line["setting"] is not None:
            assert line["recall"] >= line["target"] - SLACK, line


def summaries(work: Path) -> dict[str, Any]:
    """What building took, by system."""
    return {key: made for key in systems() if (made := built(work, key)) is not None}
