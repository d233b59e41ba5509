"""The doctor: what it reports, and that it notices a backend that computes wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import warpmem
from warpmem.cli import doctor, main, probe, selftest
from warpmem.compose import backends
from warpmem.errors import MissingDependency
from warpmem.index import cuda_backend
from warpmem.index.cpu import CpuBackend
from warpmem.index.numpy_ref import NumpyBackend, NumpyPool


def test_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["doctor", "--json", "--store", str(tmp_path / "not" / "yet")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert set(found["versions"]) >= {"warpmem", "python", "numpy", "rocksdict", "wordllama"}
    assert found["disk"]["directory"] == str(tmp_path)
    assert found["disk"]["fsync_ms"] > 0
    assert found["disk"]["free_bytes"] > 0
    assert list(tmp_path.iterdir()) == []
    assert found["backend"]["name"] in ("cpu", "numpy")
    tested = {entry["name"]: entry["self_test"] for entry in found["backends"]}
    assert tested["numpy"] == "bit-identical"
    for isa in found["native"]["isas"]:
        assert tested[f"cpu/{isa}"] == "bit-identical"
    assert found["embedder"]["dimension"] == 256
    assert found["embedder"]["embed_ms"] > 0
    assert isinstance(found["cuda"]["built"], bool)
    assert all(entry["install"].startswith("python -m pip install ") for entry in found["optional"].values())


@pytest.mark.parametrize(
    ("package", "module"), [("grpcio", "grpc"), ("opentelemetry-api", "opentelemetry"), ("torch", "torch")]
)
def test_what_is_installed_is_not_called_absent(
    package: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / module).mkdir()
    (tmp_path / module / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert doctor.examine(None)["optional"][package]["present"] is True


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for heading in ("versions", "machine", "native module", "cuda", "search backend", "embedder", "disk"):
        assert f"\n{heading}\n" in f"\n{text}"
    assert text.endswith("all checks passed\n")


@pytest.mark.parametrize(
    "backend",
    [
        *(backend for backend in backends().values() if backend.available() is None),
        *map(CpuBackend, CpuBackend().isas()),
    ],
)
def test_self_test_passes(backend: Any) -> None:
    assert selftest.check(backend) is None


class Wrong(NumpyBackend):
    """The reference with one fault, chosen by `fault`."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def normalize(self, x: Any) -> Any:
        unit = super().normalize(x)
        if self.fault == "normalize":
            unit[-1, -1] = np.nextafter(unit[-1, -1], np.float32(2))
        return unit

    def pool(self, dim: int, n_columns: int) -> Any:
        return WrongPool(dim, n_columns, self.fault)


class WrongPool(NumpyPool):
    def __init__(self, dim: int, n_columns: int, fault: str) -> None:
        super().__init__(dim, n_columns)
        self.fault = fault

    def scan(self, queries: Any, segments: Any, k: int, **ranking: Any) -> Any:
        if self.fault == "filter":
            segments = [(*segment[:3], (), (), segment[5]) for segment in segments]
        elif self.fault == "bitmap":
            segments = [(*segment[:5], None) for segment in segments]
        elif self.fault == "ranking" and ranking:
            ranking = {**ranking, "w_priority": 0.0}
        scores, *rest = super().scan(queries, segments, k, **ranking)
        if self.fault == "one bit":
            scores[0, 0] = np.nextafter(scores[0, 0], np.float32(2))
        elif self.fault == "ties":
            rest[2][:] = rest[2][:, ::-1]
        return (scores, *rest)


FAULTS = {
    "normalize": "normalize differs at dimension 7",
    "one bit": "scores of the plain scan differ at dimension 7",
    "ties": "row ids of the plain scan differ at dimension 7",
    "filter": "scores of the filtered scan differ at dimension 7",
    "bitmap": "scores of the filtered scan differ at dimension 7",
    "ranking": "scores of the ranked scan differ at dimension 7",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_self_test_finds(fault: str) -> None:
    assert selftest.check(Wrong(fault)) == FAULTS[fault]


def test_exit_code_of_a_failed_self_test(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        selftest, "check", lambda backend: "scores differ" if backend.name == "numpy" else None
    )
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "numpy        self-test: FAIL: scores differ" in text
    assert text.endswith("A CHECK FAILED\n")


def test_without_the_native_module(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warpmem.index.cpu._load", lambda: (None, "no module"))
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["backend"]["name"] == "numpy"
    assert found["native"] == {"build": {}, "isas": [], "isa": None}
    assert {"name": "cpu", "self_test": "not available: no module"} in found["backends"]


def test_without_the_default_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> None:
        raise MissingDependency("the embedder 'wordllama' needs: python -m pip install wordllama")

    monkeypatch.setattr(doctor, "WordLlamaEmbedder", absent)
    assert main(["doctor"]) == 1
    assert "FAIL: MissingDependency: the embedder 'wordllama' needs" in capsys.readouterr().out


def test_cuda_is_asked_without_failing() -> None:
    found = probe.cuda()
    assert found["reason"] is not None or found["devices"]
    assert all(device["self_test"]["passed"] for device in found["devices"])


def test_a_failed_cuda_device(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    device = {"index": 0, "name": "GPU", "self_test": {"passed": False, "mismatches": 3}}
    known = {
        "built": True,
        "reason": None,
        "driver_version": 13000,
        "runtime_version": 13000,
        "devices": [device],
    }
    monkeypatch.setattr(probe, "cuda", lambda: known)
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "driver 13000, runtime 13000" in text
    assert "name GPU" in text
    assert "scorer     self-test: FAIL: 3 of all cases differ" in text


FAMILIES = ("select_k", "kmeans", "pq", "mmr", "pages", "scan", "scan_pq")


def fake_module(wrong: str | None) -> ModuleType:
    """warpmem._cuda as on a machine with two devices; on the second the family `wrong` computes otherwise."""

    def self_test(device: int) -> dict[str, Any]:
        bad = device == 1 and wrong is not None
        families = {name: {"cases": 6, "mismatches": 2 if bad and name == wrong else 0} for name in FAMILIES}
        result = {"device": device, "rows": 257, "dim": 96, "mismatches": 0, "passed": not bad}
        return {**result, "families": families}

    module = ModuleType("warpmem._cuda")
    devices = [{"index": i, "name": f"GPU {i}", "capability": "9.0", "memory": 1 << 37} for i in range(2)]
    for name, value in {
        "unavailable_reason": lambda: None,
        "driver_version": lambda: 13000,
        "runtime_version": lambda: 13000,
        "devices": lambda: [dict(device) for device in devices],
        "self_test": self_test,
    }.items():
        setattr(module, name, value)
    return module


@pytest.mark.parametrize("wrong", [None, "select_k", "scan_pq"])
def test_every_family_of_kernels_is_tested_on_every_device(
    wrong: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = fake_module(wrong)
    monkeypatch.setitem(sys.modules, "warpmem._cuda", module)
    monkeypatch.setattr(warpmem, "_cuda", module, raising=False)
    # The backend would search on the fake; these are tests of the kernels' own.
    monkeypatch.setattr(cuda_backend, "_load", lambda: (None, "the fake holds no lists"))
    assert main(["doctor"]) == (0 if wrong is None else 1)
    text = capsys.readouterr().out
    assert "name GPU 0, capability 9.0" in text and "name GPU 1, capability 9.0" in text
    assert text.count("    scorer     self-test: bit-identical") == 2
    for name in FAMILIES:
        expected = 1 if name == wrong else 2
        assert text.count(f"    {name:10} self-test: bit-identical") == expected
    if wrong is not None:
        assert f"    {wrong:10} self-test: FAIL: 2 of 6 cases differ" in text


def test_versions_of_what_is_not_there() -> None:
    assert probe.package_version("warpmem-no-such-package") is None
    assert not probe.is_importable("warpmem_no_such_module")
