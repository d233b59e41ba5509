"""What it costs to have warpmem: import time and installed size. Both gated (design targets)."""

from __future__ import annotations

import importlib.metadata
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import warpmem

RUNS = 9
MAX_IMPORT = 0.150
MAX_CORE_BYTES = 30_000_000
MODEL = {"wordllama", "tokenizers", "safetensors"}
PROGRAM = """
import time
started = time.perf_counter()
import numpy
between = time.perf_counter()
import warpmem
print(between - started, time.perf_counter() - between)
"""


def test_import_time(report: Callable[[str], None]) -> None:
    """A fresh interpreter each time; NumPy's own time is not counted."""
    runs = []
    for _ in range(RUNS):
        output = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
        runs.append([float(part) for part in output.stdout.split()])
    numpy, own = (statistics.median(column) for column in zip(*runs, strict=True))
    report(f"import warpmem: {own * 1e3:.0f} ms; NumPy: {numpy * 1e3:.0f} ms (gate {MAX_IMPORT * 1e3:.0f})")
    assert own <= MAX_IMPORT


def test_installed_size(report: Callable[[str], None]) -> None:
    """warpmem with what it needs, without NumPy, the default model, and the packages that only it needs."""
    core = (
        closure("warpmem", without={"numpy", *MODEL})
        if _is_installed("warpmem")
        else {"msgspec", "rocksdict"}
    )
    sizes = {name: size for name in sorted(core - {"warpmem"}) if (size := distribution_bytes(name))}
    package = Path(warpmem.__file__).parent
    sizes["warpmem"] = sum(
        file.stat().st_size
        for file in package.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    )
    model = closure("wordllama", without={"numpy", *core})
    parts = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in sizes.items())
    report(f"core {sum(sizes.values()) / 1e6:.1f} MB ({parts}; gate {MAX_CORE_BYTES / 1e6:.0f})")
    report(f"the default model, {len(model)} packages: {sum(map(distribution_bytes, model)) / 1e6:.1f} MB")
    assert sum(sizes.values()) <= MAX_CORE_BYTES


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def closure(name: str, without: set[str]) -> set[str]:
    """A distribution and what it requires, directly or not, of what is installed."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        current = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if current in found or current in without or not _is_installed(current):
            continue
        found.add(current)
        for line in importlib.metadata.requires(current) or []:
            if "extra ==" not in line:
                match = re.match(r"[A-Za-z0-9._-]+", line)
                assert match is not None
                waiting.append(match[0])
    return found


def distribution_bytes(name: str) -> int:
    """Bytes of a distribution's files, compiled bytecode left out."""
    files = importlib.metadata.files(name) or []
    paths = [Path(str(file.locate())) for file in files if file.suffix != ".pyc"]
    return sum(path.stat().st_size for path in paths if path.is_file())
