"""The steps of bench/gpu/run.sh: build, benchmarks, conformance, sanitizer; one JSON, its table and its plot.

A step that cannot run says why and the others go on; the exit code is 1 when a step failed. The time given is
shared out: a step is ended when its own is over, and what comes behind has what is left. Measuring comes
first and has MEASURING seconds for itself; every workload proves its answers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import environment
import packs
import report
from families import NAMES, chosen
from steps import ROOT, Failed, Skipped, Steps

HERE = Path(__file__).resolve().parent
STEPS = ("build", "measure", "conformance", "sanitizer")
MEASURING, BEHIND = 300.0, 150.0
"""Seconds that are kept for measuring; and, where there are more, for what comes behind it."""
LEAST, GRACE = 20.0, 30.0
"""Seconds without which no family or check is begun; and of a last workload beyond its family's time."""


class Run(Steps):
    """The steps of one call. venv: where the environment lies; dry: nothing is built."""

    def __init__(self, out: Path, seconds: float, dry: bool, venv: Path | None = None) -> None:
        super().__init__(out, seconds)
        self.dry = dry
        self.venv = venv or ROOT / "build" / "gpu-venv"
        self.python = sys.executable

    def enter(self) -> None:
        """Everything from now on by the environment's Python."""
        self.python = environment.create(self.venv)
        tools = (self.venv / "bin", Path(sys.executable).parent)  # and those of the one that makes it
        self.environment["PATH"] = os.pathsep.join((*map(str, tools), self.environment["PATH"]))


def build(run: Run) -> None:
    """An environment that sees the host's packages, with this repository built for the device here."""
    wheels = os.environ.get("WARPMEM_GPU_WHEELS")
    source = ["--no-index", "--find-links", wheels] if wheels else []
    install = [*environment.pip(run.python), "install", "--quiet", *source]
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


def peers(run: Run) -> None:
    """Packs of peers, where there are some, beside the environment; or those of an earlier call."""
    site, given = run.venv / "peer-site", os.environ.get("WARPMEM_GPU_PEERS")
    if given is not None:
        packs.set_up(run, Path(given), site)
    elif site.is_dir():
        run.environment["WARPMEM_GPU_PEERS"] = str(site)
    else:
        raise Skipped("WARPMEM_GPU_PEERS names none")


def measure(run: Run, names: Sequence[str], behind: float) -> None:
    """Each family in a process of its own, its results into results.json, as far as the time goes."""
    for family in chosen(list(names)):

        def body(name: str = family.name, most: float = family.seconds) -> None:
            seconds = min(most, run.left - behind)
            if seconds < LEAST:
                raise Skipped(f"{max(0.0, seconds):.0f} s are left; run.sh --steps measure --family {name}")
            command: list[str | Path] = [run.python, HERE / "measure.py", "--out", run.out / "results.json"]
            command += ["--family", name, "--seconds", f"{seconds:.0f}"]
            threads = {}
            if run.dry:
                command.append("--dry-run")
                threads["OMP_NUM_THREADS"] = "1"  # products of a few rows, for which threads only wait
            run.call(*command, limit=seconds + GRACE, **threads)

        run.step(f"measure {family.name}", body, log="measure")


def conformance(run: Run) -> None:
    """What only a device can show, then the suite with the device's backends beside the others: their tests
    first, since the others' are passed anywhere."""
    device = "cuda or cupy"
    parts = [
        ["tests/gpu"],
        ["tests/conformance", "-k", device],
        ["tests/conformance", "-k", f"not ({device})"],
    ]
    plugin = [] if run.dry else ["-p", "device_backends"]
    pytest = [run.python, "-m", "pytest", "-q", "--maxfail=50", *plugin]
    path = [str(ROOT / "tests"), *run.environment.get("PYTHONPATH", "").split(os.pathsep)]
    # The suite takes warnings for errors: Numba's of small grids, and those of plugins that a host happens to
    # have.
    quiet = {"NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS": "0", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, path)), **quiet}
    commands = {" ".join(part): [*pytest, *part] for part in (parts[:1] if run.dry else parts)}
    _each(run, "conformance", commands, 240, **environment)


def sanitizer(run: Run) -> None:
    """compute-sanitizer over the self-test, which runs every family of kernels."""
    tool = shutil.which("compute-sanitizer")
    if run.dry or tool is None:
        raise Skipped("a dry run" if run.dry else "compute-sanitizer is not on PATH")
    check = "from warpmem import _cuda; assert _cuda.self_test(0)['passed']"
    options = ("--error-exitcode", "3", run.python, "-c", check)
    commands = {kind: [tool, "--tool", kind, *options] for kind in ("memcheck", "racecheck")}
    _each(run, "sanitizer", commands, 60)


def _each(
    run: Run, step: str, commands: Mapping[str, Sequence[str]], limit: float, **environment: str
) -> None:
    """Every command, whatever the others say. Failed with what failed; Skipped when there is no time for the
    first."""
    failures = []
    for i, (name, command) in enumerate(commands.items()):
        if run.left < LEAST:
            if i == 0:
                raise Skipped(f"{run.left:.0f} s are left; run.sh --steps {step}")
            failures.append(f"{name}: not begun, {run.left:.0f} s were left")
            continue
        try:
            run.call(*command, limit=limit, **environment)
        except Failed as error:
            failures.append(f"{name}: {error}")
    if failures:
        raise Failed("\n".join(failures))


def finish(run: Run, describe: Mapping[str, Any]) -> Path:
    """One JSON of everything, its table and its plot. What an earlier call measured is kept."""
    measured = run.out / "results.json"
    results: dict[str, Any] = json.loads(measured.read_text()) if measured.exists() else {"results": []}
    path = run.out / f"{'dry-run' if run.dry else results.get('device', 'device')}.json"
    known = json.loads(path.read_text()) if path.exists() and not run.dry else {"results": [], "steps": []}
    steps = {step["name"]: step for step in [*known["steps"], *(asdict(step) for step in run.steps)]}
    joined = report.join(known["results"], results["results"])
    report.write(path, {**describe, **results, "results": joined, "steps": list(steps.values())})
    _forget(measured)
    return path


def _forget(measured: Path) -> None:
    for ending in (".json", ".md", ".svg"):
        measured.with_suffix(ending).unlink(missing_ok=True)


def main() -> int:
    """Run the steps."""
    parser = argparse.ArgumentParser(description="Build, test and measure on a GPU host.")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--venv", type=Path, help="the environment's folder; build/gpu-venv by default")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument(
        "--steps", default=",".join(STEPS), help="some of build,measure,conformance,sanitizer"
    )
    parser.add_argument(
        "--family", action="append", default=[], choices=NAMES, help="only these are measured"
    )
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args()
    wanted = given.steps.split(",")
    if not set(wanted) <= set(STEPS):
        parser.error(f"--steps takes some of {', '.join(STEPS)}, not {given.steps}")
    given.out.mkdir(parents=True, exist_ok=True)
    _forget(given.out / "results.json")
    venv = given.venv.resolve() if given.venv else None
    run = Run(given.out.resolve(), given.minutes * 60, given.dry_run, venv)
    ready = run.dry or run.step("environment", run.enter)
    if ready and "build" in wanted and not run.dry:
        ready = run.step("build", lambda: build(run))
    if ready and "measure" in wanted:
        if not run.dry:
            run.step("peers", lambda: peers(run), log="build")
        behind = BEHIND if {"conformance", "sanitizer"} & set(wanted) else 10.0
        measure(run, given.family, 0.0 if run.dry else min(behind, max(10.0, run.left - MEASURING)))
    if ready and "conformance" in wanted:
        run.step("conformance", lambda: conformance(run))
    if ready and "sanitizer" in wanted:
        run.step("sanitizer", lambda: sanitizer(run))
    path = finish(run, {"dry_run": run.dry})
    print(f"written: {path}, {path.with_suffix('.md').name} and {path.with_suffix('.svg').name}")
    return 1 if any(step.status in ("failed", "timeout") for step in run.steps) else 0


if __name__ == "__main__":
    sys.exit(main())
