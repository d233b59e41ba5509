"""Predicted times: the model over given numbers, and the numbers of the plans as they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import cuda_predict

DEVICE = cuda_predict.Device(
    "test",
    copy=1e9,
    memory=1e9,
    l2=2e9,
    shared=4e9,
    mma=1e12,
    f32=1e10,
    f64=1e9,
    integer=1e10,
    issue=1e11,
)


def work(**units: float) -> dict[str, Any]:
    names = ("memory", "l2", "mma", "f32", "f64", "integer", "shared", "slots", "alone")
    names += ("launches", "rounds", "least")
    return {"workload": "some", "plan": "so", **dict.fromkeys(names, 0.0), **units}


@pytest.mark.parametrize(
    ("units", "milliseconds", "bound"),
    [
        ({"memory": 2e6, "l2": 1e6}, 2.0, "memory"),
        ({"memory": 1e6, "shared": 8e6}, 2.0, "shared memory"),
        ({"mma": 1e9, "f32": 1e7, "f64": 1e6, "memory": 1e6}, 3.0, "arithmetic"),
        ({"l2": 8e6, "launches": 2, "rounds": 4}, 4.010, "second cache"),
        ({"memory": 1e3, "launches": 10}, 0.031, "launches"),
        ({"slots": 3e8, "integer": 1e7, "memory": 2e6}, 3.0, "instructions"),
        ({"mma": 1e9, "memory": 5e5, "alone": 4e6, "launches": 1}, 5.003, "arithmetic"),
    ],
)
def test_the_busiest_unit_and_the_launches_make_the_time(units: Any, milliseconds: float, bound: str):
    found = cuda_predict.predict(work(**units), DEVICE)
    assert found.milliseconds == pytest.approx(milliseconds)
    assert found.bound == bound and found.floor == 0.0


def test_a_floor_is_what_has_to_be_moved_where_no_other_is_known():
    assert cuda_predict.predict(work(least=3e6, memory=9e6), DEVICE).floor == pytest.approx(3.0)
    (name, floor), *_ = cuda_predict.FLOORS.items()
    assert cuda_predict.predict({**work(least=3e6), "workload": name}, DEVICE).floor == floor


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler is here")
def test_the_plans_are_counted_and_the_table_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    output, numbers = tmp_path / "PREDICTED.md", tmp_path / "predicted.json"
    monkeypatch.setattr("sys.argv", ["cuda_predict.py", "--output", str(output), "--json", str(numbers)])
    assert cuda_predict.main() == 0
    found = {entry["workload"]: entry for entry in json.loads(numbers.read_text())}
    assert set(cuda_predict.FLOORS) <= set(found)
    assert all(entry["milliseconds"] > 0 and entry["plan"] for entry in found.values())
    assert all(entry["floor"] > 0 for entry in found.values())
    assert found["exact, 1 query, 1M rows, d 384"]["floor"] == pytest.approx(0.1786, abs=1e-4)
    one, many = (found[f"exact, {n}, 1M rows, d 768"] for n in ("1 query", "1024 queries"))
    # The coarse plane of a million rows, and little else; a batch reads both planes for each 128 queries.
    assert 1e6 * 400 <= one["bytes"] <= 1e6 * 400 * 1.25
    assert 8 * 1e6 * 800 <= many["bytes"] <= 8 * 1e6 * 800 * 1.4
    assert "1024 queries, 1M rows, d 768" in capsys.readouterr().out
    assert "## Plans" in output.read_text()
    saved = cuda_predict.ROOT / "bench" / "gpu" / "PREDICTED.md"
    assert output.read_text() == saved.read_text(), (
        "plans changed: python tools/cuda_predict.py --output bench/gpu/PREDICTED.md"
    )
