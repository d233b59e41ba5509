"""What others do with the same data: torch and CuPy in this process, faiss and cuvs in their own.

faiss and cuvs want to be imported before torch, hence the processes (peer_process.py). They lie in the folder
WARPMEM_GPU_PEERS, or else in ~/peer-site.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Peers = dict[str, Callable[[], Any]]


class Unavailable(Exception):
    """What cannot be measured here; the message says why."""


def torch_of(device: Any) -> Any:
    """torch with a device. Unavailable without."""
    if importlib.util.find_spec("torch") is None:
        raise Unavailable("torch is not installed")
    import torch

    if not device.dry and not torch.cuda.is_available():
        raise Unavailable("torch finds no CUDA device")
    return torch


def release(device: Any) -> None:
    """Give back the memory that torch keeps for itself."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and not device.dry:
        torch.cuda.empty_cache()


def brute_force(device: Any, rows: Any, queries: Any, k: int) -> Peers:
    """All products, then a selection."""

    def torch_mm() -> Callable[[], object]:
        torch = torch_of(device)
        x, q = (torch.from_dlpack(array).bfloat16() for array in (rows, queries))
        return lambda: torch.topk(q @ x.T, k, dim=1)

    def arrays() -> Callable[[], object]:
        xp = device.xp

        def call() -> object:
            scores = queries @ rows.T
            return xp.argpartition(-scores, k, axis=1)[:, :k]

        return call

    return {"torch bf16 mm + topk": torch_mm, "numpy" if device.dry else "cupy f32": arrays}


def padded_batches(device: Any, rows: Any, queries: Any, owner_rows: int, k: int) -> Peers:
    """torch.bmm over owners of equal size. rows: float16."""

    def bmm() -> Callable[[], object]:
        torch = torch_of(device)
        x = torch.from_dlpack(rows).reshape(len(queries), owner_rows, -1)
        q = torch.from_dlpack(queries).half()[:, :, None]
        return lambda: torch.topk((x @ q)[:, :, 0], min(k, owner_rows), dim=1)

    return {"torch f16 bmm + topk": bmm}


def loop(device: Any, rows: Any, queries: Any, sizes: list[int], k: int, most: Any = None) -> Peers:
    """What users of other libraries are told to do: one owner after another. rows: float16. most: of query
    i, the largest last digit of a row's number that passes its filter."""

    def one_by_one() -> Callable[[], object]:
        torch = torch_of(device)
        x, q = torch.from_dlpack(rows), torch.from_dlpack(queries).half()
        digits = torch.arange(len(rows), device=x.device) % 10 if most is not None else None
        ends = np.cumsum(sizes).tolist()

        def call() -> None:
            begin = 0
            for i, end in enumerate(ends):
                scores = x[begin:end] @ q[i]
                if digits is not None:
                    scores = scores.masked_fill(digits[begin:end] > int(most[i]), -torch.inf)
                torch.topk(scores, min(k, end - begin))
                begin = end

        return call

    def arrays() -> Callable[[], object]:
        def call() -> None:
            begin = 0
            for i, end in enumerate(np.cumsum(sizes).tolist()):
                np.argsort(-(rows[begin:end] @ queries[i].astype(np.float16)))[:k]
                begin = end

        return call

    return {"numpy, a loop": arrays} if device.dry else {"torch f16, a loop": one_by_one}


def selection(device: Any, scores: Any, k: int) -> Peers:
    """torch.topk over the rows of scores."""

    def topk() -> Callable[[], object]:
        torch = torch_of(device)
        x = torch.from_dlpack(scores)
        return lambda: torch.topk(x, k, dim=1)

    def arrays() -> Callable[[], object]:
        return lambda: np.argpartition(-scores, k - 1, axis=1)[:, :k]

    return {"numpy": arrays} if device.dry else {"torch.topk": topk}


def lloyd(device: Any, rows: Any, centroids: Any, iterations: int) -> Peers:
    """Iterations of Lloyd's algorithm by bf16 products, as it is written in torch."""

    def torch_lloyd() -> Callable[[], object]:
        torch = torch_of(device)
        x = torch.from_dlpack(rows)
        half, start = x.bfloat16(), torch.from_dlpack(centroids)
        ones = torch.ones(len(x), device=x.device)

        def call() -> None:
            c = start
            for _ in range(iterations):
                nearest = (half @ c.bfloat16().T - 0.5 * (c * c).sum(1)).argmax(1)
                sums = torch.zeros_like(c).index_add_(0, nearest, x)
                sizes = torch.zeros(len(c), device=x.device).index_add_(0, nearest, ones)
                c = sums / sizes.clamp(min=1.0)[:, None]

        return call

    return {"torch bf16": torch_lloyd}


def folder() -> Path:
    """Where faiss and cuvs lie, if they do."""
    return Path(os.environ.get("WARPMEM_GPU_PEERS") or Path.home() / "peer-site")


def outside() -> list[str]:
    """The peers in that folder."""
    return [name for name in ("faiss", "cuvs") if (folder() / name).is_dir()]


def ask(name: str, task: str, spec: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What peer_process.py measures of a task, from a process of its own. Unavailable when it fails, or takes
    longer than `seconds`."""
    here = Path(__file__).resolve().parent
    if name not in outside():
        raise Unavailable(f"{name} is not in {folder()}")
    command = [sys.executable, str(here / "peer_process.py"), name, task, json.dumps(spec)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder()), str(here)))}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=max(1.0, seconds), check=False
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{name} took more than {seconds:.0f} s") from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise Unavailable(f"{name} failed: {said[-1] if said else done.returncode}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


class Asked:
    """Peers that are asked once: what one measured, or why it did not, is told again."""

    def __init__(self) -> None:
        self._told: dict[str, dict[str, Any] | Unavailable] = {}

    def ask(self, name: str, task: str, spec: dict[str, Any], seconds: float) -> dict[str, Any]:
        """As `ask`, the first time."""
        if name not in self._told:
            try:
                self._told[name] = ask(name, task, spec, seconds)
            except Unavailable as error:
                self._told[name] = error
        told = self._told[name]
        if isinstance(told, Unavailable):
            raise told
        return told
