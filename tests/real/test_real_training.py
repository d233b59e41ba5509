"""The training stream under a real torch DataLoader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real


def test_workers_of_a_data_loader_share_a_store(run: Any, tmp_path: Path) -> None:
    report = run("torch_stream.py", tmp_path)
    assert len(report["alone"]) == len(set(report["alone"])) == 90
    assert report["fork"] == report["spawn"] == sorted(report["alone"])
