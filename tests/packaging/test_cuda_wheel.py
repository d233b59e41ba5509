"""The wheel of a release, with CUDA kernels for every architecture, made by the toolchain of wheels.

Left out of the plain run: python -m pytest -m wheel. Skipped where the index has no toolchain.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cuda_module
import cuda_wheels
from wheel_runs import build, plain_environment, repair, run

pytestmark = pytest.mark.wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    toolchain = [f"{name}=={cuda_wheels.VERSION}" for name in cuda_wheels.WHEELS]
    ask = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--ignore-installed", "--quiet"]
    found = subprocess.run([*ask, *toolchain], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        assert "No matching distribution found" in found.stderr, found.stderr
        pytest.skip(f"the CUDA wheel was not built, for want of its toolchain: {found.stderr[-300:]}")
    settings = {**os.environ, "WARPMEM_CUDA_TOOLKIT": "wheels"}
    return repair(build(tmp_path_factory.mktemp("dist"), env=settings))


def test_it_is_small_and_whole_and_needs_no_library_of_cuda(wheel: Path):
    print(run(sys.executable, cuda_module.__file__, wheel))


def test_without_a_device_it_loads_and_says_so(wheel: Path, tmp_path_factory: pytest.TempPathFactory):
    """Devices that the machine has are hidden."""
    programs, variables = plain_environment(wheel, tmp_path_factory.mktemp("plain"))
    variables = {**variables, "CUDA_VISIBLE_DEVICES": ""}
    folder = tmp_path_factory.mktemp("empty")
    doctor = run(programs / "python", "-m", "warpmem", "doctor", "--json", env=variables, cwd=folder)
    cuda = json.loads(doctor)["cuda"]
    assert cuda["built"] and cuda["devices"] == [] and cuda["runtime_version"] >= 13000
    assert cuda["reason"] in ("no CUDA driver is installed", "the CUDA driver reports no device") or (
        "no CUDA-capable device is detected" in cuda["reason"]
    )
    shown = run(programs / "python", "-W", "error", "-m", "warpmem", "demo", env=variables, cwd=folder)
    assert len(shown.splitlines()) > 20
