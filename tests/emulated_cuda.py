"""warpmem._cuda without a device: the module's own sources, with the SIMT emulator in place of a
device's processors and a fake one in place of CUDA's runtime (tests/cpp). Built once a session, into a
temporary folder."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pybind11

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (
    "tests/cpp/emulated_kernels.cpp",
    "tests/cpp/emulated_host.cpp",
    "csrc/bindings/page_cache.cpp",
    "csrc/bindings/device_array.cpp",
    "csrc/bindings/cuda_module.cpp",
)
FLAGS = (
    "-std=c++17", "-O2", "-fPIC", "-pthread", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Wextra",
    "-Werror",
)  # fmt: skip


def _build(folder: Path) -> Path:
    compiler = os.environ.get("CXX", "g++")
    folders = (ROOT / "tests/cpp", pybind11.get_include(), sysconfig.get_paths()["include"])
    includes = [f"-I{path}" for path in folders]

    def compile_one(source: str) -> str:
        target = str(folder / (Path(source).stem + ".o"))
        run([compiler, *FLAGS, *includes, "-c", str(ROOT / source), "-o", target])
        return target

    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        objects = list(threads.map(compile_one, SOURCES))
    library = folder / f"_cuda{sysconfig.get_config_var('EXT_SUFFIX')}"
    run([compiler, "-shared", "-pthread", *objects, "-o", str(library)])
    return library


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"


class Emulated:
    """The module and its controls. Counts of calls are of those that can fail."""

    def __init__(self, library: Path) -> None:
        loader = ExtensionFileLoader("_cuda", str(library))
        spec = importlib.util.spec_from_file_location("_cuda", str(library), loader=loader)
        assert spec is not None
        self.module: ModuleType = importlib.util.module_from_spec(spec)
        loader.exec_module(self.module)
        self._library = ctypes.CDLL(str(library))

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._library, f"emulated_{name}")
        function.restype = ctypes.c_int64

        def call(*arguments: Any) -> Any:
            return function(*(ctypes.c_int64(a) if isinstance(a, int) else a for a in arguments))

        return call

    def holds(self, data: bytes) -> bool:
        """Whether these bytes stand in device memory."""
        return bool(self._library.emulated_holds(data, ctypes.c_int64(len(data))))


def _digest() -> str:
    """Of every source that the build may read."""
    digest = hashlib.blake2b(digest_size=12)
    for folder in ("csrc", "tests/cpp"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".cpp", ".hpp", ".cu", ".cuh"):
                digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@functools.cache
def emulated() -> Emulated:
    """WARPMEM_EMULATED_CUDA names a folder to keep builds in, for those who run the tests often."""
    kept = os.environ.get("WARPMEM_EMULATED_CUDA")
    if kept:
        place = Path(kept) / _digest()
        if not place.exists():
            made = Path(tempfile.mkdtemp(prefix="build-", dir=_made(Path(kept))))
            _build(made)
            with contextlib.suppress(OSError):  # another session was quicker
                made.rename(place)
        return Emulated(next(place.glob("_cuda*.so")))
    folder = Path(tempfile.mkdtemp(prefix="warpmem-emulated-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Emulated(_build(folder))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
