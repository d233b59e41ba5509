"""A store that embeds later survives kill -9 at any time: no work is lost, and none is done twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from durability.queues import run_queue_kills

KILLS = 16


@pytest.mark.slow
def test_what_waits_to_be_embedded_survives_kill_9(tmp_path: Path) -> None:
    found = run_queue_kills(tmp_path, kills=KILLS, seed=11)
    assert found["acknowledged"] > KILLS, "the kills hit nothing"
    assert found["waiting"] and found["embedded"], "no kill fell between a change and its vector"
