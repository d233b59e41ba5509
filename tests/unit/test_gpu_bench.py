"""bench/gpu without a GPU: its dry run measures with NumPy, and its steps end as they should."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import device_backends
import pools
from emulated_cuda import emulated
from warpmem.index import cuda_backend

BENCH = Path(__file__).resolve().parents[2] / "bench" / "gpu"


@pytest.fixture(autouse=True)
def bench_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))


def test_a_dry_run_writes_one_json_and_one_plot(tmp_path: Path):
    command = [str(BENCH / "run.sh"), "--dry-run", "--out", str(tmp_path), "--minutes", "2"]
    environment = {"WARPMEM_PYTHON": sys.executable, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads((tmp_path / "dry-run.json").read_text())
    steps = {step["name"]: step for step in report["steps"]}
    assert {name: step["status"] for name, step in steps.items()} == {
        "conformance": "ok",
        "sanitizer": "skipped",
        "measure": "ok",
    }
    assert steps["sanitizer"]["reason"] == "a dry run"
    results = report["results"]
    assert len(results) == 2 * (3 + 2) + 1
    for result in results:
        assert result["ours_ms"] > 0, result
        assert result.get("correct", True)
    exact = [result for result in results if result["workload"].startswith("exact")]
    assert all(result["floor_ms"] > 0 and result["peers"]["numpy"]["ratio"] > 0 for result in exact)
    picture = (tmp_path / "dry-run.svg").read_text()
    assert picture.startswith("<svg") and picture.count("<rect") >= 2 * len(exact)


def test_steps_that_fail_or_take_too_long_do_not_end_the_run(tmp_path: Path):
    import run as steps

    run: Any = steps.Run(tmp_path, 60, dry=True)

    def absent() -> None:
        raise steps.Skipped("there is none")

    assert run.step("works", lambda: run.call("true", limit=5))
    assert not run.step("fails", lambda: run.call("false", limit=5))
    assert not run.step("hangs", lambda: run.call("sleep", "5", limit=0.2))
    assert not run.step("absent", absent)
    assert [step.status for step in run.steps] == ["ok", "failed", "timeout", "skipped"]
    path = steps.finish(run, {"dry_run": True})
    assert [step["name"] for step in json.loads(path.read_text())["steps"]] == [
        "works",
        "fails",
        "hangs",
        "absent",
    ]


def test_what_takes_too_long_ends_with_all_that_it_started(tmp_path: Path):
    import run as steps

    run: Any = steps.Run(tmp_path, 60, dry=True)
    started = tmp_path / "started"
    script = f"sleep 60 & echo $! >{started}.part; mv {started}.part {started}; wait"
    assert not run.step("hangs", lambda: run.call("sh", "-c", script, limit=1.0))
    process = Path("/proc", started.read_text().strip(), "stat")
    end = time.monotonic() + 10
    while process.exists() and process.read_text().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < end, "it still runs"
        time.sleep(0.01)


def test_the_suite_of_a_device_has_the_device_answer(monkeypatch: pytest.MonkeyPatch):
    """Lists are loaded behind a search that asks for them: the conformance suite was the host's alone."""
    monkeypatch.setattr(cuda_backend, "_load", lambda: (emulated().module, None))
    pool = device_backends.device_backends()["cuda"].pool(8, 0)
    x = pools.make_rows("random", 70, 8, 1)
    ids = np.arange(70)
    pool.apply([], 0 * ids, ids, ids.astype(np.uint32), np.zeros((70, 0), np.int64), x)
    found = pool.scan(x[:2], [(0, 0, 0, [], [], None), (1, 0, 0, [], [], None)], 5, explain=True)
    assert found[5]["device_lists"] == 1


def test_wrong_answers_are_noticed():
    import measure

    bench = measure.Bench(measure.Device(dry=True), measure.TINY, 60.0)
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((50, 8)).astype(np.float32)
    queries = rows[:2] + np.float32(0.1)
    lists, allowed = np.zeros(50, np.int64), np.arange(50) % 2 == 0
    wide = rows.astype(float) @ queries.astype(float).T
    wide[~allowed] = -np.inf
    ids = np.argsort(-wide, axis=0)[:3].T
    similarities = np.take_along_axis(wide.T, ids, 1)
    counts = np.full(2, 3)

    def check(similarities: Any, ids: Any, counts: Any) -> bool:
        return bench.check((None, similarities, None, ids, counts), queries, rows, lists, allowed, 3)

    assert check(similarities, ids, counts)
    assert not check(similarities + 0.01, ids, counts)
    assert not check(similarities, ids + 1, counts)
    assert not check(similarities, ids, counts - 1)
    second = np.argsort(-wide, axis=0)[1:4].T
    assert not check(np.take_along_axis(wide.T, second, 1), second, counts)


def test_mixtures_depend_on_the_seed_alone_and_have_unit_length():
    import data

    x = data.mixture(np, 300, 24, 5)
    assert x.dtype == np.float32 and x.tobytes() == data.mixture(np, 300, 24, 5).tobytes()
    assert x.tobytes() != data.mixture(np, 300, 24, 6).tobytes()
    assert np.allclose(np.linalg.norm(x, axis=1), 1.0, atol=1e-6)
    assert data.zipf_sizes(5, 100, 30) == [100, 50, 33, 30, 30]


def test_peers_that_are_not_there_say_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    import peers

    monkeypatch.delenv("WARPMEM_GPU_PEERS", raising=False)
    assert peers.outside() == []
    (tmp_path / "cuvs").mkdir()
    (tmp_path / "cuvs" / "__init__.py").write_text("raise ImportError('no device here')\n")
    monkeypatch.setenv("WARPMEM_GPU_PEERS", str(tmp_path))
    assert peers.outside() == ["cuvs"]
    with pytest.raises(peers.Unavailable, match=r"cuvs failed.*no device here"):
        peers.ask("cuvs", {"rows": 10, "dim": 4, "batch": 1, "k": 1})
