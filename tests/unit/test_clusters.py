"""Clusters of what was said: each line in one of them, and what is like nothing else alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from numpy.typing import NDArray

from warpmem.index.clustering import cluster_by
from warpmem.index.cpu import CpuBackend
from warpmem.jobs import clusters
from warpmem.jobs.clusters import clustered as clustered_by
from warpmem.jobs.summaries import Line, lines_of
from warpmem.types import MemoryItem, Scope

START = datetime(2026, 1, 1, tzinfo=UTC)


def item(number: int, text: str) -> MemoryItem:
    at = START + timedelta(minutes=number)
    return MemoryItem(
        id=f"{number:032}", text=text, kind="event", scope=Scope(user_id="ann"), model_id="m", valid_from=at,
        created_at=at, recorded_at=at, touched_at=at,
    )  # fmt: skip


def crowd(count: int, seed: int) -> tuple[list[Line], NDArray[np.float32]]:
    """Lines near one direction, but for rows 3 and 5, which are near no other; line 5 is said twice."""
    rng = np.random.default_rng(seed)
    rows = (np.eye(8)[0] + 0.2 * rng.standard_normal((count, 8)) * (np.arange(8) < 6)).astype(np.float32)
    rows[3], rows[5] = np.eye(8)[6], np.eye(8)[7]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    said = [item(n, f"line {n}") for n in range(count)] + [item(count, "line 5")]
    return lines_of(said), rows


def clustered(
    lines: list[Line], rows: NDArray[np.float32], per_cluster: int, outliers: float
) -> list[list[Line]]:
    return clustered_by(lines, rows, per_cluster, outliers, cluster_by(CpuBackend()))


def texts(found: list[list[Line]]) -> list[list[str]]:
    return sorted(sorted(line.text for line in cluster) for cluster in found)


@pytest.mark.parametrize("count", [8, 40, 700])
def test_each_line_is_in_one_cluster_and_a_rare_one_alone(count: int) -> None:
    lines, rows = crowd(count, count)
    found = clustered(lines, rows, 6, 1 / count)
    assert sorted(line.text for cluster in found for line in cluster) == sorted(line.text for line in lines)
    assert [lines[3]] in found and len(found) <= 1 + -(-(count - 1) // 6)
    for cluster in found:
        assert cluster == sorted(cluster, key=lambda line: lines.index(line))


def test_what_is_said_twice_is_not_rare() -> None:
    lines, rows = crowd(16, 1)
    assert [lines[5]] not in clustered(lines, rows, 15, 1 / 16)
    alone = [cluster for cluster in clustered(lines, rows, 1, 1.0) if len(cluster) == 1]
    assert len(alone) == 16


@pytest.mark.parametrize("outliers", [0.0, 0.06])
def test_a_share_of_less_than_one_line_is_none(outliers: float) -> None:
    lines, rows = crowd(16, 2)
    assert len(clustered(lines, rows, 16, outliers)) == 1


def test_blocks_do_not_change_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    lines, rows = crowd(60, 3)
    whole = texts(clustered(lines, rows, 6, 0.2))
    monkeypatch.setattr(clusters, "_BLOCK", 7)
    assert texts(clustered(lines, rows, 6, 0.2)) == whole
