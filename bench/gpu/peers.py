"""What others do with the same data: torch and CuPy in this process, faiss and cuvs in their own.

    PYTHONPATH=$WARPMEM_GPU_PEERS python bench/gpu/peers.py faiss '{"rows": 1000, "dim": 24, ...}'

prints one number, milliseconds. faiss and cuvs want to be imported before torch; hence the processes.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Peers = dict[str, Callable[[], Any]]
ROUNDS = 9


class Unavailable(Exception):
    """What cannot be measured here; the message says why."""


def _torch(device: Any) -> Any:
    if importlib.util.find_spec("torch") is None:
        raise Unavailable("torch is not installed")
    import torch

    if not device.dry and not torch.cuda.is_available():
        raise Unavailable("torch finds no CUDA device")
    return torch


def brute_force(device: Any, rows: Any, queries: Any, k: int) -> Peers:
    """All products, then a selection."""

    def torch_mm() -> Callable[[], object]:
        torch = _torch(device)
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
    """torch.bmm over owners of equal size."""

    def bmm() -> Callable[[], object]:
        torch = _torch(device)
        x = torch.from_dlpack(rows).half().reshape(len(queries), owner_rows, -1)
        q = torch.from_dlpack(queries).half()[:, :, None]
        return lambda: torch.topk((x @ q)[:, :, 0], min(k, owner_rows), dim=1)

    return {"torch f16 bmm + topk": bmm}


def loop(device: Any, rows: Any, queries: Any, sizes: list[int], k: int) -> Peers:
    """What users of other libraries are told to do: one owner after another."""

    def one_by_one() -> Callable[[], object]:
        torch = _torch(device)
        x, q = torch.from_dlpack(rows).half(), torch.from_dlpack(queries).half()
        ends = np.cumsum(sizes).tolist()

        def call() -> None:
            begin = 0
            for i, end in enumerate(ends):
                torch.topk(x[begin:end] @ q[i], min(k, end - begin))
                begin = end

        return call

    return {"torch f16, a loop": one_by_one}


def outside() -> list[str]:
    """Peers in the folder WARPMEM_GPU_PEERS; none without it."""
    folder = os.environ.get("WARPMEM_GPU_PEERS")
    if not folder:
        return []
    return [name for name in ("faiss", "cuvs") if Path(folder, name).is_dir()]


def ask(name: str, spec: dict[str, int]) -> float:
    """A peer's milliseconds, from a process of its own. Unavailable when it fails."""
    path = os.pathsep.join((os.environ["WARPMEM_GPU_PEERS"], str(Path(__file__).parent)))
    command = [sys.executable, __file__, name, json.dumps(spec)]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{name} took more than 60 s") from None
    if done.returncode != 0:
        raise Unavailable(f"{name} failed: {done.stderr.strip().splitlines()[-1:] or done.returncode}")
    return float(done.stdout.split()[-1])


def _faiss(spec: dict[str, int], rows: Any, queries: Any) -> Callable[[], object]:
    import faiss  # type: ignore[import-not-found]

    resources = faiss.StandardGpuResources()
    config = faiss.GpuIndexFlatConfig()
    config.useFloat16, config.use_cuvs = True, False
    index = faiss.GpuIndexFlatIP(resources, spec["dim"], config)
    index.add(rows.get())
    asked = queries.get()
    return lambda: index.search(asked, spec["k"])


def _cuvs(spec: dict[str, int], rows: Any, queries: Any) -> Callable[[], object]:
    from cuvs.common import Resources  # type: ignore[import-not-found]
    from cuvs.neighbors import brute_force as exact  # type: ignore[import-not-found]

    resources = Resources()
    index = exact.build(rows, metric="inner_product", resources=resources)

    def call() -> None:
        exact.search(index, queries, spec["k"], resources=resources)
        resources.sync()

    return call


def main() -> int:
    """Measure one peer on the data of `exact` in measure.py."""
    name, spec = sys.argv[1], json.loads(sys.argv[2])
    if name == "faiss":
        import faiss  # noqa: F401
    else:
        import cuvs  # type: ignore[import-not-found] # noqa: F401
    import cupy
    import data

    rows = data.mixture(cupy, spec["rows"], spec["dim"], 1)
    queries = data.mixture(cupy, spec["batch"], spec["dim"], 2)
    call = (_faiss if name == "faiss" else _cuvs)(spec, rows, queries)
    times = []
    for _ in range(ROUNDS + 1):
        cupy.cuda.Device().synchronize()
        started = time.perf_counter()
        call()
        cupy.cuda.Device().synchronize()
        times.append((time.perf_counter() - started) * 1e3)
    print(statistics.median(times[1:]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
