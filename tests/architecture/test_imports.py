"""The layers of ARCHITECTURE.md, and what `import warpmem` may do."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

_WATCHED_IMPORT = """
import json, sys, threading, time
import numpy
events = []
watched = ("socket.", "_thread.start", "subprocess.", "os.fork")
sys.addaudithook(lambda event, args: events.append(event) if event.startswith(watched) else None)
before = set(sys.modules)
start = time.perf_counter()
import warpmem
seconds = time.perf_counter() - start
print(json.dumps({
    "events": events,
    "threads": threading.active_count(),
    "modules": sorted(set(sys.modules) - before),
    "seconds": seconds,
}))
"""

_HEAVY = (
    "cupy", "google.protobuf", "grpc", "httpx", "numba", "onnxruntime", "pydantic", "requests", "rocksdict",
    "safetensors", "tokenizers", "torch", "wordllama", "warpmem._cuda",
)  # fmt: skip


def _fresh_import() -> dict[str, object]:
    """What a new interpreter saw while it imported warpmem, numpy being there already."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _WATCHED_IMPORT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert isinstance(report, dict)
    return report


def test_import_contracts_hold():
    """import-linter's contracts in pyproject.toml: layers, and foreign packages only in adapters."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as main; main()",
            "--no-cache",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kept, 0 broken" in done.stdout


def test_import_opens_no_socket_and_starts_no_thread_or_process():
    report = _fresh_import()
    assert report["events"] == []
    assert report["threads"] == 1


def test_import_leaves_heavy_packages_alone():
    modules = _fresh_import()["modules"]
    assert isinstance(modules, list)
    loaded = [
        name for name in _HEAVY if any(module == name or module.startswith(name + ".") for module in modules)
    ]
    assert loaded == []
    assert "warpmem.index.vector_index" not in modules, "imported when VectorIndex is first named"


def test_import_is_fast():
    """The target is 150 ms beyond numpy's own (bench/bench_import.py); a busy machine gets twice that."""
    seconds = [float(str(_fresh_import()["seconds"])) for _ in range(5)]
    assert statistics.median(seconds) < 0.300, f"imports took {seconds} seconds"


@pytest.mark.skipif(importlib.util.find_spec("warpmem._cuda") is None, reason="this build has no CUDA module")
def test_cuda_module_imports_without_a_driver():
    """Availability is asked at run time: no device is a number and a reason, never an import error."""
    code = "from warpmem import _cuda; print(_cuda.device_count(), _cuda.unavailable_reason())"
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=hidden
    )
    assert done.returncode == 0, done.stderr
    count, reason = done.stdout.strip().split(" ", 1)
    assert int(count) == 0
    assert reason != "None"


def test_the_tests_cannot_connect():
    """tests/conftest.py refuses connections by address and by name, so no test depends on a network."""
    refused = pytest.raises(AssertionError, match="opens no connection")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client, refused:
        client.connect(("127.0.0.1", 9))
    with pytest.raises(AssertionError, match="opens no connection"):
        socket.getaddrinfo("localhost", 9)
