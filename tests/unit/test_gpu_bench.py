"""bench/gpu without a GPU: its dry run measures with NumPy, and its steps end as they should."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import device_backends
import pools
import warpmem
from emulated_cuda import emulated
from warpmem.index import cuda_backend

BENCH = Path(__file__).resolve().parents[2] / "bench" / "gpu"


@pytest.fixture(autouse=True)
def bench_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))


def test_a_dry_run_writes_one_json_and_one_plot(tmp_path: Path):
    command = [str(BENCH / "run.sh"), "--dry-run", "--out", str(tmp_path), "--minutes", "2"]
    environment = {
        "WARPMEM_PYTHON": sys.executable,
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONPATH": str(Path(warpmem.__file__).parents[1]),
        "WARPMEM_EMULATED_CUDA": os.environ.get("WARPMEM_EMULATED_CUDA", ""),
    }
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads((tmp_path / "dry-run.json").read_text())
    steps = {step["name"]: step for step in report["steps"]}
    ended = {name: step["status"] for name, step in steps.items()}
    assert ended.pop("sanitizer") == "skipped" and len(ended) == 13
    assert set(ended.values()) == {"ok"} and "conformance" in ended
    assert (tmp_path / "measure.log").read_text().count("$ ") == 12
    assert steps["sanitizer"]["reason"] == "a dry run"
    results = report["results"]
    assert {result["family"] for result in results} == {
        "exact", "owners", "memory", "changes", "ivf_pq", "vram_cache", "select_k", "training", "crossover",
    }  # fmt: skip
    judged = 0
    for result in results:
        assert not {"skipped", "failed"} & set(result), result
        if "median of" not in result["workload"]:
            assert result["correct"] and result["ours_ms"] > 0, result
        judged += "met" in result
    assert not any("interim" in result for result in results)
    assert judged >= len(results) - 9  # of what is told and not judged
    exact = [result for result in results if result["family"] == "exact"]
    assert len(exact) == 3 * 5
    assert all(result["floor_ms"] > 0 and result["peers"]["numpy"]["ratio"] > 0 for result in exact)
    for result in (result for result in results if result["family"] in ("exact", "owners")):
        assert result["device_arrays_ms"] > 0  # told beside the judged time, which is of host arrays
        there = [peer for name, peer in result["peers"].items() if name.endswith("device arrays")]
        assert all("other" in peer or "skipped" in peer for peer in there)
    picture = (tmp_path / "dry-run.svg").read_text()
    assert picture.startswith("<svg") and picture.count("<circle") >= 3 * len(exact)
    table = (tmp_path / "dry-run.md").read_text()
    assert all(result["workload"] in table for result in results) and "Not measured" not in table
    assert not (tmp_path / "results.json").exists()


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
    import checks

    rng = np.random.default_rng(1)
    rows = rng.standard_normal((50, 8)).astype(np.float32)
    queries = rows[:2] + np.float32(0.1)
    ids = np.arange(100, 200, 4)
    kept = rows[:25].astype(np.float16).astype(float)
    wide = kept @ queries.astype(float).T
    order = np.argsort(-wide, axis=0).T
    best = ids[order[:, :3]]
    similarities = np.take_along_axis(wide.T, order[:, :3], 1)
    counts = np.full(2, 3)

    def check(similarities: Any, best: Any, counts: Any) -> bool:
        found = (None, similarities, None, best, counts)
        return checks.scan(np, found, queries, lambda q: (ids, rows[:25]), 3, [0, 1])

    assert check(similarities, best, counts)
    assert not check(similarities + 1e-4, best, counts)
    assert not check(similarities, best + 1, counts)
    assert not check(similarities, best, counts - 1)
    assert not check(similarities[:, [0, 0, 1]], best[:, [0, 0, 1]], counts)
    assert not check(np.take_along_axis(wide.T, order[:, 1:4], 1), ids[order[:, 1:4]], counts)


def test_mixtures_depend_on_the_seed_alone_and_have_unit_length():
    import data

    x = data.mixture(np, 300, 24, 5)
    assert x.dtype == np.float32 and x.tobytes() == data.mixture(np, 300, 24, 5).tobytes()
    assert x.tobytes() != data.mixture(np, 300, 24, 6).tobytes()
    assert np.allclose(np.linalg.norm(x, axis=1), 1.0, atol=1e-6)
    assert x[:100].tobytes() == data.mixture(np, 100, 24, 5).tobytes()
    assert data.zipf_sizes(5, 100, 30) == [100, 50, 33, 30, 30]


def test_any_part_of_a_mixture_is_made_again_by_itself(monkeypatch: pytest.MonkeyPatch):
    import data

    monkeypatch.setattr(data, "CHUNK", 64)
    whole = data.mixture(np, 2000, 64, 5)
    first, part = next(data.blocks(np, 2000, 64, 5, start=200))
    assert first == 192 and part.tobytes() == whole[192:256].tobytes()
    near, far = data.mixture(np, 50, 64, 9, centres=5), data.mixture(np, 50, 64, 9)
    assert (near @ whole.T).max(axis=1).mean() > (far @ whole.T).max(axis=1).mean() + 0.1


def test_the_optimum_of_a_trace_is_that_of_all_possible_decisions():
    from workloads.vram_cache import belady

    def tried(trace: Any, room: int, kept: frozenset[int]) -> int:
        if not len(trace):
            return 0
        item, rest = int(trace[0]), trace[1:]
        if item in kept:
            return 1 + tried(rest, room, kept)
        choices = [kept] + [kept - {gone} | {item} for gone in kept]
        if len(kept) < room:
            choices.append(kept | {item})
        return max(tried(rest, room, choice) for choice in choices)

    rng = np.random.default_rng(3)
    for _ in range(12):
        trace = rng.integers(0, 4, 9)
        assert belady(trace, 2) == tried(trace, 2, frozenset()), trace


def test_what_is_late_wrong_or_broken_is_named_and_the_rest_goes_on():
    import harness
    import peers
    from device import Device

    bench = harness.Bench(Device(dry=True), harness.TINY, 60.0)
    bench.device.dry, bench.only = False, ["work"]

    def right(result: Any) -> None:
        bench.require(result, True)
        result["ours_ms"], result["peers"] = 2.0, {"quick one": {"ms": 1.0, "ratio": 0.5}, "absent": {}}
        harness.beats(result, 1.0, "quick")
        harness.beats(result, 1.0, "absent")

    def slow(result: Any) -> None:
        right(result)
        result["targets"] = result["targets"][1:]

    def broken(result: Any) -> None:
        right(result)
        raise peers.Unavailable("it is switched off")

    bench.workload("a", "work 1", 1.0, right)
    bench.workload("a", "work 2", 1.0, slow)
    bench.workload("a", "work 3", 1.0, lambda result: bench.require(result, False))
    bench.workload("a", "work 4", 1e6, right)
    bench.workload("a", "work 5", 1.0, broken)
    bench.workload("a", "work 6", 1.0, lambda result: result["absent"])
    bench.workload("a", "another", 1.0, right)
    found = {result["workload"]: result for result in bench.results}
    assert list(found) == [f"work {i}" for i in range(1, 7)]
    assert found["work 1"]["met"] is False and found["work 2"]["met"] is None
    assert found["work 3"]["met"] is False and found["work 3"]["skipped"] == "the answer is wrong"
    assert "needs about 1000000 s" in found["work 4"]["skipped"]
    assert found["work 5"]["skipped"] == "it is switched off"
    assert not {"ours_ms", "peers", "targets"} & set(found["work 5"])
    assert found["work 6"]["failed"] == "KeyError: 'absent'"


def test_what_several_workloads_need_is_made_once_also_when_it_fails():
    import harness
    import peers

    made: list[int] = []

    def make() -> int:
        made.append(len(made))
        if len(made) == 1:
            raise MemoryError("there is none")
        return 7

    needed = harness.Once(make)
    with pytest.raises(MemoryError):
        needed()
    with pytest.raises(peers.Unavailable, match="could not be made: there is none"):
        needed()
    other = harness.Once(make)
    assert (other(), other(), other.made, made) == (7, 7, True, [0, 1])


def test_what_the_device_does_not_hold_has_no_time():
    import peers
    from device import Device
    from ours import Ours, whole

    device = Device(dry=True, module=emulated().module)
    rows = np.random.default_rng(1).standard_normal((30_000, 8)).astype(np.float32)
    ours = Ours(device, 8, vram_bytes=1 << 20)
    ours.add(np.arange(30_000, dtype=np.int64) // 20_000, rows)
    with pytest.raises(peers.Unavailable, match="answered for 0 of 2 lists: they are not loaded"):
        ours.prove(rows[:2], whole(2, np.arange(2)), 2, 5)
    with pytest.raises(peers.Unavailable, match="holds 1 of 2 lists"):
        ours.load()


def test_owners_are_loaded_as_far_as_the_time_goes(monkeypatch: pytest.MonkeyPatch):
    import harness
    import ours
    from device import Device
    from workloads import owners

    monkeypatch.setattr(ours, "AT_ONCE", 3)
    device = Device(dry=True, module=emulated().module)
    rows = np.random.default_rng(1).standard_normal((8, 8)).astype(np.float32)
    pool = ours.Ours(device, 8, vram_bytes=1 << 24)
    pool.add(np.arange(8), rows)
    assert pool.load(until=0.0) == 3 and pool.pool.tiers()["lists"] == 3
    assert pool.load() == 8
    sizes = dataclasses.replace(harness.TINY, owners=8, fill_seconds=0.0)
    bench = harness.Bench(device, sizes, 600.0)
    monkeypatch.setattr(ours.Ours, "load", lambda self, until: 5)
    made = owners._Owners(bench, 8, [10] * 8)
    left = made.fill()
    assert len(made.each) == 5 and left.pool.stats()["rows"] == 50


def test_results_of_several_calls_are_joined(tmp_path: Path):
    import report

    def result(name: str, **rest: Any) -> dict[str, Any]:
        return {"workload": name, "family": "f", **rest}

    path = tmp_path / "all.json"
    first = report.Report(path, "H")
    first.add(result("a", ours_ms=1.0))
    first.add(result("b", skipped="no time"))
    second = report.Report(path, "H")
    second.add(result("a", skipped="no time"))
    second.add(
        result("b", ours_ms=2.0, targets=[{"what": "x", "wanted": ">= 1", "got": 3.0, "met": True}], met=True)
    )
    second.add(result("c", failed="KeyError: 'x'"))
    joined = {r["workload"]: r for r in json.loads(path.read_text())["results"]}
    assert joined["a"]["ours_ms"] == 1.0 and joined["b"]["ours_ms"] == 2.0
    table = path.with_suffix(".md").read_text()
    assert "1 met, 0 not, 0 open" in table and "- c: KeyError" in table
    with pytest.raises(SystemExit, match="results of H, not of I"):
        report.Report(path, "I")


def test_the_crossover_is_the_size_from_which_on_the_device_is_faster():
    import report

    def at(rows: int, ratio: float) -> dict[str, Any]:
        return {"rows": rows, "batch": 1, "peers": {"host": {"ms": ratio, "ratio": ratio}}}

    assert report.crossovers([at(10, 1.2), at(100, 0.9), at(1000, 1.1), at(10_000, 5.0)]) == {
        1: (1000, 10_000)
    }
    assert report.crossovers([at(10, 0.2), at(100, 0.9)]) == {1: (None, 100)}


def test_the_workloads_ask_a_device_as_it_wants_to_be_asked():
    """The emulator in the reference's place: lists are loaded, proved to be there, searched and changed."""
    import families
    import harness
    from device import Device

    sizes = dataclasses.replace(
        harness.TINY, rows=300, batches=(1, 2), owners=4, owner_rows=20, zipf_most=40, ivf_rows=200,
        ivf_queries=3, changed=20, cache_searches=40, exponents=(1.4,), cluster_rows=150, iterations=3,
        collections=(64,), span=0.02, rounds=1,
    )  # fmt: skip
    only = ["exact, 1 query", "d 24", "IVF-PQ, 1 ", "k-means", "VRAM", "select_k, 10 "]
    bench = harness.Bench(Device(dry=True, module=emulated().module), sizes, 600.0, only)
    for family in families.FAMILIES:
        family.run(bench)
    assert {result["family"] for result in bench.results} >= {
        "exact", "owners", "changes", "ivf_pq", "vram_cache", "select_k", "training", "crossover",
    }  # fmt: skip
    for result in bench.results:
        assert not {"skipped", "failed"} & set(result) and result["correct"], result
