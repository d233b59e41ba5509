"""Runs the promises of promises.py in full: python -m tests.durability.run --full

Counts are kept in results.json beside this file, so that a run may be stopped at any time and the next one
goes on; RESULTS.md is written from it after every slice."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from durability import hostile
from durability.promises import PROMISES, Promise

FOLDER = Path(__file__).parent
STATE = FOLDER / "results.json"
TABLE = FOLDER / "RESULTS.md"


def load(path: Path = STATE) -> dict[str, Any]:
    """What earlier runs counted, by promise."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def save(results: dict[str, Any], path: Path = STATE) -> None:
    """Put the counts in the place of the old ones."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    os.replace(new, path)


def write_table(results: dict[str, Any], path: Path = TABLE) -> None:
    """RESULTS.md from the counts."""
    lines = [
        "# Durability: what was tried",
        "",
        "Written by `python -m tests.durability.run`; `results.json` holds the counts of all runs.",
        "A failure is a promise that was broken.",
        "",
        "| promise | tried | of | unit | failures | what came of it | minutes |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for promise in PROMISES:
        found = results.get(promise.name)
        if found is None:
            continue
        counts = ", ".join(f"{name} {count:,}" for name, count in sorted(found["counts"].items()))
        done = f"{found['done']:,}" + (" (all there are)" if found.get("exhausted") else "")
        cells = (promise.name, done, f"{promise.full:,}", promise.unit, len(found["failures"]), counts)
        lines.append(f"| {' | '.join(map(str, cells))} | {found['seconds'] / 60:.1f} |")
    path.write_text("\n".join(lines) + "\n")


def run_slice(promise: Promise, found: dict[str, Any], count: int) -> bool:
    """Run the next `count` cases and add them up; False when the promise was broken."""
    began, first = time.monotonic(), found["done"]
    with tempfile.TemporaryDirectory(prefix="warpmem-durability-") as folder:
        try:
            counts = promise.run(Path(folder), first, count)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            traceback.print_exc()
            found["failures"].append(f"from case {first}: {type(error).__name__}: {error}"[:500])
            found["done"] += count
            return False
        hostile.keep(Path(folder))
    found["seconds"] += time.monotonic() - began
    beyond = counts.pop("beyond the last call", 0)
    found["done"] += count - beyond
    found["exhausted"] = beyond > 0
    for name, number in counts.items():
        found["counts"][name] = found["counts"].get(name, 0) + number
    print(f"{promise.name}: {found['done']} of {promise.full}, {dict(counts)}", flush=True)
    return True


def commit() -> str:
    """The revision of the tree, or "unknown"."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.durability.run", description=__doc__)
    parser.add_argument("--full", action="store_true", help="go on until each promise has its full count")
    parser.add_argument(
        "--only", action="append", default=[], metavar="TEXT", help="promises whose names contain TEXT"
    )
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="begin no slice after so many minutes"
    )
    parser.add_argument("--list", action="store_true", help="name the promises and what has been tried")
    args = parser.parse_args(arguments)
    results = load()
    chosen = [p for p in PROMISES if not args.only or any(text in p.name for text in args.only)]
    if args.list or not args.full:
        for promise in chosen:
            done = results.get(promise.name, {"done": 0})["done"]
            print(f"{promise.name}: {done:,} of {promise.full:,} {promise.unit}")
        return 0
    ends = time.monotonic() + 60 * args.minutes
    whole = True
    while time.monotonic() < ends:
        todo = []
        for promise in chosen:
            found = results.setdefault(
                promise.name, {"done": 0, "counts": {}, "failures": [], "seconds": 0.0, "commits": []}
            )
            if found["done"] < promise.full and not found.get("exhausted"):
                todo.append((found["done"] / promise.full, promise, found))
        if not todo:
            break
        _, promise, found = min(todo, key=lambda entry: entry[0])
        if commit() not in found["commits"]:
            found["commits"].append(commit())
        whole &= run_slice(promise, found, min(promise.size, promise.full - found["done"]))
        save(results)
        write_table(results)
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
