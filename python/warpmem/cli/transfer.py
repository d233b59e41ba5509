"""The commands export and import: items as JSON lines (memory/exporting.py, memory/lines.py)."""

from __future__ import annotations

import argparse
import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from typing import IO

from ..errors import InputError, NotFound, StoreError
from ..memory import Memory
from ..memory.importing import ImportReport
from .progress import Progress
from .stores import open_store, scope_of


def export(args: argparse.Namespace) -> int:
    """Write the items of one scope, or of all owners."""
    scope = scope_of(args)
    with open_store(args, read_only=True) as memory:
        file = sys.stdout.buffer if args.file == "-" else args.file
        count = memory.export(file, scope=scope, vectors=args.vectors)
    print(f"exported {count} items", file=sys.stderr)
    return 0


def import_file(args: argparse.Namespace) -> int:
    """Add every line. What was imported before an error stays, and the next run goes on there."""
    with _source(args.file) as stream, open_store(args, read_only=False) as memory:
        items = memory.stats().items
        progress = Progress("import", _size(stream), enabled=args.progress or sys.stderr.isatty())
        done = lines = 0

        def update(so_far: int, number: int) -> None:
            nonlocal done, lines
            done, lines = so_far, number
            progress.update(so_far, number)

        try:
            report = memory.import_(
                stream,
                scope=scope_of(args),
                kind=args.kind,
                enforce_scope=args.enforce_scope,
                batch=args.batch,
                skip_errors=args.skip_errors,
                again=args.again,
                say=lambda text: print(f"warpmem: {text}", file=sys.stderr),
                progress=update,
            )
        finally:
            progress.finish(done, lines)
        _report(report, memory, items)
    return 1 if report.stopped else 0


def _report(report: ImportReport, memory: Memory, items: int) -> None:
    actions = ", ".join(f"{action} {count}" for action, count in sorted(report.stored.items()))
    text = f"imported {sum(report.stored.values())} lines" + (f" ({actions})" if actions else "")
    if report.skipped:
        text += f", skipped {report.skipped}"
    if report.before:
        text += f", passed over {report.before} that were imported before"
    with contextlib.suppress(StoreError, NotFound):
        text += f"; {items} items in the store before, {memory.stats().items} after"
    print(text, file=sys.stderr)


@contextlib.contextmanager
def _source(name: str) -> Iterator[IO[bytes]]:
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = open(name, "rb")  # noqa: SIM115 (errors of the body are not to be caught)
    except OSError as error:
        raise InputError(f"cannot read {name!r}: {error.strerror}") from error
    with stream:
        yield stream


def _size(stream: IO[bytes]) -> int | None:
    """Bytes of a regular file, else None."""
    try:
        status = os.fstat(stream.fileno())
    except OSError:  # a stream without a file descriptor
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
