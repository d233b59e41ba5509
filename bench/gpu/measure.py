"""The workloads of a device against their floors, peers and targets, on the same data in the same run.

    python bench/gpu/measure.py --out results.json [--family NAME] [--only TEXT] [--seconds 480] [--dry-run]

Data is made on the device. Every result of ours is compared with float64 products, and a workload whose
answer is wrong has no time. What matters most comes first; what does not fit into --seconds is named with the
reason. --only chooses workloads whose names have TEXT in them, --family those of a family (families.py); both
may be given several times. Results that --out holds already are kept, so several calls add up to one file; a
table (.md) and a picture (.svg) lie beside it. run.py starts one process for each family.
--dry-run: NumPy in the device's place and tiny sizes.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import report
from device import Device
from families import NAMES, chosen
from harness import QUICK, TINY, Bench, Prices, Sizes


def main() -> int:
    """Measure and write; 1 when an answer was wrong or a workload failed."""
    parser = argparse.ArgumentParser(description="Workloads of a device against floors, peers and targets.")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file, to which results are added")
    parser.add_argument("--family", action="append", default=[], choices=NAMES, help="a family")
    parser.add_argument(
        "--only", action="append", default=[], metavar="TEXT", help="part of a workload's name"
    )
    parser.add_argument("--seconds", type=float, default=480.0)
    parser.add_argument("--owners", type=int, help="at most, as memory and seconds hold")
    parser.add_argument("--fill-seconds", type=float, help="at most, to fill the owners' lists")
    parser.add_argument("--ivf-rows", type=int, help="rows of IVF-PQ, such as 10000000")
    parser.add_argument("--memory-items", type=int, help="items of the searches through Memory")
    parser.add_argument("--cpu-hour", type=float, default=Prices.cpu_hour, help="price of a host's hour")
    parser.add_argument(
        "--gpu-hour", type=float, default=Prices.gpu_hour, help="price of a device host's hour"
    )
    parser.add_argument("--quick", action="store_true", help="smaller sizes: what breaks, not how fast")
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args()
    sizes = TINY if given.dry_run else QUICK if given.quick else Sizes()
    changed = {name: getattr(given, name) for name in ("owners", "fill_seconds", "ivf_rows", "memory_items")}
    sizes = replace(sizes, **{name: value for name, value in changed.items() if value is not None})
    device = Device(given.dry_run)
    collected = report.Report(given.out, device.name)
    bench = Bench(
        device,
        sizes,
        given.seconds,
        given.only,
        Prices(given.cpu_hour, given.gpu_hour),
        collected.add,
    )
    for family in chosen(given.family):
        family.run(bench)
    bad = [r for r in bench.results if r.get("correct") is False or "failed" in r]
    for result in bad:
        print(f"{result.get('failed', 'wrong')}: {result['workload']}", file=sys.stderr)
    if not bench.results:
        print(f"no workload has one of {given.only} in its name", file=sys.stderr)
    return 1 if bad or not bench.results else 0


if __name__ == "__main__":
    sys.exit(main())
