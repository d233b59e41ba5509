"""A Memory on disk behaves as a list of plain Python rows: random adds, keys, expiry, updates, deletes, time
travel, reopening, crashes, erasures.

Long lives are drawn from the number of a seed; short ones by Hypothesis, which tries few kinds of change
together and shrinks what fails. Both go by a number, so that the counts of several runs add up and nothing is
tried twice."""

from __future__ import annotations

import itertools
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

import warpmem
from memory_model import CHANGES, STEPS_OF_A_CHANGE, Model, run
from warpmem.index import partitions

SEEDS = 8  # 20,032 steps in all
EXAMPLES, RULES = 60, 40  # lives of one number, and rules of each, in what Hypothesis draws
ALIKE = 2  # its first lives, which are of the simplest draws for every number


class MemoryMachine(RuleBasedStateMachine):
    """The model's changes as rules, and its questions after each. Hypothesis leaves some rules out of each
    life, so there are two items at the beginning, and rules that need one."""

    folder: Path
    counts: Counter[str]
    lives: Iterator[int]

    @initialize(source=st.randoms(use_true_random=False, note_method_calls=True))
    def start(self, source: random.Random) -> None:
        self.counted = next(self.lives) >= ALIKE
        self.model = Model(Path(tempfile.mkdtemp(dir=self.folder)), source)
        self.add()
        self.add()

    def has_items(self) -> bool:
        return bool(self.model.current())

    def may_erase(self) -> bool:
        """An erasure takes as long as a hundred other changes."""
        return self.has_items() and self.model.texts % 2 == 0

    @rule()
    def add(self) -> None:
        self.change(self.model.add)

    @rule()
    def add_and_add(self) -> None:
        self.add()
        self.add()

    @precondition(has_items)
    @rule()
    def update(self) -> None:
        self.change(self.model.update)

    @precondition(has_items)
    @rule()
    def delete(self) -> None:
        self.change(self.model.delete)

    @precondition(has_items)
    @rule()
    def delete_all(self) -> None:
        self.change(self.model.delete_all)

    @precondition(has_items)
    @rule()
    def reopen(self) -> None:
        self.change(self.model.reopen)

    @precondition(has_items)
    @rule()
    def crash(self) -> None:
        self.change(self.model.crash)

    @precondition(may_erase)
    @rule()
    def erase(self) -> None:
        self.change(self.model.erase)

    @rule()
    def refused(self) -> None:
        self.change(self.model.refused)

    def change(self, change: Callable[[], None]) -> None:
        change()
        self.model.ask()
        if self.counted:
            self.counts.update({"changes": 1, "steps": STEPS_OF_A_CHANGE, change.__name__: 1})

    def teardown(self) -> None:
        if hasattr(self, "model"):
            self.model.memory.close()
            shutil.rmtree(self.model.folder)


def run_hypothesis(
    folder: Path, first: int, count: int, phases: Sequence[Phase] = (Phase.generate, Phase.shrink)
) -> Counter[str]:
    """At least `count` steps of lives that Hypothesis draws, from numbers that no other `first` of a run of
    `count` has; what is alike for all numbers is not counted."""
    numbers = itertools.count(first)
    machine: Any = type("Machine", (MemoryMachine,), {"counts": Counter(), "folder": folder})
    few = settings(
        max_examples=EXAMPLES, stateful_step_count=RULES, database=None, derandomize=False, deadline=None,
        suppress_health_check=list(HealthCheck), phases=phases,
    )  # fmt: skip
    while machine.counts["steps"] < count:
        machine.lives = itertools.count()
        run_state_machine_as_test(seed(next(numbers))(machine), settings=few)  # type: ignore[no-untyped-call]
    counts: Counter[str] = machine.counts
    return counts


@pytest.mark.parametrize("number", range(SEEDS))
def test_memory_equals_the_model(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "_SPARE_NAMES", 8)  # partitions are dropped and rebuilt all the time
    counts = run(tmp_path, number * CHANGES, CHANGES)
    assert counts["steps"] * SEEDS >= 20_000 and counts["crashes"] > 0


def test_memory_equals_the_model_in_what_hypothesis_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "_SPARE_NAMES", 8)
    counts = run_hypothesis(tmp_path, 0, 20_000)
    assert counts["steps"] >= 20_000
    assert min(counts[name] for name in ("add", "update", "delete", "erase", "reopen", "crash")) > 20


def test_hypothesis_finds_what_the_model_does_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that keeps the earlier metadata when an item is changed twice."""
    update = warpmem.Memory.update

    def forgets(memory: warpmem.Memory, item_id: str, **changes: Any) -> Any:
        item = memory.get(item_id)
        if item is not None and item.version > 1:
            changes["metadata"] = item.metadata
        return update(memory, item_id, **changes)

    monkeypatch.setattr(warpmem.Memory, "update", forgets)
    with pytest.raises(AssertionError):
        run_hypothesis(tmp_path, 0, 20_000, [Phase.generate])


def test_a_crash_that_takes_what_was_acknowledged_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.copytree

    def without_the_log(left: Path, right: Path) -> None:
        real(left, right)
        for file in right.glob("*.log"):
            file.write_bytes(b"")

    model = Model(tmp_path, random.Random(0))
    for _ in range(3):
        model.add()
    model.crash()
    model.listings_agree()
    model.add()
    monkeypatch.setattr(shutil, "copytree", without_the_log)
    model.crash()
    with pytest.raises(AssertionError):
        model.listings_agree()
    model.memory.close()
