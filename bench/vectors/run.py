"""Vector search beside faiss, hnswlib, usearch and scann: exact, approximate at equal recall, filtered, by
owner, and while rows come and go.

    python bench/vectors/run.py DATA --work DIR --real FILE.npy --out bench/results/vectors

DATA: a folder with rows.npy, queries.npy, owners.npy and query_owners.npy, as bench_scan.py takes it. What is
built is kept in DIR and not built again. A peer that is not installed is left out (`python -m pip install
faiss-cpu hnswlib usearch scann`). --only measures some parts, whose results join the file. Timed calls run
under a real-time policy where that is permitted. Takes most of an hour on an idle processor, most of it the
peers' graphs.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import approximate
import changes
import exact
import scoped
import tables
from data import Data
from systems import systems
from timing import undisturbed

import warpmem

PARTS = ("exact", "approximate", "filters", "owners", "changes")
_PACKAGES = ("faiss-cpu", "hnswlib", "usearch", "scann", "numpy")


def report(line: str) -> None:
    print(line, flush=True)


def build(data: Path, work: Path, threads: int) -> None:
    """Build what is not there yet, one after the other, each in a process of its own."""
    script = Path(__file__).with_name("build.py")
    for key in systems():
        if key in approximate.KEPT or approximate.built(work, key) is not None:
            continue
        arguments = [key, str(data / "rows.npy"), str(work / key), str(threads)]
        subprocess.run([sys.executable, str(script), *arguments], check=True)
        report(f"built {key}: {approximate.built(work, key)}")


def _versions() -> str:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} not installed")
    return ", ".join(found) + "."


def _about(data: Data) -> dict[str, Any]:
    with undisturbed() as have:
        policy = "Timed under a real-time policy." if have else "Timed beside what else the machine did."
    isa = warpmem.VectorIndex(8).stats()["isa"]
    real = int(data.real.sum())
    return {
        "rows": len(data.rows),
        "real": real,
        "made": len(data.queries) - real,
        "policy": policy,
        "versions": f"warpmem with {isa}; {_versions()}",
    }


def measure(data: Data, work: Path, parts: Sequence[str], results: dict[str, Any]) -> dict[str, Any]:
    results["about"] = _about(data)
    if "exact" in parts:
        results["exact"] = exact.compare(data, report)
    if "approximate" in parts:
        lines = approximate.compare(data, work, report)
        measured = {line["key"] for line in lines}
        kept = [line for line in results.get("approximate", ()) if line["key"] not in measured]
        results["approximate"] = kept + lines
        results["built"] = approximate.summaries(work)
        results["left_out"] = [
            system.name
            for key, system in systems().items()
            if system.family != "warpmem" and key not in results["built"]
        ]
    if "filters" in parts:
        results["filters"] = scoped.filters(data, work, report)
    if "owners" in parts:
        results["owners"] = scoped.owners(data, report)
    if "changes" in parts:
        settings = {
            line["key"]: tuple(line["setting"].values())
            for line in results["approximate"]
            if line["target"] == approximate.TARGETS[0] and line["batch"] == 1 and line["setting"]
        }
        results["changes"] = changes.compare(data, work, settings, report)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--out", type=Path, default=Path("bench/results/vectors"))
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--threads", type=int, default=2, help="of building; 0 builds nothing")
    arguments = parser.parse_args()
    parts = arguments.only.split(",")
    if not set(parts) <= set(PARTS):
        parser.error(f"--only takes {', '.join(PARTS)}")
    if arguments.threads and set(parts) - {"exact", "owners"}:
        build(arguments.data, arguments.work, arguments.threads)
    kept = arguments.out.with_suffix(".json")
    results = json.loads(kept.read_text()) if kept.exists() else {}
    results = measure(Data(arguments.data, arguments.real, arguments.work), arguments.work, parts, results)
    kept.write_text(json.dumps(results, indent=1) + "\n")
    arguments.out.with_suffix(".md").write_text(tables.markdown(results))
    approximate.check(results.get("approximate", ()))
    changes.check(results.get("changes", ()))


if __name__ == "__main__":
    main()
