"""Kill -9 in the middle of an erasure: the next open finishes it, in every file."""

from __future__ import annotations

from pathlib import Path

import pytest

from durability.erasures import check
from durability.harness import run_kills

KILLS = 25


def kills(folder: Path, count: int, seed: int, target: str = "durability.erasures:child") -> int:
    """`count` kills; returns how much was acknowledged before them."""
    return run_kills(target, check, folder, kills=count, seed=seed, fresh_every=5, longest=1.2)


@pytest.mark.slow
def test_erasure_survives_kill_9(tmp_path: Path) -> None:
    assert kills(tmp_path, KILLS, 5) > KILLS, "the children hardly got to work"


@pytest.mark.slow
def test_the_check_sees_what_stays_in_files(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"\[\]"):
        kills(tmp_path, 10, 6, "durability.erasures:forgetful_child")
