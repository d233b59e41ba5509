"""warpmem._cuda without a device: the module's own sources, with the SIMT emulator in place of a
device's processors and a fake one in place of CUDA's runtime (tests/cpp). Built once a session, into a
temporary folder; a build that fails is not tried again by every test."""

from __future__ import annotations

import atexit
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
    "csrc/bindings/device_kmeans.cpp",
    "csrc/bindings/device_encode.cpp",
    "csrc/bindings/device_select.cpp",
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


def emulated() -> Emulated:
    """WARPMEM_EMULATED_CUDA names a folder to keep builds in, for those who run the tests often."""
    made = _made()
    if isinstance(made, Exception):
        raise made
    return made


@functools.cache
def _made() -> Emulated | Exception:
    folder = Path(tempfile.mkdtemp(prefix="warpmem-emulated-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        kept = os.environ.get("WARPMEM_EMULATED_CUDA")
        return Emulated(_kept(Path(kept), folder) if kept else _build(folder))
    except (AssertionError, ImportError, OSError) as error:
        return error


def _kept(kept: Path, folder: Path) -> Path:
    """The build of these very sources. Others who run tests meanwhile find it whole or not at all."""
    digest = hashlib.sha256(repr((FLAGS, SOURCES)).encode())
    ours = ROOT / "tests/cpp"
    for source in sorted([*(ROOT / "csrc").rglob("*"), *ours.glob("*.hpp"), *ours.glob("emulated_*")]):
        if source.is_file():
            digest.update(source.name.encode() + source.read_bytes())
    library = kept / f"_cuda-{digest.hexdigest()[:16]}{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not library.exists():
        kept.mkdir(parents=True, exist_ok=True)
        part = library.with_name(f"{library.name}.{os.getpid()}")
        shutil.copyfile(_build(folder), part)
        part.replace(library)
    return library
