"""A little of every promise; `python -m tests.durability.run --full` tries them in full."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from durability import fullness, queues, run, shim
from durability.harness import run_kills
from durability.promises import PROMISES, Promise


@pytest.mark.slow
@pytest.mark.parametrize(
    "promise",
    [promise for promise in PROMISES if promise.ci],
    ids=lambda promise: promise.name.replace(" ", "-"),
)
def test_promise(tmp_path: Path, promise: Promise) -> None:
    try:
        outcomes = promise.run(tmp_path, 0, promise.ci)
    except (shim.Unavailable, fullness.Unavailable) as reason:
        pytest.skip(str(reason))
    print(promise.name, dict(outcomes))
    assert outcomes


def test_results_add_up(tmp_path: Path) -> None:
    found = {"done": 0, "counts": {}, "failures": [], "seconds": 0.0}
    firsts = []

    def cases(folder: Path, first: int, count: int) -> Counter[str]:
        firsts.append(first)
        if first == 20:
            raise AssertionError("broken")
        return Counter({"good": count})

    promise = Promise("made up", "cases", 1, 30, 10, cases)
    assert [run.run_slice(promise, found, 10) for _ in range(3)] == [True, True, False]
    assert firsts == [0, 10, 20]
    assert found["done"] == 30
    assert found["counts"] == {"good": 20}
    assert found["failures"] == ["from case 20: AssertionError: broken"]
    known = PROMISES[0]
    run.save({known.name: {**found, "seconds": 60.0}}, tmp_path / "results.json")
    run.write_table(run.load(tmp_path / "results.json"), tmp_path / "RESULTS.md")
    assert (
        f"| {known.name} | 30 | {known.full:,} | {known.unit} | 1 | good 20 | 1.0 |"
        in (tmp_path / "RESULTS.md").read_text()
    )


def test_a_power_loss_may_take_a_store_of_which_nothing_was_acknowledged(tmp_path: Path) -> None:
    assert queues.check(str(tmp_path / "begun anew"), []) == Counter()
    with pytest.raises(AssertionError, match="the whole store was lost"):
        queues.check(str(tmp_path / "gone"), [b"is 1 id text"])


def test_the_next_cycle_needs_nothing_of_the_last_one(tmp_path: Path) -> None:
    seen = []

    def take_all(path: str, acknowledged: Sequence[bytes]) -> None:
        seen.append(path)
        shutil.rmtree(path, ignore_errors=True)

    run_kills("durability.changes:child", take_all, tmp_path, kills=3, seed=0, fresh_every=1)
    assert len(set(seen)) == 3
