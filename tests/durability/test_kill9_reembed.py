"""A store survives kill -9 at any time while its embedding model changes: the old model or the new, whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from durability.reembeds import run_reembed_kills

KILLS = 12
SWITCHES = 10


@pytest.mark.slow
def test_a_store_survives_kill_9_while_its_model_changes(tmp_path: Path) -> None:
    found = run_reembed_kills(tmp_path, kills=KILLS, seed=3)
    assert found["resumed"] + found["acknowledged"], "the kills hit nothing"


@pytest.mark.slow
def test_a_store_survives_kill_9_between_the_switch_and_the_end_of_the_old_vectors(tmp_path: Path) -> None:
    found = run_reembed_kills(tmp_path, kills=SWITCHES, seed=5, switching=True)
    assert found["acknowledged"] and found["switched"], "no kill fell in between"
