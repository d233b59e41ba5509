"""The commands backup, backups, restore, verify and repair."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .. import upkeep
from ..records import Backup
from ..storage.reports import Fault, Lost
from .output import path_text, print_json
from .progress import Progress
from .stores import required_path

_SHOWN = 20


def backup(args: argparse.Namespace) -> int:
    """Make one backup; prints its path."""
    made = upkeep.backup(required_path(args), args.root, verify=not args.no_verify)
    if args.json:
        print_json(made)
    else:
        print(path_text(made.path))
        print(_sentence(made), file=sys.stderr)
    return 0


def backups(args: argparse.Namespace) -> int:
    """List backups, oldest first."""
    for known in upkeep.backups(args.root):
        if args.json:
            print_json(known)
        else:
            print(f"{path_text(known.path)}  {_sentence(known)}")
    return 0


def restore(args: argparse.Namespace) -> int:
    """Make a store of a backup."""
    restored = upkeep.restore(args.backup, args.path, link=not args.copy)
    print(f"restored {restored.items} items, as of {restored.at:%Y-%m-%d %H:%M:%S} UTC", file=sys.stderr)
    return 0


def verify(args: argparse.Namespace) -> int:
    """Read a store; 1 when anything is wrong."""
    with _shown("verify", args) as progress:
        report = upkeep.verify(args.path, progress=progress, limit=args.limit)
    if args.json:
        print_json(report)
        return 0 if report.ok else 1
    entries = ", ".join(f"{family} {count}" for family, count in report.entries.items())
    if report.opened:
        print(
            f"{report.items} items of {report.owners} owners, {report.sequence} changes, "
            f"model {report.model_id}"
        )
    print(f"whole entries: {entries}")
    for sentence in report.files.items():
        print("{}: {}".format(*sentence))
    for fault in report.faults:
        print(_fault(fault))
    if report.more:
        print(f"and {report.more} more; --limit shows them")
    if report.ok:
        print(f"no fault, in {report.seconds:.1f} s")
    elif report.faults:
        print(
            f"DAMAGED: {len(report.faults) + report.more} faults; restore a backup, or salvage what is whole:"
        )
        print(f"  warpmem repair {path_text(report.path)} NEW")
    else:
        print("an erasure is unfinished: open the store once to finish it, then verify it")
    return 0 if report.ok else 1


def repair(args: argparse.Namespace) -> int:
    """Salvage a store; 1 when something is lost."""
    with _shown("repair", args) as progress:
        report = upkeep.repair(args.path, args.new, progress=progress)
    if args.json:
        print_json(report)
        return 0 if report.ok else 1
    print(
        f"{report.items} items in {report.versions} versions, {report.deleted} deleted ones, "
        f"{report.owners} owners, {report.sequence} changes ({report.stubs} of them lost)"
    )
    if report.embedded:
        print(f"{report.embedded} vectors were made anew from their texts")
    for loss in report.lost[:_SHOWN]:
        print(_lost(loss))
    if len(report.lost) > _SHOWN:
        print(f"and {len(report.lost) - _SHOWN} more; --json lists them all")
    print("nothing is lost" if report.ok else f"LOST: {len(report.lost)} things")
    return 0 if report.ok else 1


def _sentence(known: Backup) -> str:
    return (
        f"{known.at:%Y-%m-%d %H:%M:%S} UTC, {known.items} items, {known.sequence} changes, "
        f"{known.bytes / 1e6:.1f} MB of which {known.shared_bytes / 1e6:.1f} MB shared, "
        f"writers waited {known.pause_seconds * 1e3:.0f} ms, "
        f"{'verified' if known.verified else 'not verified'}"
    )


def _fault(fault: Fault) -> str:
    where = f" id {fault.id}" if fault.id is not None else ""
    key = f" key {fault.key}" if fault.key is not None and fault.id is None else ""
    return f"{fault.family}{where}{key}: {fault.what}"


def _lost(loss: Lost) -> str:
    where = f"id {loss.id}" if loss.id is not None else "-"
    version = f" version {loss.version}" if loss.version is not None else ""
    return f"lost: {where}{version}: {loss.what}"


@contextmanager
def _shown(label: str, args: argparse.Namespace) -> Iterator[Callable[[str, int], None]]:
    """A function that shows progress on stderr, one line for everything."""
    enabled = args.progress or sys.stderr.isatty()
    shown = Progress(label, None, enabled=enabled, unit="entries")
    total = last = 0
    current = ""

    def update(what: str, count: int) -> None:
        nonlocal total, last, current
        total += count - (last if what == current else 0)
        last, current = count, what
        shown.update(0, total)

    try:
        yield update
    finally:
        shown.finish(0, total)
