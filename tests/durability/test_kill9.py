"""The check after a kill -9 sees what it is there for; the kills themselves are among the promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from durability import changes
from durability.harness import run_kills


@pytest.mark.parametrize("broken", ["lying_child", "halving_child"])
def test_the_check_sees_a_broken_store(tmp_path: Path, broken: str) -> None:
    with pytest.raises(AssertionError, match=r"is lost|without a log entry|without its item or vector|gap"):
        # One of them never acknowledges anything.
        run_kills(f"durability.changes:{broken}", changes.check, tmp_path, kills=60, seed=20_260, at_work=0.0)
