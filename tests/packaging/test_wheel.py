"""The wheel, built as for a release, installed where there is no compiler, and used there without a network.

Left out of the plain run (it builds and downloads dependencies): python -m pytest -m wheel
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from cuda_module import MAX_BYTES
from wheel_runs import ROOT, build, plain_environment, repair, run

pytestmark = pytest.mark.wheel


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this source tree, without CUDA so that it builds in seconds."""
    return build(tmp_path_factory.mktemp("dist"), "-Ccmake.define.WARPMEM_CUDA=OFF")


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return repair(built)


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, str]]:
    return plain_environment(wheel, tmp_path_factory.mktemp("plain"))


def test_wheel_holds_the_package_and_nothing_else(built: Path):
    with zipfile.ZipFile(built) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        metadata = archive.read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode()
    package = {name for name in names if name.startswith("warpmem/")}
    for needed in ("__init__.py", "__main__.py", "py.typed", "_cpu.pyi", "cli/data/conversations.jsonl"):
        assert f"warpmem/{needed}" in package
    sources = {path.relative_to(ROOT / "python").as_posix() for path in (ROOT / "python").rglob("*.py")}
    assert sources <= package
    assert {name.split("/")[0] for name in names} <= {"warpmem", *_companions(names)}
    assert any(re.fullmatch(r"warpmem/_cpu\..*so", name) for name in package)
    unwanted = re.compile(
        r"(^|/)(tests?|bench|csrc|\.[^/]*)/|\.(cpp|hpp|cu|cuh|o|a|pyc|toml|cmake)$|CMakeLists"
    )
    assert [name for name in names if unwanted.search(name)] == []
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.11" in metadata


def _companions(names: set[str]) -> set[str]:
    return {name.split("/")[0] for name in names if re.match(r"warpmem-[^/]*\.(dist-info|data)/", name)}


def test_wheel_is_small(wheel: Path):
    assert wheel.stat().st_size <= MAX_BYTES


def test_wheel_is_redistributable(wheel: Path):
    """A tag for machines other than this one: only libraries that manylinux allows are linked."""
    print(wheel.name)
    assert re.search(r"-manylinux_2_\d+_(x86_64|aarch64)[.\w]*\.whl$", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        assert [name for name in archive.namelist() if name.startswith("warpmem.libs/")] == []


def test_demo_runs_without_compiler_or_network(
    environment: tuple[Path, Mapping[str, str]], tmp_path_factory: pytest.TempPathFactory
):
    programs, variables = environment
    folder = tmp_path_factory.mktemp("demo")
    shown = run(programs / "python", "-W", "error", "-m", "warpmem", "demo", env=variables, cwd=folder)
    assert len(shown.splitlines()) > 20
    assert list(folder.iterdir()) == [], "the demo leaves nothing behind"


def test_doctor_and_entry_point_run_there(
    environment: tuple[Path, Mapping[str, str]], tmp_path_factory: pytest.TempPathFactory
):
    programs, variables = environment
    folder = tmp_path_factory.mktemp("doctor")
    report = json.loads(
        run(programs / "python", "-m", "warpmem", "doctor", "--json", env=variables, cwd=folder)
    )
    assert isinstance(report, dict)
    assert run(programs / "warpmem", "--version", env=variables, cwd=folder).strip().endswith("0.1.0")
    installed = run(
        programs / "python", "-c", "import warpmem; print(warpmem.__file__)", env=variables, cwd=folder
    )
    assert Path(installed.strip()).is_relative_to(programs.parent)
