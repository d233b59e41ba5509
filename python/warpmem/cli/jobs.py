"""The command that looks after what is remembered."""

from __future__ import annotations

import argparse

from .output import print_json
from .stores import open_store


def run(args: argparse.Namespace) -> int:
    """Run jobs and print what came of each."""
    with open_store(args, read_only=False) as memory:
        reports = memory.run_jobs(args.names or None, seconds=args.seconds)
    for report in reports:
        if args.json:
            print_json(report)
        else:
            done = ", ".join(f"{count} {what}" for what, count in report.done.items()) or "nothing to do"
            print(f"{report.job:12} {'finished' if report.finished else 'stopped'}  {done}")
    if not reports and not args.json:
        print("no jobs are configured: name one, or configure it, such as forgetting")
    return 0
