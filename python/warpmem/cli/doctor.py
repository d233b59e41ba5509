"""The command doctor: what is installed, what runs here and why, and whether it computes right."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from .. import __version__, compose
from ..config import Config
from ..embed.wordllama import DIMENSION, MODEL_ID, WordLlamaEmbedder
from ..errors import BackendUnavailable, EmbeddingError, MissingDependency
from ..index.cpu import CpuBackend
from ..protocols import SearchBackend
from ..storage.disk import free_bytes
from . import probe, selftest
from .output import path_text, print_json
from .stores import store_path

_CORE = ("numpy", "msgspec", "rocksdict", "wordllama", "tokenizers", "safetensors")
_OPTIONAL = {
    "onnxruntime": ("models as ONNX files: embedders, rerankers", "python -m pip install onnxruntime"),
    "grpcio": ("servers of the open inference protocol over gRPC", "python -m pip install grpcio protobuf"),
    "opentelemetry-api": ("spans of searches and adds", "python -m pip install opentelemetry-api"),
    "torch": ("the embedder torch; tensors as vectors, through DLPack", "python -m pip install torch"),
    "transformers": ("language models in this process, with torch", "python -m pip install transformers"),
    "jax": ("arrays in host memory as vectors, through DLPack", "python -m pip install jax"),
    "cupy": ("the search backend cupy, on a CUDA device", "python -m pip install cupy-cuda13x"),
    "numba": ("the search backend numba, compiled at its first use", "python -m pip install numba"),
}
_MODULES = {"grpcio": "grpc", "opentelemetry-api": "opentelemetry"}
"""Of packages whose name is another."""
_BLOCK = 4096
_FSYNCS = 20
_EMBEDDINGS = 20


def run(args: argparse.Namespace) -> int:
    """Print the findings; 1 when a check failed."""
    findings = examine(store_path(args))
    if args.json:
        print_json(findings)
    else:
        print("\n".join(_lines(findings)))
    return 0 if findings["ok"] else 1


def examine(store: str | None) -> dict[str, Any]:
    """All findings. `ok` is False when a self-test or the embedder failed, or nothing can search."""
    native = CpuBackend()
    backends = _backends(native)
    embedder = _embedder()
    try:
        chosen, reason = compose.make_backend(Config())
        choice: dict[str, Any] = {"name": chosen.name, "reason": reason}
    except BackendUnavailable as error:
        choice = {"name": None, "reason": str(error)}
    failed = any(entry["self_test"].startswith("FAIL") for entry in backends)
    cuda = probe.cuda()
    failed = failed or any(not device["self_test"]["passed"] for device in cuda["devices"])
    return {
        "ok": not failed and embedder["ok"] and choice["name"] is not None,
        "versions": {
            "warpmem": __version__,
            "python": platform.python_version(),
            **{name: probe.package_version(name) for name in _CORE},
        },
        "platform": {
            "system": platform.platform(),
            "machine": platform.machine(),
            "python_implementation": platform.python_implementation(),
            "cpus": os.cpu_count(),
        },
        "native": {"build": native.build_info(), "isas": native.isas(), "isa": _chosen_isa(native)},
        "cuda": cuda,
        "backend": choice,
        "backends": backends,
        "embedder": embedder,
        "disk": _disk(store),
        "optional": {
            name: {
                "present": probe.is_importable(_MODULES.get(name, name)),
                "version": probe.package_version(name),
                "for": use,
                "install": line,
            }
            for name, (use, line) in _OPTIONAL.items()
        },
    }


def _chosen_isa(native: CpuBackend) -> str | None:
    return None if native.available() is not None else native.pool(8, 0).isa


def _backends(native: CpuBackend) -> list[dict[str, str]]:
    """Every backend, the cpu one once for each instruction set, with the result of its self-test."""
    entries = []
    for name, backend in compose.backends().items():
        if name != "cpu":
            entries.append(_tested(name, backend))
        elif native.available() is not None:
            entries.append(_tested(name, native))
        else:
            entries.extend(_tested(f"cpu/{isa}", CpuBackend(isa)) for isa in native.isas())
    return entries


def _tested(name: str, backend: SearchBackend) -> dict[str, str]:
    reason = backend.available()
    if reason is not None:
        return {"name": name, "self_test": f"not available: {reason}"}
    difference = selftest.check(backend)
    return {"name": name, "self_test": "bit-identical" if difference is None else f"FAIL: {difference}"}


def _embedder() -> dict[str, Any]:
    """Load the default model from the installed files and time single embeddings, in milliseconds."""
    found: dict[str, Any] = {"model_id": MODEL_ID, "ok": False, "reason": None}
    started = time.perf_counter()
    try:
        model = WordLlamaEmbedder()
        shape = model.embed(["The quick brown fox."], role="query").shape
        found["load_ms"] = (time.perf_counter() - started) * 1e3
        times = []
        for i in range(_EMBEDDINGS):
            started = time.perf_counter()
            model.embed([f"Where did we leave the spare key, attempt {i}?"], role="query")
            times.append(time.perf_counter() - started)
    except (MissingDependency, EmbeddingError) as error:
        found["reason"] = f"{type(error).__name__}: {error}"
        return found
    found["dimension"] = shape[1]
    found["embed_ms"] = statistics.median(times) * 1e3
    found["ok"] = shape == (1, DIMENSION)
    return found


def _disk(store: str | None) -> dict[str, Any]:
    """Free bytes, and the median milliseconds to write and fsync 4 KiB, where the store is or would be.

    The file written is removed. A directory that cannot be written gives the reason in place of a time.
    """
    directory = Path(store if store is not None else tempfile.gettempdir()).absolute()
    while not directory.is_dir():
        directory = directory.parent
    found: dict[str, Any] = {"directory": path_text(directory), "free_bytes": free_bytes(directory)}
    times = []
    try:
        with tempfile.TemporaryFile(dir=directory, prefix=".warpmem-doctor-", buffering=0) as file:
            for _ in range(_FSYNCS):
                started = time.perf_counter()
                file.write(bytes(_BLOCK))
                os.fsync(file.fileno())
                times.append(time.perf_counter() - started)
    except OSError as error:
        return {**found, "fsync_ms": None, "reason": error.strerror}
    return {**found, "fsync_ms": statistics.median(times) * 1e3, "reason": None}


# -------------------------------------------------------------------------------------- as text


def _lines(findings: dict[str, Any]) -> list[str]:
    machine, native, embedder, disk = (findings[name] for name in ("platform", "native", "embedder", "disk"))
    lines = ["versions"]
    lines += [f"  {name:12} {version or 'not installed'}" for name, version in findings["versions"].items()]
    lines += ["machine", f"  {machine['system']}, {machine['cpus']} CPUs, {machine['python_implementation']}"]
    build = ", ".join(f"{name} {value}" for name, value in native["build"].items())
    lines += [
        "native module",
        f"  {build or 'not loaded'}",
        f"  instruction sets: {', '.join(native['isas']) or 'none'}; chosen: {native['isa'] or 'none'}",
    ]
    lines += ["cuda", *_cuda_lines(findings["cuda"])]
    lines += ["search backend", f"  {findings['backend']['name'] or 'none'}: {findings['backend']['reason']}"]
    lines += [f"  {entry['name']:12} self-test: {entry['self_test']}" for entry in findings["backends"]]
    if embedder["ok"]:
        timing = f"loaded in {embedder['load_ms']:.0f} ms, one text in {embedder['embed_ms']:.3f} ms"
        lines += [
            "embedder",
            f"  {embedder['model_id']}, {embedder['dimension']} dimensions, offline: {timing}",
        ]
    else:
        lines += ["embedder", f"  {embedder['model_id']}: FAIL: {embedder['reason']}"]
    speed = (
        f"{disk['fsync_ms']:.3f} ms" if disk["fsync_ms"] is not None else f"not measured ({disk['reason']})"
    )
    lines += [
        "disk",
        f"  {disk['directory']}: {disk['free_bytes'] / 1e9:.1f} GB free; write and fsync of 4 KiB: {speed}",
    ]
    lines.append("optional packages")
    for name, entry in findings["optional"].items():
        state = entry["version"] or "present" if entry["present"] else f"absent ({entry['install']})"
        lines.append(f"  {name:12} {state}; for {entry['for']}")
    lines.append("all checks passed" if findings["ok"] else "A CHECK FAILED")
    return lines


def _cuda_lines(cuda: dict[str, Any]) -> list[str]:
    lines = [
        f"  {'built' if cuda['built'] else 'not built'}" + (f": {cuda['reason']}" if cuda["reason"] else "")
    ]
    if "driver_version" in cuda:
        lines.append(f"  driver {cuda['driver_version']}, runtime {cuda['runtime_version']}")
    for device in cuda["devices"]:
        known = {name: value for name, value in device.items() if name != "self_test"}
        lines.append("  " + ", ".join(f"{name} {value}" for name, value in known.items()))
        lines += [f"    {line}" for line in _device_test_lines(device["self_test"])]
    return lines


def _device_test_lines(test: dict[str, Any]) -> list[str]:
    """The canonical scorer, then each family of kernels."""
    entries = {"scorer": {"cases": test.get("rows", "all"), "mismatches": test["mismatches"]}}
    entries |= test.get("families", {})
    lines = []
    for name, entry in entries.items():
        verdict = "bit-identical"
        if entry["mismatches"]:
            verdict = f"FAIL: {entry['mismatches']} of {entry['cases']} cases differ"
        lines.append(f"{name:10} self-test: {verdict}")
    return lines
