"""Kill -9 in the middle of an erasure: the next open finishes it, in every file."""

from __future__ import annotations

from pathlib import Path

import pytest

from durability.erasures import check, child
from durability.harness import run_kills
from warpmem.storage.rocks import RocksEngine

KILLS = 15


def kills(folder: Path, count: int, seed: int) -> int:
    """`count` kills; returns how much was acknowledged before them."""
    return run_kills(
        "durability.erasures:child", check, folder, kills=count, seed=seed, fresh_every=5, longest=1.2
    )


@pytest.mark.slow
def test_erasure_survives_kill_9(tmp_path: Path) -> None:
    assert kills(tmp_path, KILLS, 5) > KILLS, "the children hardly got to work"


class _Enough(Exception):
    """Thrown to end a child."""


def test_the_check_sees_what_stays_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RocksEngine, "compact", lambda self, ranges: 0)
    monkeypatch.setattr(RocksEngine, "renew", lambda self: None)
    acknowledged: list[bytes] = []

    def acknowledge(token: bytes) -> None:
        acknowledged.append(token)
        if token.startswith(b"erased"):
            raise _Enough

    with pytest.raises(_Enough):
        child(str(tmp_path / "store"), 6, acknowledge)
    with pytest.raises(AssertionError, match="erased bytes"):
        check(str(tmp_path / "store"), acknowledged)
