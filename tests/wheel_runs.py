"""What tests of wheels do: build one, repair it, install it where there is no compiler and no network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "clang++", "nvcc", "cmake", "ninja", "make", "ld")
DROPPED = ("CC", "CXX", "CUDACXX", "CMAKE_ARGS", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "WARPMEM_STORE")

# Runs at the start of every interpreter of the environment: what needs a network fails by name.
_NO_NETWORK = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        raise RuntimeError("a connection was tried: " + event)
sys.addaudithook(refuse)
"""


def run(*command: str | Path, **options: object) -> str:
    """What a command prints; a failure shows the ends of both its outputs."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, timeout=1500, **options
    )  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return str(done.stdout)


def build(folder: Path, *settings: str, env: Mapping[str, str] | None = None) -> Path:
    """The wheel of this source tree."""
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, *settings, ROOT, cwd=folder, env=env)
    (wheel,) = folder.glob("warpmem-*.whl")
    return wheel


def repair(wheel: Path) -> Path:
    """The same wheel with the manylinux tag that auditwheel grants it."""
    tools = {**os.environ, "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))}
    folder = wheel.parent / "repaired"
    command = (sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", folder, wheel)
    run(*command, env=tools, cwd=wheel.parent)
    (repaired,) = folder.glob("warpmem-*.whl")
    return repaired


def plain_environment(wheel: Path, folder: Path) -> tuple[Path, Mapping[str, str]]:
    """(bin folder, variables) of a new virtual environment with the wheel, no compiler and no network."""
    run(sys.executable, "-m", "venv", folder / "venv")
    programs = folder / "venv" / "bin"
    variables = {name: value for name, value in os.environ.items() if name not in DROPPED}
    variables["PATH"] = str(programs)
    assert [name for name in COMPILERS if shutil.which(name, path=variables["PATH"])] == []
    command = (programs / "python", "-m", "pip", "install", "--only-binary", ":all:", wheel)
    run(*command, env=variables, cwd=folder)
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (packages / "refuse_network.py").write_text(_NO_NETWORK)
    (packages / "refuse_network.pth").write_text("import refuse_network\n")
    return programs, variables
