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
from durability import (
    changes,
    consolidations,
    damage,
    exports,
    extractions,
    faults,
    fullness,
    hostile,
    index_files,
    isolation,
    memories,
    migrations,
    power,
    queues,
    reembeds,
    shim,
    soak,
)
from durability.harness import run_kills
from warpmem.errors import StoreCorrupt, WarpmemError

Slice = Callable[[Path, int, int], Counter[str]]


class Promise(NamedTuple):
    """`run(folder, first, count)` tries cases first, first + 1, ..., count of them; `ci` and `full` are how
    many the tests (0: a test of its own does) and a full run try, `size` how many a slice has, `unit` what a
    case is."""

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


def kill_backup(folder: Path, first: int, count: int) -> Counter[str]:
    """Kill -9 of a process that makes backups: none is half there, the store lacks nothing."""
    from durability.test_backup import kill_backups

    return Counter({"kills": count, "acknowledged": kill_backups(folder, count, first)})


def kill_reembedding(folder: Path, first: int, count: int) -> Counter[str]:
    """Kill -9 of a store whose model is changed while it is written."""
    return Counter({"kills": count}) + reembeds.run_reembed_kills(folder, kills=count, seed=first)


def kill_switch(folder: Path, first: int, count: int) -> Counter[str]:
    """Kill -9 of a store between the switch to another model and the end of the old vectors."""
    found = reembeds.run_reembed_kills(folder, kills=count, seed=first, switching=True)
    return Counter({"kills": count}) + found


def kill_consolidation(folder: Path, first: int, count: int) -> Counter[str]:
    """Kill -9 of a store that consolidates: it goes on to what an undisturbed run leaves."""
    return Counter({"kills": count}) + consolidations.run_consolidation_kills(folder, kills=count, seed=first)


def kill_queue(folder: Path, first: int, count: int) -> Counter[str]:
    """Kill -9 of a store that embeds later: no work is lost, and none is done twice."""
    return Counter({"kills": count}) + queues.run_queue_kills(folder, kills=count, seed=first)


def kill_extraction(folder: Path, first: int, count: int) -> Counter[str]:
    """Kill -9 of a store whose messages a language model reads: none is forgotten, none is read twice."""
    found = queues.counted_kills(
        "durability.extractions:child", extractions.check, folder, kills=count, seed=first
    )
    assert found["waiting"] and found["read"], "no kill fell between a message and its memories"
    return Counter({"kills": count}) + found


def kill_migration(folder: Path, first: int, count: int) -> Counter[str]:
    """Kill -9 of an older store that is brought up to date."""
    return Counter({"kills": count}) + migrations.run_migration_kills(folder, kills=count, seed=first)


def kill_erasure(folder: Path, first: int, count: int) -> Counter[str]:
    """Kill -9 of a store that erases: what was acknowledged as erased is nowhere."""
    from durability.test_kill9_erasure import kills

    return Counter({"kills": count, "acknowledged": kills(folder, count, first)})


def kill_import(folder: Path, first: int, count: int) -> Counter[str]:
    """Kill -9 of an import: run again it adds nothing twice."""
    from memory.test_portable import kill_imports

    return Counter({"kills": count, "acknowledged": kill_imports(folder, count, first)})


def kill_followed_writer(folder: Path, first: int, count: int) -> Counter[str]:
    """Kill -9 of a writer whom three processes follow."""
    from durability.test_follow import run_followers

    found = run_followers(folder / f"{first}", kills=count, seconds=0.5, followers=3)
    return Counter({"kills": count}) + found


# --------------------------------------------------------------------------------------------- damage


def damaged_store(file: str, kind: str) -> Slice:
    """One kind of damage to one kind of file: refused, repaired or harmless, never silent."""

    def run(folder: Path, first: int, count: int) -> Counter[str]:
        template = folder / "template"
        (damage.make_live_store if file == "wal" else damage.make_store)(template, first)
        return damage.run_many(template, folder, file, kind, count, first)

    return run


def damaged_export(kind: str) -> Slice:
    """One kind of damage to an export."""
    return lambda folder, first, count: exports.run_many(kind, count, first)


def damaged_index_file(kind: str) -> Slice:
    """One kind of damage to the file of a VectorIndex."""
    return lambda folder, first, count: index_files.run_many(kind, count, first)


def isolation_of_owners(folder: Path, first: int, count: int) -> Counter[str]:
    """A hundred owners side by side: nobody reads what is another's."""
    return Counter({"operations": sum(isolation.run(folder, first, count).values())})


def as_the_model(folder: Path, first: int, count: int) -> Counter[str]:
    """Changes, crashes among them, and questions, compared with a plain Python model; both are steps."""
    import memory_model as model

    counts = model.run(folder, first // model.STEPS_OF_A_CHANGE, count // model.STEPS_OF_A_CHANGE)
    assert counts["steps"] == count
    return counts


def as_the_model_by_hypothesis(folder: Path, first: int, count: int) -> Counter[str]:
    """The same changes and questions, in many short lives that Hypothesis draws."""
    from property.test_memory_model import run_hypothesis

    return run_hypothesis(folder, first, count)


# --------------------------------------------------------------------------------------- power losses


def lose_power(child: str, check: Callable[[str, Sequence[bytes]], object]) -> Slice:
    """Power losses: everything acknowledged is there, at once or after a repair."""

    def run(folder: Path, first: int, count: int) -> Counter[str]:
        outcomes: Counter[str] = Counter()
        rng = random.Random(first)

        def look(path: str, acknowledged: Sequence[bytes]) -> None:
            outcomes["lossy"] += power.lose_power(path, rng) > 0
            try:
                check(path, acknowledged)
            except StoreCorrupt:
                repair(path)
                check(path, acknowledged)
                outcomes["repaired"] += 1

        found = run_kills(
            f"durability.power:{child}", look, folder, kills=count, seed=first, fresh_every=10, longest=0.25,
            environment=shim.environment(),
        )  # fmt: skip
        return outcomes + Counter({"losses": count, "acknowledged": found})

    return run


ENOUGH = 20
"""Acknowledged changes: of a cut that is as likely anywhere in them, one in twenty leaves all."""


def lose_power_without_syncs(folder: Path, first: int, count: int) -> Counter[str]:
    """The control: with syncs off a power loss must lose what was acknowledged, or the test sees nothing. A
    cut anywhere in what was never synced may leave all of a few changes, so who made few is not seen."""
    outcomes: Counter[str] = Counter()
    rng = random.Random(first)

    def check(path: str, acknowledged: Sequence[bytes]) -> None:
        power.lose_power(path, rng, ("gone", "cut", "zero"))
        if len(acknowledged) < ENOUGH:
            outcomes["too short"] += 1
            return
        try:
            memories.check(path, acknowledged)
            outcomes["nothing lost"] += 1
        except (AssertionError, WarpmemError):
            outcomes["lost"] += 1

    run_kills(
        "durability.power:child_without_syncs", check, folder, kills=count, seed=first, fresh_every=1,
        longest=0.5, environment=shim.environment(),
    )  # fmt: skip
    seen = outcomes["lost"] + outcomes["nothing lost"]
    assert seen, "none made enough changes to be seen"
    assert outcomes["lost"] >= 0.95 * seen, f"without syncs only {outcomes['lost']} of {seen} lost data"
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
    Promise("kill -9, engine", "kills", 120, 3_000, 250, kill_engine),
    Promise("kill -9, memory and checkpoint", "kills", 120, 3_000, 250, kill_memory),
    Promise("kill -9, backup", "kills", 0, 1_000, 50, kill_backup),
    Promise("kill -9, re-embedding", "kills", 0, 1_000, 50, kill_reembedding),
    Promise("kill -9, switch of models", "kills", 0, 500, 50, kill_switch),
    Promise("kill -9, consolidation", "kills", 8, 500, 50, kill_consolidation),
    Promise("kill -9, queue", "kills", 0, 1_000, 50, kill_queue),
    Promise("kill -9, extraction", "kills", 7, 1_000, 50, kill_extraction),
    Promise("kill -9, erasure", "kills", 0, 1_000, 50, kill_erasure),
    Promise("kill -9, migration", "kills", 0, 500, 50, kill_migration),
    Promise("kill -9, import", "kills", 0, 500, 50, kill_import),
    Promise("kill -9, followed writer", "kills", 0, 200, 20, kill_followed_writer),
    *(
        Promise(f"damage, {file}, {kind}", "cases", 0, 1_000, 50, damaged_store(file, kind))
        for file, kind in damage.CASES
    ),
    *(
        Promise(f"damage, export, {kind}", "cases", 0, 1_000, 100, damaged_export(kind))
        for kind in exports.KINDS
    ),
    *(
        Promise(f"damage, index file, {kind}", "cases", 0, 1_000, 100, damaged_index_file(kind))
        for kind in index_files.KINDS
    ),
    Promise("isolation", "operations", 0, 100_000, 10_000, isolation_of_owners),
    Promise("as the model", "steps", 0, 1_000_000, 20_000, as_the_model),
    Promise("Hypothesis as the model", "steps", 0, 1_000_000, 20_000, as_the_model_by_hypothesis),
    Promise("power loss", "losses", 200, 5_000, 250, lose_power("child", memories.check)),
    Promise("power loss, queue", "losses", 20, 1_000, 50, lose_power("child_that_queues", queues.check)),
    Promise(
        "power loss, extraction", "losses", 7, 1_000, 50,
        lose_power("child_that_extracts", extractions.check),
    ),
    Promise("power loss, syncs off", "losses", 40, 500, 100, lose_power_without_syncs),
    *(
        Promise(faults.name(kind), "calls", 50, 1_000, 100, failing_call(kind))
        for kind in range(len(faults.KINDS))
    ),
    Promise("full disk", "steps", 20, 500, 25, full_disk),
    *(
        Promise(f"hostile bytes, {parser}", "seconds", 15, 1_800, 300, hostile_bytes(parser))
        for parser in hostile.PARSERS
    ),
    Promise("steady load", "seconds", 60, 1_800, 1_800, steady_load),
)  # fmt: skip
