"""The training stream under a real torch DataLoader."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from test_real_models import _report, minilm, root

pytestmark = pytest.mark.real

__all__ = ["minilm", "root"]


def test_workers_of_a_data_loader_share_a_store(minilm: tuple[Path, str], tmp_path: Path) -> None:
    report = _report(minilm[0], "torch_stream.py", tmp_path)
    assert len(report["alone"]) == len(set(report["alone"])) == 90
    assert report["fork"] == report["spawn"] == sorted(report["alone"])
