"""A Memory survives kill -9 at any time during adds and updates: all acknowledged items, none by halves."""

from __future__ import annotations

from pathlib import Path

import pytest

from durability.harness import run_kills
from durability.memories import check

KILLS = 120


@pytest.mark.slow
def test_acknowledged_items_survive_kill_9(tmp_path: Path) -> None:
    acknowledged = run_kills(
        "durability.memories:child", check, tmp_path, kills=KILLS, seed=2, fresh_every=15
    )
    assert acknowledged > KILLS, "the children hardly got to work"
