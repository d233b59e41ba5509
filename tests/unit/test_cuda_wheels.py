"""Finding the CUDA toolchain that came from wheels; none is needed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import cuda_wheels

ROOT = Path(__file__).resolve().parents[2]


def fill(site: Path, leave_out: str = "") -> Path:
    root = site / "nvidia" / "cu13"
    for part in cuda_wheels.PARTS:
        if part != leave_out:
            (root / part).parent.mkdir(parents=True, exist_ok=True)
            (root / part).touch()
    return root


def test_the_first_whole_toolchain_is_found(tmp_path: Path):
    fill(tmp_path / "broken", leave_out="nvvm/bin/cicc")
    root = fill(tmp_path / "whole")
    paths = [str(tmp_path / name) for name in ("none", "broken", "whole")]
    assert cuda_wheels.find(paths) == (root, "")


@pytest.mark.parametrize("part", cuda_wheels.PARTS)
def test_what_is_missing_is_named_with_the_install_line(tmp_path: Path, part: str):
    fill(tmp_path, leave_out=part)
    root, reason = cuda_wheels.find([str(tmp_path)])
    assert root is None
    assert f"lacks what {cuda_wheels.PARTS[part]} brings" in reason
    assert 'pip install "nvidia-cuda-cccl==13.0.*"' in reason


def test_without_wheels_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("sys.path", [])
    assert cuda_wheels.main() == 1
    assert "none of the wheels is installed" in capsys.readouterr().err


def test_the_build_installs_the_same_wheels():
    with (ROOT / "pyproject.toml").open("rb") as file:
        (override,) = tomllib.load(file)["tool"]["scikit-build"]["overrides"]
    assert override["build"]["requires"] == [
        f"{wheel}=={cuda_wheels.VERSION}" for wheel in cuda_wheels.WHEELS
    ]
