"""Kill -9 at any time: everything acknowledged is found, whole, and nothing is there by halves."""

from __future__ import annotations

from pathlib import Path

import pytest

from durability import changes
from durability.harness import run_kills

KILLS = 120
SEED = 20_260


@pytest.mark.slow
def test_engine_and_committer_survive_kill_9(tmp_path: Path) -> None:
    acknowledged = run_kills("durability.changes:child", changes.check, tmp_path, kills=KILLS, seed=SEED)
    assert acknowledged > 10 * KILLS, f"only {acknowledged} changes in {KILLS} cycles: the test shows nothing"


@pytest.mark.parametrize("broken", ["lying_child", "halving_child"])
def test_the_check_sees_a_broken_store(tmp_path: Path, broken: str) -> None:
    with pytest.raises((AssertionError, KeyError)):
        run_kills(f"durability.changes:{broken}", changes.check, tmp_path, kills=60, seed=SEED)
