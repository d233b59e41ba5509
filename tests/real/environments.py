"""Virtual environments of their own for real packages, whose pins would not go together with ours."""

from __future__ import annotations

import os
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path

import warpmem

QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""No telemetry, no downloads of models, one thread."""

TORCH = "torch==2.13.*"
"""One release, of which an index with builds for the CPU alone gives that one; PyPI's brings CUDA along."""


def environment(root: Path, name: str, packages: Sequence[str], alone: Sequence[str] = ()) -> Path:
    """The Python of the environment `name` under `root` with `packages`, and those in `alone` without what
    they ask for; made when it is not there yet."""
    folder = root / name
    python = folder / "bin" / "python"
    done = folder / "packages.txt"
    wanted = "\n".join((*packages, *alone))
    if not done.is_file() or done.read_text().strip() != wanted:
        venv.create(folder, with_pip=True, clear=True)
        # Bytecode of what is imported is made then; of all that is installed it would take as long again.
        install = [python, "-m", "pip", "install", "--quiet", "--no-compile"]
        subprocess.run([*install, *packages], check=True, timeout=1800)
        if alone:
            subprocess.run([*install, "--no-deps", *alone], check=True, timeout=1800)
        done.write_text(wanted)
    return python


def variables() -> dict[str, str]:
    """The environment for a program of such an environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
    return {**kept, **QUIET}


def with_warpmem(folder: Path) -> dict[str, str]:
    """The same for a program that imports this warpmem, without what is installed beside it."""
    (folder / "path").mkdir()
    (folder / "path" / "warpmem").symlink_to(Path(warpmem.__file__).parent)
    return {**variables(), "PYTHONPATH": str(folder / "path")}


def folder_of(python: Path, package: str) -> Path:
    """Where an environment has a package; it is not imported."""
    code = "import importlib.util, sys; print(importlib.util.find_spec(sys.argv[1]).origin)"
    found = subprocess.run([python, "-c", code, package], check=True, capture_output=True, text=True)
    return Path(found.stdout.strip()).parent
