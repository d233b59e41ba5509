"""What others do with the same data: torch and CuPy in this process, faiss and cuvs in their own.

faiss and cuvs want to be imported before torch, hence the processes (peer_process.py). They lie in the folder
WARPMEM_GPU_PEERS, or where run.py has set them up beside its environment, or else in ~/peer-site.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import packs

Peers = dict[str, Callable[[], Any]]


FEW = 32
"""Queries up to which a full sort of all scores is measured: of 1,024 it would take 40 GB."""


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


def _asked(device: Any, queries: Any, answer: Callable[[Any], Any]) -> Callable[[], object]:
    """A call of torch with these queries. Those of the host go up, and what `answer` gives comes down, within
    the call; those of the device stay there."""
    torch = torch_of(device)
    if not isinstance(queries, np.ndarray):
        there = torch.from_dlpack(queries)
        return lambda: answer(there)
    where = "cpu" if device.dry else "cuda"
    here = torch.from_numpy(queries)
    return lambda: [part.cpu() for part in answer(here.to(where))]


def brute_force(device: Any, rows: Any, queries: Any, k: int) -> Peers:
    """All products, then a selection; by CuPy, which selects by sorting, for few queries alone."""

    def torch_mm() -> Callable[[], object]:
        torch = torch_of(device)
        x = torch.from_dlpack(rows).bfloat16()
        return _asked(device, queries, lambda q: torch.topk(q.bfloat16() @ x.T, k, dim=1))

    def arrays() -> Callable[[], object]:
        xp = device.xp

        def call() -> object:
            scores = xp.asarray(queries) @ rows.T
            found = xp.argpartition(-scores, k, axis=1)[:, :k]
            return found.get() if isinstance(queries, np.ndarray) and not device.dry else found

        return call

    found = {"torch bf16 mm + topk": torch_mm}
    if len(queries) <= FEW:
        found["numpy" if device.dry else "cupy f32"] = arrays
    return found


def padded_batches(device: Any, rows: Any, queries: Any, owner_rows: int, k: int) -> Peers:
    """torch.bmm over owners of equal size. rows: float16."""

    def bmm() -> Callable[[], object]:
        torch = torch_of(device)
        x = torch.from_dlpack(rows).reshape(len(queries), owner_rows, -1)
        k_ = min(k, owner_rows)
        return _asked(device, queries, lambda q: torch.topk((x @ q.half()[:, :, None])[:, :, 0], k_, dim=1))

    return {"torch f16 bmm + topk": bmm}


def loop(device: Any, rows: Any, queries: Any, sizes: list[int], k: int, most: Any = None) -> Peers:
    """What users of other libraries are told to do: one owner after another. rows: float16. most: of query
    i, the largest last digit of a row's number that passes its filter."""

    def one_by_one() -> Callable[[], object]:
        torch = torch_of(device)
        x = torch.from_dlpack(rows)
        digits = torch.arange(len(rows), device=x.device) % 10 if most is not None else None
        ends = np.cumsum(sizes).tolist()

        def answer(queries: Any) -> list[Any]:
            q, begin, found = queries.half(), 0, []
            for i, end in enumerate(ends):
                scores = x[begin:end] @ q[i]
                if digits is not None:
                    scores = scores.masked_fill(digits[begin:end] > int(most[i]), -torch.inf)
                values, places = torch.topk(scores, min(k, end - begin))
                found += [values, places]
                begin = end
            return [torch.cat(found[0::2]), torch.cat(found[1::2])]

        return _asked(device, queries, answer)

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
    given, beside = os.environ.get("WARPMEM_GPU_PEERS"), Path(sys.prefix) / "peer-site"
    if given and not packs.packs(Path(given)):  # packs are not yet what can be imported
        return Path(given)
    return beside if beside.is_dir() else Path.home() / "peer-site"


def outside() -> list[str]:
    """The peers in that folder."""
    return [name for name in ("faiss", "cuvs") if (folder() / name).is_dir()]


def ask(name: str, task: str, spec: dict[str, Any], seconds: float) -> tuple[dict[str, Any], str | None]:
    """(what peer_process.py measures of a task in a process of its own, why that is not everything, or None):
    one that fails, or takes longer than `seconds`, has told the cases before. Unavailable without it."""
    here = Path(__file__).resolve().parent
    if name not in outside():
        raise Unavailable(f"{name} is not in {folder()}")
    command = [sys.executable, str(here / "peer_process.py"), name, task, json.dumps(spec)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder()), str(here)))}
    told: dict[str, Any] = {}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        try:
            status = subprocess.run(
                command, env=environment, stdout=out, stderr=errors, timeout=max(1.0, seconds), check=False
            ).returncode
            failure = f"{name} failed: {_last(errors) or status}" if status != 0 else None
        except subprocess.TimeoutExpired:
            failure = f"{name} took more than {seconds:.0f} s"
        out.seek(0)
        for line in out.read().splitlines():
            with contextlib.suppress(ValueError):  # a library's own words, or half a line
                part = json.loads(line)
                told |= part if isinstance(part, dict) else {}
    return told, failure


def _last(file: IO[str]) -> str:
    """The last line that was written."""
    file.seek(0)
    return (file.read().strip().splitlines() or [""])[-1]


class Asked:
    """Peers that are asked once: what one measured, or why it did not, is told again."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[dict[str, Any], str | None]] = {}

    def ask(self, name: str, task: str, spec: dict[str, Any], seconds: float, case: str) -> Any:
        """What a peer measured of a case. Unavailable when it did not come to it."""
        if name not in self._told:
            try:
                self._told[name] = ask(name, task, spec, seconds)
            except Unavailable as error:
                self._told[name] = ({}, str(error))
        told, failure = self._told[name]
        if case not in told:
            raise Unavailable(failure or f"{name} said nothing of {case}")
        return told[case]
