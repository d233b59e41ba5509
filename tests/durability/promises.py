"""What a store promises, each as something to run: a little of it in the tests, all of it by run.py.

A promise is run in slices; a slice begins where the last one ended, so every slice has seeds of its own and
the counts of several runs add up. A slice raises AssertionError when the promise was broken, and says what
came of its cases."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import warpmem
from durability import changes, faults, fullness, hostile, memories, power, shim, soak
from durability.harness import run_kills
from warpmem.errors import StoreCorrupt, WarpmemError

Slice = Callable[[Path, int, int], Counter[str]]


class Promise(NamedTuple):
    """`run(folder, first, count)` tries cases first, first + 1, ..., count of them; `ci` and `full` are how
    many the tests and a full run try, `size` how many a slice has, `unit` what a case is."""

    name: str
    unit: str
    ci: int
    full: int
    size: int
    run: Slice


# ---------------------------------------------------------------------------------------------- kills


def kill_engine(folder: Path, first: int, count: int) -> Counter[str]:
    """Kill -9 of writes, flushes and compactions of the engine."""
    found = run_kills("durability.changes:child", changes.check, folder, kills=count, seed=first)
    assert found > 5 * count, f"only {found} changes in {count} cycles: that shows nothing"
    return Counter({"kills": count, "acknowledged": found})


def kill_memory(folder: Path, first: int, count: int) -> Counter[str]:
    """Kill -9 of a Memory that is changed while its index checkpoint is written."""
    found = run_kills(
        "durability.memories:child", memories.check, folder, kills=count, seed=first, fresh_every=15
    )
    assert found > count, f"only {found} changes in {count} cycles: that shows nothing"
    return Counter({"kills": count, "acknowledged": found})


# --------------------------------------------------------------------------------------- power losses


def lose_power(folder: Path, first: int, count: int) -> Counter[str]:
    """Power losses: everything acknowledged is there, at once or after a repair."""
    outcomes: Counter[str] = Counter()
    rng = random.Random(first)

    def check(path: str, acknowledged: Sequence[bytes]) -> None:
        outcomes["lossy"] += power.lose_power(path, rng) > 0
        try:
            memories.check(path, acknowledged)
        except StoreCorrupt:
            repair(path)
            memories.check(path, acknowledged)
            outcomes["repaired"] += 1

    found = run_kills(
        "durability.power:child", check, folder, kills=count, seed=first, fresh_every=10, longest=0.25,
        environment=shim.environment(),
    )  # fmt: skip
    return outcomes + Counter({"losses": count, "acknowledged": found})


def lose_power_without_syncs(folder: Path, first: int, count: int) -> Counter[str]:
    """The control: with syncs off a power loss must lose what was acknowledged, or the test sees nothing."""
    outcomes: Counter[str] = Counter()
    rng = random.Random(first)

    def check(path: str, acknowledged: Sequence[bytes]) -> None:
        power.lose_power(path, rng, ("gone", "cut", "zero"))
        if len(acknowledged) < 5:
            outcomes["too short"] += 1
            return
        try:
            memories.check(path, acknowledged)
            outcomes["nothing lost"] += 1
        except (AssertionError, WarpmemError):
            outcomes["lost"] += 1

    run_kills(
        "durability.power:child_without_syncs", check, folder, kills=count, seed=first, fresh_every=1,
        longest=0.25, environment=shim.environment(),
    )  # fmt: skip
    seen = outcomes["lost"] + outcomes["nothing lost"]
    assert outcomes["lost"] >= 0.95 * seen, (
        f"without syncs only {outcomes['lost']} of {seen} losses lost data"
    )
    return outcomes


def repair(path: str) -> None:
    """Put a repaired copy in the place of a damaged store."""
    new = path + ".repaired"
    warpmem.repair(path, new)
    shutil.rmtree(path)
    os.rename(new, path)


# --------------------------------------------------------------------------------------- failed calls


def failing_call(kind: int) -> Slice:
    """The k-th call of a kind fails."""

    def run(folder: Path, first: int, count: int) -> Counter[str]:
        done, outcomes = faults.run(folder, kind, first + 1, count)
        if done < count:
            outcomes["beyond the last call"] += count - done
        return outcomes

    return run


def full_disk(folder: Path, first: int, count: int) -> Counter[str]:
    """A disk that is full at each step of 64 KiB."""
    return fullness.run(folder, iter(range(first, first + count)))


# ------------------------------------------------------------------------------------------- by time


def hostile_bytes(parser: str) -> Slice:
    """Fuzz one parser for `count` seconds."""

    def run(folder: Path, first: int, count: int) -> Counter[str]:
        tried, outcomes = hostile.run(parser, count, first, folder)
        return Counter({"inputs": tried, "outcomes": outcomes})

    return run


def steady_load(folder: Path, first: int, count: int) -> Counter[str]:
    """Soak for `count` seconds."""
    found = soak.run(folder, count)
    soak.judge(found)
    grown = round((found.rss_after - found.rss_before) / 2**20)
    return Counter({"operations": found.operations, "MiB more in the last third": max(0, grown)})


# ------------------------------------------------------------------------------------------------ all

PROMISES = (
    Promise("kill -9, engine", "kills", 120, 5_000, 250, kill_engine),
    Promise("kill -9, memory and checkpoint", "kills", 120, 5_000, 250, kill_memory),
    Promise("power loss", "losses", 200, 5_000, 250, lose_power),
    Promise("power loss, syncs off", "losses", 40, 500, 100, lose_power_without_syncs),
    *(
        Promise(faults.name(kind), "calls", 10, 1_000, 100, failing_call(kind))
        for kind in range(len(faults.KINDS))
    ),
    Promise("full disk", "steps", 20, 500, 25, full_disk),
    *(
        Promise(f"hostile bytes, {parser}", "seconds", 15, 1_800, 300, hostile_bytes(parser))
        for parser in hostile.PARSERS
    ),
    Promise("steady load", "seconds", 60, 1_800, 1_800, steady_load),
)  # fmt: skip
