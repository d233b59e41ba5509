"""The wheel, built as for a release, installed where there is no compiler, and used there without a network.

Left out of the plain run (it builds and downloads dependencies): python -m pytest -m wheel
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

pytestmark = pytest.mark.wheel

ROOT = Path(__file__).resolve().parents[2]
MAX_BYTES = 15_000_000
COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "clang++", "nvcc", "cmake", "ninja", "make", "ld")

# Runs at the start of every interpreter of the environment: what needs a network fails by name.
_NO_NETWORK = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        raise RuntimeError("a connection was tried: " + event)
sys.addaudithook(refuse)
"""


def _run(*command: str | Path, **options: object) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, timeout=900, **options
    )  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return str(done.stdout)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this source tree, without CUDA so that it builds in seconds."""
    folder = tmp_path_factory.mktemp("dist")
    setting = "-Ccmake.define.WARPMEM_CUDA=OFF"
    _run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, setting, ROOT, cwd=folder)
    (wheel,) = folder.glob("warpmem-*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    """The same wheel with the manylinux tag that auditwheel grants it."""
    tools = {**os.environ, "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))}
    folder = built.parent / "repaired"
    _run(
        sys.executable,
        "-m",
        "auditwheel",
        "repair",
        "--wheel-dir",
        folder,
        built,
        env=tools,
        cwd=built.parent,
    )
    (repaired,) = folder.glob("warpmem-*.whl")
    return repaired


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, str]]:
    """(bin folder, variables) of a new virtual environment with the wheel, no compiler and no network."""
    folder = tmp_path_factory.mktemp("plain")
    _run(sys.executable, "-m", "venv", folder / "venv")
    programs = folder / "venv" / "bin"
    dropped = (
        "CC",
        "CXX",
        "CUDACXX",
        "CMAKE_ARGS",
        "PYTHONPATH",
        "PYTHONHOME",
        "VIRTUAL_ENV",
        "WARPMEM_STORE",
    )
    variables = {name: value for name, value in os.environ.items() if name not in dropped}
    variables["PATH"] = str(programs)
    assert [name for name in COMPILERS if shutil.which(name, path=variables["PATH"])] == []
    _run(
        programs / "python",
        "-m",
        "pip",
        "install",
        "--only-binary",
        ":all:",
        wheel,
        env=variables,
        cwd=folder,
    )
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (packages / "refuse_network.py").write_text(_NO_NETWORK)
    (packages / "refuse_network.pth").write_text("import refuse_network\n")
    return programs, variables


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
    shown = _run(programs / "python", "-W", "error", "-m", "warpmem", "demo", env=variables, cwd=folder)
    assert len(shown.splitlines()) > 20
    assert list(folder.iterdir()) == [], "the demo leaves nothing behind"


def test_doctor_and_entry_point_run_there(
    environment: tuple[Path, Mapping[str, str]], tmp_path_factory: pytest.TempPathFactory
):
    programs, variables = environment
    folder = tmp_path_factory.mktemp("doctor")
    report = json.loads(
        _run(programs / "python", "-m", "warpmem", "doctor", "--json", env=variables, cwd=folder)
    )
    assert isinstance(report, dict)
    assert _run(programs / "warpmem", "--version", env=variables, cwd=folder).strip().endswith("0.1.0")
    installed = _run(
        programs / "python", "-c", "import warpmem; print(warpmem.__file__)", env=variables, cwd=folder
    )
    assert Path(installed.strip()).is_relative_to(programs.parent)
