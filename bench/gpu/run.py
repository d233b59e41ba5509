"""The steps of bench/gpu/run.sh: build, conformance, sanitizer, benchmarks; one JSON, its table and its plot.

A step that cannot run says why and the others go on; the exit code is 1 when a step failed. The time given is
shared out: a step is ended when its own is over, and what comes behind has what is left.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


@dataclass
class Step:
    """How one step ended: "ok", "failed", "skipped" with a reason, or "timeout"."""

    name: str
    status: str
    seconds: float = 0.0
    reason: str = ""


class Skipped(Exception):
    """A step that cannot run here; the message says why."""


class Run:
    """The steps so far, and the time that is left."""

    def __init__(self, out: Path, seconds: float, dry: bool) -> None:
        self.out, self.dry = out, dry
        self.steps: list[Step] = []
        self._end = time.monotonic() + seconds
        self.python = sys.executable
        self.environment: dict[str, str] = dict(os.environ)

    @property
    def left(self) -> float:
        return max(1.0, self._end - time.monotonic())

    def step(self, name: str, body: Callable[[], None]) -> bool:
        """Run one step and note how it ended."""
        print(f"=== {name}", flush=True)
        started = time.monotonic()
        step = Step(name, "ok")
        try:
            body()
        except Skipped as error:
            step.status, step.reason = "skipped", str(error)
        except subprocess.TimeoutExpired as error:
            step.status, step.reason = "timeout", f"more than {error.timeout:.0f} s"
        except (subprocess.CalledProcessError, OSError, ValueError) as error:
            step.status, step.reason = "failed", str(error)
        step.seconds = round(time.monotonic() - started, 2)
        self.steps.append(step)
        print(f"--- {name}: {step.status} {step.reason}", flush=True)
        return step.status == "ok"

    def call(self, *command: str | Path, limit: float, **environment: str) -> None:
        """A command with its output visible; CalledProcessError, or TimeoutExpired past its limit, when it
        is ended with all that it started."""
        arguments = [str(part) for part in command]
        limit = min(limit, self.left)
        running = subprocess.Popen(
            arguments, cwd=ROOT, env={**self.environment, **environment}, start_new_session=True
        )
        try:
            status = running.wait(limit)
        except BaseException:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            raise
        if status != 0:
            raise subprocess.CalledProcessError(status, arguments)


def build(run: Run) -> None:
    """A virtual environment that sees the host's packages, with this repository built for the device here."""
    folder = run.out / "venv"
    venv.create(folder, system_site_packages=True, with_pip=True)
    run.python = str(folder / "bin" / "python")
    run.environment["PATH"] = f"{folder / 'bin'}{os.pathsep}{run.environment['PATH']}"
    wheels = os.environ.get("WARPMEM_GPU_WHEELS")
    source = ["--no-index", "--find-links", wheels] if wheels else []
    install = [run.python, "-m", "pip", "install", "--quiet", *source]
    run.call(*install, "-r", HERE / "requirements.txt", limit=120)
    options = ["-Ccmake.define.WARPMEM_CUDA=ON"]
    architecture = compute_capability()
    if architecture is not None:
        options.append(f"-Ccmake.define.WARPMEM_CUDA_ARCHITECTURES={architecture}")
    run.call(*install, "--no-deps", "--no-build-isolation", *options, ROOT, limit=240)


def compute_capability() -> str | None:
    """That of the first device, such as "90"; None for all architectures."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=compute_cap", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    first = done.stdout.split("\n", 1)[0].strip().replace(".", "")
    return first if first.isdigit() else None


def conformance(run: Run) -> None:
    """The whole suite with the device's backends beside the others, then what only a device can show."""
    tests = ["tests/gpu"] if run.dry else ["tests/conformance", "tests/gpu"]
    plugin = [] if run.dry else ["-p", "device_backends"]
    command = [run.python, "-m", "pytest", "-q", "-x", *plugin, *tests]
    path = [str(ROOT / "tests"), *run.environment.get("PYTHONPATH", "").split(os.pathsep)]
    run.call(*command, limit=180, PYTHONPATH=os.pathsep.join(filter(None, path)))


def sanitizer(run: Run) -> None:
    """compute-sanitizer over the self-test, which runs every family of kernels."""
    tool = shutil.which("compute-sanitizer")
    if run.dry or tool is None:
        raise Skipped("a dry run" if run.dry else "compute-sanitizer is not on PATH")
    check = "from warpmem import _cuda; assert _cuda.self_test(0)['passed']"
    for kind in ("memcheck", "racecheck"):
        run.call(tool, "--tool", kind, "--error-exitcode", "3", run.python, "-c", check, limit=60)


def measure(run: Run) -> None:
    """The benchmarks, into results.json, in the time that is left: the last workload may take a while."""
    command: list[str | Path] = [run.python, HERE / "measure.py", "--out", run.out / "results.json"]
    environment = {"WARPMEM_BENCH_SECONDS": f"{max(1.0, run.left - 40.0):.0f}"}
    if run.dry:
        command.append("--dry-run")
        environment["OMP_NUM_THREADS"] = "1"  # products of a few rows, for which threads only wait
    run.call(*command, limit=run.left, **environment)


def finish(run: Run, describe: Mapping[str, Any]) -> Path:
    """One JSON of everything, its table and its plot."""
    sys.path.insert(0, str(HERE))
    import report

    measured = run.out / "results.json"
    results: dict[str, Any] = json.loads(measured.read_text()) if measured.exists() else {"results": []}
    whole = {**describe, **results, "steps": [asdict(step) for step in run.steps]}
    path = run.out / f"{'dry-run' if run.dry else whole.get('device', 'device')}.json"
    report.write(path, whole)
    _forget(measured)
    return path


def _forget(measured: Path) -> None:
    for ending in (".json", ".md", ".svg"):
        measured.with_suffix(ending).unlink(missing_ok=True)


def main() -> int:
    """Run all steps."""
    parser = argparse.ArgumentParser(description="Build, test and measure on a GPU host.")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    _forget(arguments.out / "results.json")
    run = Run(arguments.out.resolve(), arguments.minutes * 60, arguments.dry_run)
    if run.dry or run.step("build", lambda: build(run)):
        run.step("conformance", lambda: conformance(run))
        run.step("sanitizer", lambda: sanitizer(run))
        run.step("measure", lambda: measure(run))
    path = finish(run, {"dry_run": run.dry})
    print(f"written: {path}, {path.with_suffix('.md').name} and {path.with_suffix('.svg').name}")
    return 1 if any(step.status in ("failed", "timeout") for step in run.steps) else 0


if __name__ == "__main__":
    sys.exit(main())
