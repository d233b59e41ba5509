"""The coverage of kernels, from gcov's reports; nothing is compiled."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kernel_coverage


def report(file: str, counts: dict[int, int]) -> dict[str, Any]:
    lines = [{"line_number": line, "count": count} for line, count in counts.items()]
    return {"current_working_directory": "/", "files": [{"file": file, "lines": lines}]}


def test_a_line_counts_when_any_test_or_instance_ran_it():
    kernel = str(kernel_coverage.KERNELS / "some.cuh")
    two = report(kernel, {3: 0, 4: 2, 8: 0})
    two["files"][0]["lines"].append({"line_number": 8, "count": 5})
    lines = kernel_coverage.merge(
        [report(kernel, {3: 0, 4: 0, 9: 0}), two, report("/usr/include/x.h", {1: 1})]
    )
    assert lines == {Path(kernel): {3: 0, 4: 2, 8: 5, 9: 0}}
    text, share = kernel_coverage.table(lines)
    assert "| some.cuh | 4 | 50.0 % | 3, 9 |" in text
    assert share == 50.0


def test_what_was_missed_is_told_in_ranges():
    assert kernel_coverage.missed({1: 0, 2: 0, 5: 0, 6: 1, 7: 0, 9: 3, 10: 0}) == "1-5, 7, 10"
    assert kernel_coverage.missed({1: 1}) == ""


def test_nothing_compiled_is_a_failure(tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr("sys.argv", ["kernel_coverage.py", str(tmp_path)])
    assert kernel_coverage.main() == 1


def test_the_saved_table_has_every_file_of_kernels():
    """After a change of the kernels write it again, as its heading says."""
    text = (kernel_coverage.ROOT / "bench" / "gpu" / "COVERED.md").read_text()
    reached = dict(re.findall(r"^\| (\w+\.cuh) \| \d+ \| ([\d.]+) % \|", text, re.MULTILINE))
    files = {path.name for path in kernel_coverage.KERNELS.glob("*.cuh")}
    assert files - set(reached) <= {"intrinsics.cuh"}  # in the emulator it is simt.hpp
    assert set(reached) <= files
    assert min(map(float, reached.values())) > 90.0
