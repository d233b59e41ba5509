"""Predict how long the workloads take on a device, from the bytes and operations of the chosen plans.

    python tools/cuda_predict.py [--output FILE.md] [--json FILE.json]

Compiles tools/cuda_plans.cpp, which asks the plan functions of csrc/core and counts what their kernels read
and compute, and divides by the rates below. A workload takes as long as its busiest unit:

    time = max(memory, second cache, shared memory, arithmetic, instructions) + memory alone
           + launches * 3 us + rounds * 1 us
    arithmetic = mma + float32 + float64 + integer operations, each over its rate
    instructions: of any kind, where they were counted in the compiled code
    memory alone: bytes of launches that compute next to nothing, behind or before those that do

Rates are an H200's: memory as measured by a copy, tensor products as mma.sync reaches them, everything else
clock * units, times the share that kernels usually get. Floors are the least any implementation could take;
of most, the bytes that it has to move at the rate of a copy.
A prediction is there to be compared with a run: where both differ, the model or the kernel is wrong. What
waits for hosts, queues or caches (searches through `Memory`, tiers) has no kernel time and is not here.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LAUNCH, ROUND = 3e-6, 1e-6


@dataclass(frozen=True)
class Device:
    """Rates per second."""

    name: str = "H200"
    copy: float = 4.3e12
    memory: float = 4.3e12 * 0.9
    l2: float = 5.5e12
    shared: float = 132 * 32 * 1.755e9 * 0.8
    mma: float = 1.98e15 * 0.6
    f32: float = 132 * 128 * 2 * 1.755e9 * 0.7
    f64: float = 132 * 64 * 2 * 1.755e9 * 0.5
    integer: float = 132 * 64 * 1.755e9 * 0.8
    issue: float = 132 * 128 * 1.755e9 * 0.85


FLOORS = {
    "exact, 1024 queries, 1M rows, d 384": 1.0,
    "exact, 1024 queries, 1M rows, d 768": 2.0,
    "exact, 1024 queries, 1M rows, d 1536": 4.0,
    "IVF-PQ, 10M x 768, 1 query": 0.005,
    "IVF-PQ, 10M x 768, 32 queries": 0.15,
    "IVF-PQ, 10M x 768, 1024 queries": 4.7,
    "k-means, one iteration, 256k x 768, K 1024": 0.5,
    "k-means, one iteration, 256k x 768, K 4096": 2.1,
    "PQ encode, 1M x 768, 96 codes of 4 bits": 0.5,
}
"""Milliseconds on an H200 where it is not memory that binds, or not what our plan reads. Batches of 1,024:
all products at the tensor rate. Of IVF-PQ 48 of 4,096 cells, 24.7 G codes of 96 bytes a second; codes here
are half as long. Everything else: the least bytes at the rate of a copy."""


@dataclass(frozen=True)
class Prediction:
    """A workload's time and its floor in milliseconds, and what binds it."""

    workload: str
    plan: str
    milliseconds: float
    bound: str
    bytes: float
    floor: float


def predict(work: dict[str, Any], device: Device) -> Prediction:
    """The model of the module's docstring."""
    arithmetic = sum(work[unit] / getattr(device, unit) for unit in ("mma", "f32", "f64", "integer"))
    times = {
        "memory": work["memory"] / device.memory,
        "second cache": work["l2"] / device.l2,
        "shared memory": work["shared"] / device.shared,
        "arithmetic": arithmetic,
        "instructions": work["slots"] / device.issue,
    }
    bound = max(times, key=lambda unit: times[unit])
    fixed = work["launches"] * LAUNCH + work["rounds"] * ROUND + work["alone"] / device.memory
    return Prediction(
        work["workload"],
        work["plan"],
        (times[bound] + fixed) * 1e3,
        bound if times[bound] >= fixed or work["alone"] > 0 else "launches",
        work["memory"] + work["alone"],
        FLOORS.get(work["workload"], work["least"] / device.copy * 1e3),
    )


def plans(compiler: str) -> list[dict[str, Any]]:
    """What tools/cuda_plans.cpp counts."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "plans")
        source = ROOT / "tools" / "cuda_plans.cpp"
        subprocess.run([compiler, "-std=c++17", "-O1", str(source), "-o", str(program)], check=True)
        output = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout
    found: list[dict[str, Any]] = json.loads(output)
    return found


def table(predictions: list[Prediction]) -> str:
    """Set the predictions out in Markdown."""
    lines = [
        "| workload | GB from memory | bound by | predicted ms | floor ms | floor / predicted |",
        "| --- | ---: | --- | ---: | ---: | ---: |",
    ]
    for p in predictions:
        share = f"{p.floor:.2g} | {p.floor / p.milliseconds:.2f}"
        lines.append(f"| {p.workload} | {p.bytes / 1e9:.3f} | {p.bound} | {p.milliseconds:.3f} | {share} |")
    return "\n".join(lines)


def main() -> int:
    """Compile, count, predict, print and save."""
    parser = argparse.ArgumentParser(description="Predicted times of the CUDA kernels' workloads.")
    parser.add_argument("--compiler", default=shutil.which("c++") or shutil.which("g++"))
    parser.add_argument("--output", type=Path, help="a Markdown file for the table and the plans")
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    arguments = parser.parse_args()
    if not arguments.compiler:
        print("no C++ compiler was found; name one with --compiler", file=sys.stderr)
        return 2
    device = Device()
    predictions = [predict(work, device) for work in plans(arguments.compiler)]
    print(table(predictions))
    if arguments.output is not None:
        chosen = "\n".join(f"- {p.workload}: {p.plan}" for p in predictions)
        arguments.output.write_text(
            f"# Predicted times on one {device.name}\n\n"
            "Written by `python tools/cuda_predict.py --output FILE`, which states the model. Floors of\n"
            "scans are all bytes of float16 rows; ours read 4 bits an element first and may lie below.\n"
            "Small work is far above its floor: a launch takes 3 us.\n"
            "Those of IVF-PQ are of codes of 96 bytes, whose tables bind before memory does.\n\n"
            f"{table(predictions)}\n\n## Plans\n\n{chosen}\n"
        )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([vars(p) for p in predictions], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
