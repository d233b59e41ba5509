"""bench/gpu and its peers without a GPU: what is told of them, in which time, and on which terms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench" / "gpu"


@pytest.fixture(autouse=True)
def bench_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))


def a_bench(report: Any = None) -> Any:
    import harness
    from device import Device

    return harness.Bench(Device(dry=True), harness.TINY, 60.0, report=report or (lambda result: None))


def a_peer(folder: Path, name: str, source: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(source)


def test_peers_that_are_not_there_say_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    import peers

    monkeypatch.delenv("WARPMEM_GPU_PEERS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert peers.outside() == []
    (tmp_path / "home" / "peer-site" / "faiss").mkdir(parents=True)
    assert peers.outside() == ["faiss"]
    a_peer(tmp_path, "cuvs", "raise ImportError('no device here')\n")
    monkeypatch.setenv("WARPMEM_GPU_PEERS", str(tmp_path))
    assert peers.outside() == ["cuvs"]
    with pytest.raises(peers.Unavailable, match=r"cuvs failed.*no device here"):
        peers.Asked().ask("cuvs", "exact", {"rows": 10, "dim": 4, "seed": 1, "cases": []}, 60.0, "a")
    with pytest.raises(peers.Unavailable, match="faiss is not in"):
        peers.Asked().ask("faiss", "exact", {}, 60.0, "a")


@pytest.mark.parametrize(
    ("end", "reason"), [("time.sleep(60)", "took more than 3 s"), ("os.abort()", "failed")]
)
def test_a_peer_that_does_not_end_well_keeps_the_cases_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: str, reason: str
):
    import peers

    said = (
        "print('welcome'); print(json.dumps({'a': 1.5}), flush=True); print('{\"b\": 1', end='', flush=True)"
    )
    a_peer(tmp_path, "cuvs", f"import json, os, time; {said}; {end}")
    monkeypatch.setenv("WARPMEM_GPU_PEERS", str(tmp_path))
    asked = peers.Asked()
    assert asked.ask("cuvs", "exact", {}, 3.0, "a") == 1.5
    with pytest.raises(peers.Unavailable, match=reason):
        asked.ask("cuvs", "exact", {}, 3.0, "b")


def test_cases_of_a_peer_are_told_one_by_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import peer_process

    def task(spec: Any) -> Any:
        yield "a", 1.0
        assert capsys.readouterr().out == '{"a": 1.0}\n'
        yield "b", {"ms": spec["ms"]}

    monkeypatch.setitem(peer_process.TASKS, ("json", "own"), task)
    monkeypatch.setattr("sys.argv", ["peer_process.py", "json", "own", json.dumps({"ms": 2.0})])
    assert peer_process.main() == 0
    assert capsys.readouterr().out == '{"b": {"ms": 2.0}}\n'


def test_ours_is_reported_before_a_peer_is_asked(tmp_path: Path):
    import report

    path = tmp_path / "all.json"
    collected = report.Report(path, "H")
    bench = a_bench(collected.add)
    seen: list[Any] = []

    def peer() -> float:
        seen.extend(json.loads(path.read_text())["results"])
        return 4.0

    def body(result: Any) -> None:
        result["ours_ms"], result["device_arrays_ms"] = 2.0, 8.0
        bench.peers(result, {"x": peer})
        bench.peers(result, {"x": lambda: 4.0}, "device_arrays_ms")
        harness.beats(result, 1.0, "x")
        harness.beats_best(result, 1.0)

    import harness

    bench.workload("f", "w", 0.0, body)
    assert seen[0]["ours_ms"] == 2.0 and seen[0]["interim"]
    (result,) = json.loads(path.read_text())["results"]
    assert "interim" not in result and result["peers"]["x"]["ratio"] == 2.0
    assert result["peers"]["x, device arrays"] == {
        "ms": 4.0, "ratio": 0.5, "other": "device arrays on both sides",
    }  # fmt: skip
    assert [entry["got"] for entry in result["targets"]] == [2.0, 2.0]  # judged from host to host


def test_what_is_not_complete_gives_way_to_what_is():
    import report

    whole, part = ({"workload": "w", "family": "f", "ours_ms": ms} for ms in (1.0, 2.0))
    part["interim"] = True
    gap = {"workload": "w", "family": "f", "skipped": "it failed"}
    assert report.join([whole], [part]) == [whole] == report.join([part], [whole])
    assert report.join([part], [gap]) == [gap] and report.join([gap], [part]) == [part]


def test_peers_have_a_part_of_what_is_left():
    bench = a_bench()
    assert 20.0 < bench.for_peers(90.0) <= 24.0
    assert bench.for_peers(5.0) == 5.0
    bench.end = 0.0
    assert bench.for_peers(90.0) == 1.0


def test_a_library_that_fails_costs_its_own_figures_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import peers
    from device import Device

    device = Device(dry=True)

    def broken(device: Any) -> Any:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(peers, "torch_of", broken)
    monkeypatch.setattr(peers, "release", broken)
    assert device.matrix_rate()[1] == "float32"
    device.release()
    assert "memory was not given back: RuntimeError: an illegal" in capsys.readouterr().err
    monkeypatch.setattr(device, "milliseconds", lambda call, rounds: broken(device))
    assert device.matrix_rate() == (None, "unknown")
    bench = a_bench()
    bench.matrix = None
    assert bench.multiplying(1e9) == 0.0


def test_noise_is_no_time_of_an_iteration():
    import peers
    from workloads import training

    assert training.an_iteration(10.0, 66.0, 28) == 2.0
    with pytest.raises(peers.Unavailable, match="noise"):
        training.an_iteration(10.0, 10.0, 28)


def test_iterations_that_change_nothing_are_not_counted():
    import peers
    from workloads import training

    def train(iterations: int) -> Any:
        return np.full((2, 3), min(iterations, 12)), None, 0.0

    assert training.still_moving(train, 12)[0] == 12
    assert training.still_moving(train, 30)[0] == 7  # of 30, 15 and 7
    with pytest.raises(peers.Unavailable, match="ends within"):
        training.still_moving(lambda iterations: train(20), 30)


def test_only_few_queries_are_sorted_whole():
    import peers
    from device import Device

    rows = np.ones((3, 4), np.float32)
    few, many = (peers.brute_force(Device(dry=True), rows, np.ones((n, 4), np.float32), 1) for n in (32, 33))
    assert set(few) - set(many) == {"numpy"}


def test_the_largest_by_torch_are_those_by_numpy(monkeypatch: pytest.MonkeyPatch):
    """A stand-in for torch: only what `largest` asks of it."""
    import sys
    import types

    import checks

    def topk(x: Any, k: int, dim: int) -> Any:
        places = np.argsort(-x, axis=dim)[:, :k]
        return np.take_along_axis(x, places, dim), places

    torch = types.ModuleType("torch")
    torch.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    torch.topk, torch.from_dlpack = topk, np.asarray  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    scores = np.random.default_rng(1).permutation(60).reshape(3, 20).astype(np.float32)
    like_cupy = types.SimpleNamespace(cuda=None, from_dlpack=np.asarray)
    for part, same in zip(checks.largest(like_cupy, scores, 4), checks.largest(np, scores, 4), strict=True):
        assert np.array_equal(np.sort(part, axis=1), np.sort(same, axis=1))


def test_packs_are_no_peers_and_those_beside_the_environment_are_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """A call of measure.py itself has what an earlier call of run.sh set up."""
    import peers

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("WARPMEM_GPU_PEERS", raising=False)
    monkeypatch.setattr("sys.prefix", str(tmp_path / "venv"))
    assert peers.outside() == []
    a_peer(tmp_path / "venv" / "peer-site", "cuvs", "")
    assert peers.outside() == ["cuvs"]
    for name in ("cuvs", "faiss"):
        (tmp_path / "packs" / name).mkdir(parents=True)
        (tmp_path / "packs" / name / f"{name}.tar.xz").write_bytes(b"")
    monkeypatch.setenv("WARPMEM_GPU_PEERS", str(tmp_path / "packs"))
    assert peers.outside() == ["cuvs"] and peers.folder() == tmp_path / "venv" / "peer-site"


def test_host_memory_may_be_told(monkeypatch: pytest.MonkeyPatch):
    import device

    monkeypatch.delenv("WARPMEM_GPU_HOST_GIB", raising=False)
    assert device.host_bytes() > 1 << 20
    monkeypatch.setenv("WARPMEM_GPU_HOST_GIB", "1.5")
    assert device.host_bytes() == 3 << 29


def test_bandwidth_is_that_of_random_values():
    from device import Device

    host, copied = Device(dry=True), []

    def milliseconds(call: Any, rounds: int) -> float:
        cells = dict(zip(call.__code__.co_freevars, call.__closure__, strict=True))
        copied.append(cells["source"].cell_contents)
        call()
        copied.append(cells["target"].cell_contents)
        return 1.0

    host.milliseconds = milliseconds  # type: ignore[method-assign]
    assert host.bandwidth() == 2 * copied[0].nbytes * 1e3
    assert len(np.unique(copied[0])) > 1000 and np.array_equal(*copied)
