"""Results in one JSON file, a table of them in Markdown and a picture beside it.

    python bench/gpu/report.py --out all.json some.json more.json

joins files of measure.py; a later measurement of a workload takes the place of an earlier one, a reason why
there is none does not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import plot

Result = dict[str, Any]
FIGURES = (
    "owners", "recall", "queries_per_second", "raw_queries_per_second", "texts_per_second",
    "host_texts_per_second", "p50_ms", "p99_ms", "raw_index_ms", "idle_p99_ms", "busy_p99_ms", "hit_rate",
    "optimum", "wrong", "whole_ms", "device_ms", "device_arrays_ms",
)  # fmt: skip
"""What the table tells of a result beside its times."""


class Report:
    """The file of a run. Each result is written when it is there: what ends a run leaves the others."""

    def __init__(self, path: Path, device: str) -> None:
        self._path = path
        self._report = json.loads(path.read_text()) if path.exists() else {"results": []}
        if self._report["results"] and self._report.get("device") != device:
            raise SystemExit(f"{path} has results of {self._report.get('device')}, not of {device}")
        self._report["device"] = device
        write(path, self._report)

    def add(self, result: Result) -> None:
        """Take a result in, and write everything."""
        self._report["results"] = join(self._report["results"], [result])
        write(self._path, self._report)


def join(known: Sequence[Result], new: Sequence[Result]) -> list[Result]:
    """By workload: what is new takes the place of what is known, unless it is only the reason of a gap, or
    not complete."""
    joined = {result["workload"]: result for result in known}
    for result in new:
        before = joined.get(result["workload"])
        gap = before is None or before.get("interim") or not measured(before)
        if gap or (measured(result) and not result.get("interim")):
            joined[result["workload"]] = result
    return list(joined.values())


def write(path: Path, report: dict[str, Any]) -> None:
    """The JSON file, its table (.md) and its picture (.svg)."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(report, indent=1) + "\n")
    part.replace(path)
    path.with_suffix(".md").write_text(table(report))
    path.with_suffix(".svg").write_text(plot.svg(report["results"]))


def table(report: dict[str, Any]) -> str:
    """Everything in Markdown: a table for each family, then what was left out."""
    results: list[Result] = report["results"]
    lines = [f"# Measured on {report.get('device', 'a device')}", ""]
    if any(result.get("dry_run") for result in results):
        lines += ["A dry run: NumPy in the device's place, tiny sizes. No figure means anything.", ""]
    judged = [result for result in results if "met" in result]
    met = sum(result["met"] is True for result in judged)
    open_ = sum(result["met"] is None for result in judged)
    lines += [
        f"Targets of {len(judged)} workloads: {met} met, {len(judged) - met - open_} not, {open_} open.",
        "",
    ]
    for family in dict.fromkeys(result["family"] for result in results):
        head = "| workload | ours ms | floor ms | peers, as multiples of ours | figures | targets | met |"
        lines += [f"## {family}", "", head, "| --- | ---: | ---: | --- | --- | --- | --- |"]
        for result in results:
            if result["family"] == family and measured(result):
                lines.append(_row(result))
        lines.append("")
    sizes = crossovers(results)
    if sizes:
        lines += ["## Where the device begins to be faster than the host", ""]
        for batch, (rows, largest) in sizes.items():
            where = f"from {rows} rows on" if rows is not None else f"not up to {largest} rows"
            lines.append(f"- {batch} {'query' if batch == 1 else 'queries'} at a time: {where}")
        lines += ["", "| a million of | costs on the device | on the host |", "| --- | ---: | ---: |"]
        lines += [
            f"| {r['workload']} | {r['device_cost_per_million']:.4g} | {r['host_cost_per_million']:.4g} |"
            for r in results
            if "device_cost_per_million" in r and "host_cost_per_million" in r
        ]
        lines.append("")
    steps = [step for step in report.get("steps", []) if step["status"] != "ok"]
    if steps:
        lines += ["## Steps that did not end well", ""]
        lines += [f"- {step['name']}: {step['status']}, {_ends(step['reason'])}" for step in steps]
        lines.append("")
    left = [result for result in results if not measured(result)]
    if left:
        lines += ["## Not measured", ""]
        lines += [
            f"- {r['workload']}: {r.get('failed') or r.get('skipped', 'no reason was given')}" for r in left
        ]
        lines.append("")
    return "\n".join(lines)


def _ends(reason: str) -> str:
    """The first line, and the last one where there are more."""
    said = reason.strip().splitlines() or ["no reason was given"]
    return said[0] if len(said) == 1 else f"{said[0]}: {said[-1]}"


def measured(result: Result) -> bool:
    """Whether there is more than a reason."""
    return "skipped" not in result and "failed" not in result


def crossovers(results: Sequence[Result]) -> dict[int, tuple[int | None, int]]:
    """By batch: (the size from which on the device was always the faster one, the largest measured)."""
    found: dict[int, tuple[int | None, int]] = {}
    there = [
        r for r in results if "rows" in r and "batch" in r and "ratio" in r.get("peers", {}).get("host", {})
    ]
    for batch in sorted({result["batch"] for result in there}):
        sizes = sorted((r["rows"], r["peers"]["host"]["ratio"]) for r in there if r["batch"] == batch)
        first = None
        for rows, ratio in reversed(sizes):
            if ratio < 1.0:
                break
            first = rows
        found[batch] = (first, sizes[-1][0])
    return found


def _row(result: Result) -> str:
    peers = "; ".join(
        f"{name} {peer['ratio']:.2f}" + (f" ({peer['other']})" if "other" in peer else "")
        if "ratio" in peer
        else f"{name}: {peer['skipped']}"
        for name, peer in result.get("peers", {}).items()
    )
    targets = "; ".join(
        f"{entry['what']} {entry['wanted']}: " + ("open" if entry["got"] is None else f"{entry['got']:.3g}")
        for entry in result.get("targets", [])
    )
    met = {True: "yes", False: "**no**", None: "open"}[result["met"]] if "met" in result else ""
    floor = f"{result['floor_ms']:.3f}" if "floor_ms" in result else ""
    notes = [result["note"]] if "note" in result else []
    notes += ["it ended before its peers answered"] if result.get("interim") else []
    note = f" ({'; '.join(notes)})" if notes else ""
    ours = f"{result['ours_ms']:.3f}" if "ours_ms" in result else ""
    figures = "; ".join(f"{name} {result[name]:.4g}" for name in FIGURES if name in result)
    cells = (result["workload"] + note, ours, floor, peers, figures, targets, met)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main() -> int:
    """Join files."""
    parser = argparse.ArgumentParser(description="Join results of measure.py; table and plot beside them.")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    reports = [json.loads(file.read_text()) for file in given.files]
    devices = {report.get("device") for report in reports}
    if len(devices) > 1:
        print(f"results of different devices are not joined: {sorted(map(str, devices))}", file=sys.stderr)
        return 2
    results: list[Result] = []
    for report in reports:
        results = join(results, report["results"])
    write(given.out, {**reports[-1], "results": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
