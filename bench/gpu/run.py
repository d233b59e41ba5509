"""The steps of bench/gpu/run.sh: build, self-test, benchmarks, conformance, sanitizer; JSON, table, plot.

A step that cannot run says why and the others go on; the exit code is 1 when a step failed. The time given is
shared out: a step is ended when its own is over, and what comes behind has what is left. Measuring comes
first and has MEASURING seconds for itself; every workload proves its answers. A device that fails the
self-test is not measured, since every search would be the host's: the steps that tell why have the time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
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
STEPS = ("build", "selftest", "peers", "measure", "conformance", "sanitizer")
MEASURING, BEHIND = 300.0, 150.0
"""Seconds that are kept for measuring; and, where there are more, for what comes behind it."""
LEAST, GRACE = 20.0, 30.0
"""Seconds without which no family or check is begun; and of a last workload beyond its family's time."""
QUICK = 60.0
"""Seconds that a family has at most in a quick run."""
WORKERS = 8
"""Processes of the suite, where pytest-xdist is installed: what one of them breaks on a device leaves the
others, and most of a test's time is the host's."""


class Run(Steps):
    """The steps of one call. venv: where the environment lies; dry: nothing is built."""

    def __init__(
        self, out: Path, seconds: float, dry: bool, venv: Path | None = None, quick: bool = False
    ) -> None:
        super().__init__(out, seconds)
        self.dry, self.quick = dry, quick
        self.venv = venv or ROOT / "build" / "gpu-venv"
        self.python = sys.executable

    def enter(self) -> None:
        """Everything from now on by the environment's Python."""
        self.python = environment.create(self.venv)
        tools = (self.venv / "bin", Path(sys.executable).parent)  # and those of the one that makes it
        self.environment["PATH"] = os.pathsep.join((*map(str, tools), self.environment["PATH"]))

    def has(self, module: str) -> bool:
        """Whether the run's Python sees a module."""
        command = [self.python, "-c", f"import importlib.util as u; assert u.find_spec({module!r})"]
        return subprocess.run(command, capture_output=True, env=self.environment, check=False).returncode == 0


def build(run: Run) -> None:
    """An environment that sees the host's packages, with this repository built for the device here. What an
    earlier call built of the same sources stays."""
    stamp, sources = run.venv / "built", digest()
    if stamp.exists() and stamp.read_text() == sources:
        print("built by an earlier call", flush=True)
        return
    wheels = os.environ.get("WARPMEM_GPU_WHEELS")
    source = ["--no-index", "--find-links", wheels] if wheels else []
    install = [*environment.pip(run.python), "install", "--quiet", *source]
    run.call(*install, "-r", HERE / "requirements.txt", limit=120)
    options = ["-Ccmake.define.WARPMEM_CUDA=ON"]
    architecture = compute_capability()
    if architecture is not None:
        options.append(f"-Ccmake.define.WARPMEM_CUDA_ARCHITECTURES={architecture}")
    run.call(*install, "--no-deps", "--no-build-isolation", *options, ROOT, limit=240)
    stamp.write_text(sources)


def digest() -> str:
    """Of all that the package is built of."""
    found = hashlib.sha256()
    for name in ("CMakeLists.txt", "pyproject.toml", "cmake", "csrc", "python"):
        for path in (ROOT / name, *sorted((ROOT / name).rglob("*"))):
            if path.is_file() and path.suffix not in (".so", ".pyc"):
                found.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return found.hexdigest()


def selftest(run: Run) -> None:
    """Every family of kernels once: in seconds it is known whether anything can be measured."""
    check = "import json; from warpmem import _cuda; found = _cuda.self_test(0); print(json.dumps(found)); "
    run.call(run.python, "-c", check + "assert found['passed']", limit=90)


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


def measure(run: Run, names: Sequence[str], behind: float, more: Sequence[str] = ()) -> None:
    """Each family in a process of its own, its results into results.json, as far as the time goes. names:
    of families, or NAME=SECONDS for one that may take other than its usual time. more: for measure.py."""
    given = dict(wish(name) for name in names)
    for family in chosen(list(given)):
        most = given.get(family.name) or (min(family.seconds, QUICK) if run.quick else family.seconds)

        def body(name: str = family.name, most: float = most) -> None:
            seconds = min(most, run.left - behind)
            if seconds < LEAST:
                raise Skipped(f"{max(0.0, seconds):.0f} s are left; run.sh --steps measure --family {name}")
            command: list[str | Path] = [run.python, HERE / "measure.py", "--out", run.out / "results.json"]
            command += ["--family", name, "--seconds", f"{seconds:.0f}", *more]
            threads = {}
            if run.quick:
                command.append("--quick")
            if run.dry:
                command.append("--dry-run")
                threads["OMP_NUM_THREADS"] = "1"  # products of a few rows, for which threads only wait
            run.call(*command, limit=seconds + GRACE, **threads)

        run.step(f"measure {family.name}", body, log="measure")


def wish(text: str) -> tuple[str, float | None]:
    """A family's name, and the seconds that it may take where they are given. ValueError without such a
    family or number."""
    name, _, seconds = text.partition("=")
    if name not in NAMES:
        raise ValueError(f"{name} is none of {', '.join(NAMES)}")
    return name, float(seconds) if seconds else None


def conformance(run: Run) -> None:
    """What only a device can show, then the suite with the device's backends beside the others: first
    tests of one of them alone, then those of all backends together and of the others."""
    device = "cuda or cupy"
    parts = [
        ["tests/gpu"],
        ["tests/conformance", "-k", device],
        ["tests/conformance", "-k", f"not ({device})"],
    ]
    plugin = [] if run.dry else ["-p", "device_backends"]
    workers = min(WORKERS, (os.cpu_count() or 1) // 2)
    if not run.dry and workers > 1 and run.has("xdist.plugin"):
        plugin += ["-p", "xdist.plugin", "-n", str(workers)]
    pytest = [run.python, "-m", "pytest", "-q", "--maxfail=50", "-W", "default", *plugin]
    path = [str(ROOT / "tests"), *run.environment.get("PYTHONPATH", "").split(os.pathsep)]
    # The suite takes warnings for errors, and here are whatever packages and plugins a host happens to have.
    quiet = {"NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS": "0", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, path)), **quiet}
    commands = {" ".join(part): [*pytest, *part] for part in (parts[:1] if run.dry else parts)}
    _each(run, "conformance", commands, 240, **environment)


def sanitizer(run: Run) -> None:
    """compute-sanitizer over the self-test, which runs every family of kernels."""
    tool = toolkits("compute-sanitizer")
    if run.dry or tool is None:
        raise Skipped("a dry run" if run.dry else "compute-sanitizer is neither on PATH nor in a toolkit")
    check = "from warpmem import _cuda; assert _cuda.self_test(0)['passed']"
    options = ("--error-exitcode", "3", run.python, "-c", check)
    commands = {kind: [tool, "--tool", kind, *options] for kind in ("memcheck", "racecheck")}
    _each(run, "sanitizer", commands, 150)


def toolkits(name: str) -> str | None:
    """A tool on PATH, or of a CUDA toolkit: beside nvcc, in CUDA_HOME, or in a usual place."""
    nvcc, home = shutil.which("nvcc"), os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    roots = [Path(home)] if home else []
    roots += [Path(nvcc).resolve().parents[1]] if nvcc else []
    roots += [Path("/usr/local/cuda"), *sorted(Path("/usr/local").glob("cuda-*"), reverse=True)]
    places = [str(place) for root in roots for place in (root / "bin", root / name)]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(places))


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
    parser.add_argument("--steps", default=",".join(STEPS), help=f"some of {','.join(STEPS)}")
    parser.add_argument(
        "--family", action="append", default=[], metavar="NAME[=SECONDS]", help="only these are measured"
    )
    parser.add_argument(
        "--measure", default="", metavar="OPTIONS", help="what measure.py is told beside that"
    )
    parser.add_argument("--quick", action="store_true", help="smaller sizes: what breaks, not how fast")
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args()
    wanted = given.steps.split(",")
    if not set(wanted) <= set(STEPS):
        parser.error(f"--steps takes some of {', '.join(STEPS)}, not {given.steps}")
    try:
        for name in given.family:
            wish(name)
    except ValueError as error:
        parser.error(f"--family: {error}")
    given.out.mkdir(parents=True, exist_ok=True)
    _forget(given.out / "results.json")
    venv = given.venv.resolve() if given.venv else None
    run = Run(given.out.resolve(), given.minutes * 60, given.dry_run, venv, given.quick)
    ready = run.dry or run.step("environment", run.enter)
    if ready and "build" in wanted and not run.dry:
        ready = run.step("build", lambda: build(run))
    sound = True
    if ready and "selftest" in wanted and not run.dry:
        sound = run.step("selftest", lambda: selftest(run), log="build")
    if ready and sound and {"peers", "measure"} & set(wanted) and not run.dry:
        run.step("peers", lambda: peers(run), log="build")
    if ready and sound and "measure" in wanted:
        behind = BEHIND if {"conformance", "sanitizer"} & set(wanted) else 10.0
        behind = 0.0 if run.dry else min(behind, max(10.0, run.left - MEASURING))
        measure(run, given.family, behind, shlex.split(given.measure))
    if ready and "conformance" in wanted:
        run.step("conformance", lambda: conformance(run))
    if ready and "sanitizer" in wanted:
        run.step("sanitizer", lambda: sanitizer(run))
    path = finish(run, {"dry_run": run.dry})
    print(f"written: {path}, {path.with_suffix('.md').name} and {path.with_suffix('.svg').name}")
    return 1 if any(step.status in ("failed", "timeout") for step in run.steps) else 0


if __name__ == "__main__":
    sys.exit(main())
