"""The steps of bench/gpu/run.sh without a GPU: its environment, its logs, its time, its peers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

import warpmem

BENCH = Path(__file__).resolve().parents[2] / "bench" / "gpu"


@pytest.fixture(autouse=True)
def bench_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))


def said(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_environment_of_a_run_sees_the_packages_of_the_one_it_is_made_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A GPU host's Python may be a virtual environment itself, whose packages a nested one does not see."""
    pytest.importorskip("pip")
    import environment
    import pip

    venv.create(tmp_path / "host", with_pip=False, symlinks=True)
    host = tmp_path / "host" / "bin" / "python"
    packages = Path(said(host, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
    (packages / "only_on_the_host.py").write_text("VALUE = 3\n")
    (packages / "pip").symlink_to(Path(pip.__file__).parent)
    wheel = tmp_path / "wheels" / "carried-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("carried.py", "VALUE = 4\n")
        archive.writestr(
            "carried-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: carried\nVersion: 1.0\n"
        )
        archive.writestr("carried-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("carried-1.0.dist-info/RECORD", "")
    make = tmp_path / "make.py"
    make.write_text(
        "import environment, pathlib, subprocess, sys\n"
        "python = environment.create(pathlib.Path(sys.argv[1]))\n"
        "install = [*environment.pip(python), 'install', '-q', '--no-index', '--find-links', sys.argv[2]]\n"
        "subprocess.run([*install, 'carried'], check=True)\n"
        "print(python)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(BENCH))
    python = said(host, make, tmp_path / "venv", wheel.parent).splitlines()[-1]
    assert python == str(tmp_path / "venv" / "bin" / "python")
    assert said(python, "-c", "import carried, only_on_the_host as o; print(o.VALUE + carried.VALUE)") == "7"
    assert (tmp_path / "venv" / "lib").exists() and not list(packages.glob("carried*"))
    environment.create(tmp_path / "venv")  # taken up again
    assert said(python, "-c", "import carried; print(carried.VALUE)") == "4"


def test_steps_that_fail_or_take_too_long_do_not_end_the_run(tmp_path: Path):
    import run as steps

    run: Any = steps.Run(tmp_path, 60, dry=True)

    def absent() -> None:
        raise steps.Skipped("there is none")

    assert run.step("works", lambda: run.call("true", limit=5))
    assert not run.step("fails", lambda: run.call("false", limit=5))
    assert not run.step("hangs", lambda: run.call("sleep", "5", limit=0.2))
    assert not run.step("absent", absent)
    assert [step.status for step in run.steps] == ["ok", "failed", "timeout", "skipped"]
    path = steps.finish(run, {"dry_run": True})
    named = [step["name"] for step in json.loads(path.read_text())["steps"]]
    assert named == ["works", "fails", "hangs", "absent"]


def test_a_step_keeps_its_log_and_tells_the_end_of_it(tmp_path: Path):
    import run as steps

    run: Any = steps.Run(tmp_path, 60, dry=True)
    lines = "import sys; out = (sys.stdout, sys.stderr)\n"
    lines += "for i in range(100): print(f'line {i}', file=out[i % 2], flush=True)\n"
    run.step("works", lambda: run.call(sys.executable, "-c", lines, limit=30))
    run.step("fails", lambda: run.call(sys.executable, "-c", f"{lines}sys.exit(3)", limit=30))
    run.step("hangs", lambda: run.call("sh", "-c", "echo begun; sleep 60", limit=1.0), log="fails")
    works, fails, hangs = run.steps
    assert works.reason == "" and "line 0\n" in (tmp_path / "works.log").read_text()
    assert fails.reason.startswith("exit status 3\n") and fails.reason.count("line") == 40
    assert fails.reason.endswith("line 99\n")
    assert hangs.status == "timeout" and hangs.reason == "more than 1 s\nbegun\n"
    kept = (tmp_path / "fails.log").read_text()
    assert kept.count("line ") >= 100 and kept.endswith("begun\n")
    assert "exit status 3" in steps.finish(run, {}).with_suffix(".md").read_text()


def test_what_takes_too_long_ends_with_all_that_it_started(tmp_path: Path):
    import run as steps

    run: Any = steps.Run(tmp_path, 60, dry=True)
    started = tmp_path / "started"
    script = f"sleep 60 & echo $! >{started}.part; mv {started}.part {started}; wait"
    assert not run.step("hangs", lambda: run.call("sh", "-c", script, limit=1.0))
    process = Path("/proc", started.read_text().strip(), "stat")
    end = time.monotonic() + 10
    while process.exists() and process.read_text().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < end, "it still runs"
        time.sleep(0.01)


def test_a_family_that_breaks_its_process_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import run as steps

    monkeypatch.setattr(steps, "HERE", tmp_path)
    (tmp_path / "measure.py").write_text(
        "import json, os, sys\n"
        "given = dict(zip(sys.argv[1::2], sys.argv[2::2]))\n"
        "out, family, seconds = given['--out'], given['--family'], given['--seconds']\n"
        "if family == 'owners-384': os.abort()\n"
        "results = json.load(open(out))['results'] if os.path.exists(out) else []\n"
        "results.append({'workload': family, 'family': family, 'ours_ms': float(seconds)})\n"
        "json.dump({'device': 'D', 'results': results}, open(out, 'w'))\n"
    )
    run: Any = steps.Run(tmp_path, 250, dry=False)
    steps.measure(run, ["exact-384", "owners-384", "changes", "memory"], behind=170.0)
    ended = {step.name: step.status for step in run.steps}
    assert ended == {
        "measure exact-384": "ok",
        "measure owners-384": "failed",
        "measure memory": "ok",
        "measure changes": "ok",
    }
    run._end = time.monotonic() + 180.0
    steps.measure(run, ["training"], behind=170.0)
    assert run.steps[-1].status == "skipped" and "--family training" in run.steps[-1].reason
    report = json.loads(steps.finish(run, {}).read_text())
    seconds = {result["workload"]: result["ours_ms"] for result in report["results"]}
    assert set(seconds) == {"exact-384", "memory", "changes"}
    assert 60.0 <= seconds["exact-384"] <= 80.0 and seconds["changes"] == 40.0


def test_a_second_call_joins_what_the_first_one_measured(tmp_path: Path):
    import run as steps

    def once(step: str, workload: str) -> dict[str, Any]:
        run: Any = steps.Run(tmp_path, 60, dry=False)
        run.step(step, lambda: None)
        found = {"device": "D", "results": [{"workload": workload, "family": "f", "ours_ms": 1.0}]}
        (tmp_path / "results.json").write_text(json.dumps(found))
        whole: dict[str, Any] = json.loads(steps.finish(run, {"dry_run": False}).read_text())
        return whole

    once("build", "a")
    whole = once("measure", "b")
    assert [result["workload"] for result in whole["results"]] == ["a", "b"]
    assert [step["name"] for step in whole["steps"]] == ["build", "measure"]
    assert not (tmp_path / "results.json").exists()


def test_a_tool_of_the_sanitizer_does_not_silence_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import run as steps

    tool = tmp_path / "compute-sanitizer"
    tool.write_text('#!/bin/sh\necho "checked by $2"\n[ "$2" = racecheck ]\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    run: Any = steps.Run(tmp_path, 60, dry=False)
    assert not run.step("sanitizer", lambda: steps.sanitizer(run))
    assert "memcheck: exit status 1" in run.steps[0].reason
    assert "checked by racecheck" in (tmp_path / "sanitizer.log").read_text()
    monkeypatch.setattr(steps.shutil, "which", lambda name, path=None: None)
    none: Any = steps.Run(tmp_path, 60, dry=False)
    assert not none.step("sanitizer", lambda: steps.sanitizer(none))
    assert none.steps[0].status == "skipped" and "neither on PATH" in none.steps[0].reason
    monkeypatch.undo()
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    late: Any = steps.Run(tmp_path, 5, dry=False)
    assert not late.step("sanitizer", lambda: steps.sanitizer(late))
    assert late.steps[0].status == "skipped" and "--steps sanitizer" in late.steps[0].reason


@pytest.mark.parametrize("xdist", [True, False])
def test_the_devices_tests_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, xdist: bool):
    import run as steps

    asked = tmp_path / "asked"
    python = tmp_path / "python"
    settings = "$NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS $PYTEST_DISABLE_PLUGIN_AUTOLOAD"
    has = f'[ "$1" != -c ] || exit {int(not xdist)}'
    python.write_text(f'#!/bin/sh\n{has}\necho "{settings} $*" >>{asked}; exit 1\n')
    python.chmod(0o755)
    run: Any = steps.Run(tmp_path, 60, dry=False)
    run.python = str(python)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert not run.step("conformance", lambda: steps.conformance(run))
    begin = "0 1 -m pytest -q --maxfail=50 -W default -p device_backends" + " -p xdist.plugin -n 8" * xdist
    assert asked.read_text().splitlines() == [
        f"{begin} tests/gpu",
        f"{begin} tests/conformance -k cuda or cupy",
        f"{begin} tests/conformance -k not (cuda or cupy)",
    ]
    assert run.steps[0].reason.count("exit status 1") == 3


@pytest.mark.parametrize("beside", [True, False])
def test_packs_of_peers_are_set_up_beside_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool
):
    import packs
    import run as steps

    folder, site = tmp_path / "peers" / "packs", tmp_path / "site"
    for name in ("cuvs", "faiss"):
        (folder / name).mkdir(parents=True)
        (folder / name / "part.tar.xz").write_bytes(b"")
    run: Any = steps.Run(tmp_path, 60, dry=True)
    with pytest.raises(steps.Skipped, match=r"no setup\.sh"):
        packs.set_up(run, folder, site)
    script = (folder.parent if beside else folder) / "setup.sh"
    script.write_text(f'mkdir -p "$PEER_SITE/$(basename "$1")"; echo x >>{tmp_path}/times\n')
    assert run.step("peers", lambda: packs.set_up(run, folder, site))
    assert sorted(path.name for path in site.iterdir() if path.is_dir()) == ["cuvs", "faiss"]
    (folder / "faiss" / "part.tar.xz").write_bytes(b"another")
    monkeypatch.chdir(folder.parent)
    assert run.step("peers", lambda: packs.set_up(run, Path(folder.name), site))
    assert len((tmp_path / "times").read_text()) == 2 * 3  # twice, and what has changed
    assert run.environment["WARPMEM_GPU_PEERS"] == str(site)
    with pytest.raises(steps.Skipped, match="no packs"):
        packs.set_up(run, site, site)
    script.write_text('[ "$(basename "$1")" = faiss ] && touch "$PEER_SITE/again"\n')
    for name in ("cuvs", "faiss"):
        (folder / name / "part.tar.xz").write_bytes(b"one more")
    with pytest.raises(steps.Failed, match="cuvs: exit status 1"):
        packs.set_up(run, folder, site)
    assert (site / "again").exists()


def test_peers_of_an_earlier_call_are_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import run as steps

    monkeypatch.delenv("WARPMEM_GPU_PEERS", raising=False)
    run: Any = steps.Run(tmp_path, 60, dry=False, venv=tmp_path / "venv")
    assert not run.step("peers", lambda: steps.peers(run)) and run.steps[0].status == "skipped"
    (tmp_path / "venv" / "peer-site").mkdir(parents=True)
    assert run.step("peers", lambda: steps.peers(run))
    assert run.environment["WARPMEM_GPU_PEERS"] == str(tmp_path / "venv" / "peer-site")


def test_small_grids_warn_nobody():
    """Numba warns of every launch with fewer than 128 blocks, which lists of an owner are."""
    pytest.importorskip("numba")
    code = (
        "import warnings; warnings.simplefilter('error')\n"
        "from warpmem.index import numba_cuda\n"
        "from numba.cuda import dispatcher\n"
        "assert not dispatcher.config.CUDA_LOW_OCCUPANCY_WARNINGS\n"
        "dispatcher._LaunchConfiguration(numba_cuda.scan_kernel, (1, 1, 1), (256, 1, 1), 0, 0)\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def test_tools_of_a_toolkit_are_found_without_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import run as steps

    for folder in ("bin", "compute-sanitizer"):
        (tmp_path / "kit" / folder).mkdir(parents=True)
        tool = tmp_path / "kit" / folder / f"tool-in-{folder}"
        tool.write_text("#!/bin/sh\n")
        tool.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "kit"))
    assert steps.toolkits("tool-in-bin") == str(tmp_path / "kit" / "bin" / "tool-in-bin")
    assert steps.toolkits("tool-in-compute-sanitizer") is None
    monkeypatch.delenv("CUDA_HOME")
    assert steps.toolkits("tool-in-bin") is None
    nvcc = tmp_path / "kit" / "bin" / "nvcc"
    nvcc.write_text("#!/bin/sh\n")
    nvcc.chmod(0o755)
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "nvcc").symlink_to(nvcc)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert steps.toolkits("tool-in-bin") == str(tmp_path / "kit" / "bin" / "tool-in-bin")


def test_what_is_built_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import run as steps

    asked, root = tmp_path / "asked", tmp_path / "root"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$*" >>{asked}\n')
    python.chmod(0o755)
    (root / "csrc").mkdir(parents=True)
    (root / "csrc" / "a.cu").write_text("one")
    (tmp_path / "venv").mkdir()
    monkeypatch.setattr(steps, "ROOT", root)
    monkeypatch.setattr(steps.environment, "pip", lambda python: [python])

    def builds() -> int:
        run: Any = steps.Run(tmp_path, 60, dry=False, venv=tmp_path / "venv")
        run.python = str(python)
        before = len(asked.read_text().splitlines()) if asked.exists() else 0
        assert run.step("build", lambda: steps.build(run)), run.steps
        return len(asked.read_text().splitlines()) - before

    assert (builds(), builds()) == (2, 0)
    (root / "csrc" / "a.cu").write_text("two")
    assert (builds(), builds()) == (2, 0)
    python.write_text("#!/bin/sh\nexit 1\n")
    (root / "csrc" / "a.cu").write_text("three")
    run: Any = steps.Run(tmp_path, 60, dry=False, venv=tmp_path / "venv")
    run.python = str(python)
    for _ in range(2):  # what failed is not taken for built
        assert not run.step("build", lambda: steps.build(run))


@pytest.mark.parametrize("passes", [True, False])
def test_a_device_that_fails_its_self_test_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: bool
):
    import run as steps

    done = []

    def step(name: str, ends: int) -> Any:
        def body(run: Any, *_: Any) -> None:
            done.append(name)
            run.call("sh", "-c", f"echo {name}; exit {ends}", limit=10)

        return body

    for name in ("build", "peers", "conformance", "sanitizer"):
        monkeypatch.setattr(steps, name, step(name, 0))
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{{\"families\": 1}}'; exit {int(not passes)}\n")
    python.chmod(0o755)
    monkeypatch.setattr(steps.Run, "enter", lambda run: setattr(run, "python", str(python)))
    monkeypatch.setattr(steps, "measure", lambda run, *rest: done.append("measure"))
    monkeypatch.setattr("sys.argv", ["run.py", "--out", str(tmp_path), "--venv", str(tmp_path / "venv")])
    assert steps.main() == int(not passes)
    assert done == ["build", *(["peers", "measure"] if passes else []), "conformance", "sanitizer"]
    assert '{"families": 1}' in (tmp_path / "build.log").read_text()
    done.clear()
    monkeypatch.setattr("sys.argv", ["run.py", "--out", str(tmp_path), "--steps", "peers"])
    assert steps.main() == 0 and done == ["peers"]  # where packs and wheels do not travel together


def test_families_and_their_times_are_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import run as steps

    (tmp_path / "measure.py").write_text("import sys; print(*sys.argv[1:])\n")
    monkeypatch.setattr(steps, "HERE", tmp_path)
    run: Any = steps.Run(tmp_path, 900, dry=False)
    steps.measure(run, ["ivf_pq=400", "changes"], 10.0, ["--ivf-rows", "10000000"])
    quick: Any = steps.Run(tmp_path, 900, dry=False, quick=True)
    steps.measure(quick, ["ivf_pq", "changes"], 10.0)
    told = [line for line in (tmp_path / "measure.log").read_text().splitlines() if line.startswith("--out")]
    out = f"--out {tmp_path / 'results.json'} --family"
    assert told == [
        f"{out} changes --seconds 40 --ivf-rows 10000000",
        f"{out} ivf_pq --seconds 400 --ivf-rows 10000000",
        f"{out} changes --seconds 40 --quick",
        f"{out} ivf_pq --seconds 60 --quick",
    ]
    with pytest.raises(ValueError, match="ivf is none of exact-384, "):
        steps.wish("ivf=3")
    monkeypatch.setattr("sys.argv", ["run.py", "--out", str(tmp_path), "--family", "changes=soon"])
    with pytest.raises(SystemExit):
        steps.main()


def test_a_suite_on_a_device_builds_no_emulator(tmp_path: Path):
    """It takes a minute, for each of the suite's parts, and a device takes the emulator's place."""
    tests = Path(__file__).resolve().parents[1]
    code = (
        "import emulated_cuda\n"
        "def _build(folder): raise OSError('it is built')\n"
        "emulated_cuda._build = _build\n"
        "import device_backends, pools\n"
        "cuda = pools.BACKENDS['cuda']\n"
        "try:\n    cuda.available()\n"
        "except OSError as error:\n    print(error)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "WARPMEM_EMULATED_CUDA"}
    path = os.pathsep.join((str(tests), str(Path(warpmem.__file__).parents[1])))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**environment, "PYTHONPATH": path}
    )
    assert (done.returncode, done.stdout) == (0, "it is built\n"), done.stderr
