"""Print which lines of csrc/cuda/kernels the emulated tests reach, file by file.

    python tools/kernel_coverage.py FOLDER [--least PERCENT] [--output FILE.md]

FOLDER holds what tests compiled with --coverage left behind (tests/cpp/run.sh coverage). A line counts when
any instance of a template, in any test, has run it. The exit code is 1 when fewer lines than PERCENT of all
are reached, or none were compiled.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "csrc" / "cuda" / "kernels"
HEADING = """\
# Which lines of the kernels the emulated tests reach

By `tests/cpp/run.sh coverage FOLDER` and then
`python tools/kernel_coverage.py FOLDER --output bench/gpu/COVERED.md`.

"""
Lines = dict[Path, dict[int, int]]


def merge(reports: Iterable[dict[str, Any]]) -> Lines:
    """How often each line of a kernel file ran, over gcov's reports in JSON."""
    lines: Lines = defaultdict(dict)
    for report in reports:
        for file in report["files"]:
            path = Path(report["current_working_directory"], file["file"]).resolve()
            if path.parent != KERNELS:
                continue
            for line in file["lines"]:
                known = lines[path].get(line["line_number"], 0)
                lines[path][line["line_number"]] = known + line["count"]
    return dict(lines)


def missed(counts: dict[int, int]) -> str:
    """The lines that never ran, as ranges: "3, 7-9". Lines without code do not part two of them."""
    ranges: list[list[int]] = []
    previous_ran = True
    for line in sorted(counts):
        if counts[line] == 0:
            if previous_ran:
                ranges.append([line, line])
            ranges[-1][1] = line
        previous_ran = counts[line] > 0
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


def table(lines: Lines) -> tuple[str, float]:
    """The table in Markdown, and the percentage of all lines that ran."""
    rows = ["| file | lines | reached | not reached |", "| --- | ---: | ---: | --- |"]
    total = ran = 0
    for path in sorted(lines):
        counts = lines[path]
        reached = sum(count > 0 for count in counts.values())
        total, ran = total + len(counts), ran + reached
        rows.append(
            f"| {path.name} | {len(counts)} | {100 * reached / len(counts):.1f} % | {missed(counts)} |"
        )
    share = 100 * ran / total if total else 0.0
    rows.append(f"| all | {total} | {share:.1f} % | |")
    return "\n".join(rows), share


def main() -> int:
    """Ask gcov, print, judge."""
    parser = argparse.ArgumentParser(description="Line coverage of the CUDA kernels by the emulated tests.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--least", type=float, default=0.0, help="percent of all lines that must be reached")
    parser.add_argument("--gcov", default="gcov")
    parser.add_argument("--output", type=Path, help="also write the table to this file, with a heading")
    arguments = parser.parse_args()
    reports: list[dict[str, Any]] = []
    for data in sorted(arguments.folder.glob("*.gcda")):
        command = [arguments.gcov, "--json-format", "--stdout", data.name]
        done = subprocess.run(command, cwd=arguments.folder, capture_output=True, text=True, check=True)
        reports.extend(json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    text, share = table(merge(reports))
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(f"{HEADING}{text}\n")
    return 0 if reports and share >= arguments.least else 1


if __name__ == "__main__":
    sys.exit(main())
