"""The commands export and import: items as JSON lines.

An exported line holds every public field of an item, its scope as flat ids, times as ISO 8601. Lines are in
the order of each owner's first item, then of first recording. Superseded and expired items are exported;
deleted ones, earlier versions and vectors are not. An import gives new ids and recorded times, and embeds
again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

from ..errors import InputError, NotFound, StoreError
from ..memory import Memory
from ..types import MemoryItem, Scope
from .lines import Importer, read_lines
from .output import item_fields, to_json
from .progress import Progress
from .stores import all_owners, open_store, scope_of

_PAGE = 1000

# ------------------------------------------------------------------------------------- export


def export(args: argparse.Namespace) -> int:
    """Write the items of one scope, or of all owners."""
    scope = scope_of(args)
    with open_store(args, read_only=True) as memory:
        scopes = all_owners(memory) if scope is None else iter([scope])
        if args.file == "-":
            count = _write(memory, scopes, sys.stdout.buffer)
        else:
            count = _write_file(memory, scopes, Path(args.file))
    print(f"exported {count} items", file=sys.stderr)
    return 0


def _write(memory: Memory, scopes: Iterator[Scope], stream: IO[bytes]) -> int:
    count = 0
    for scope in scopes:
        for item in _items(memory, scope):
            stream.write(to_json(item_fields(item)).encode("utf-8") + b"\n")
            count += 1
    stream.flush()
    return count


def _write_file(memory: Memory, scopes: Iterator[Scope], path: Path) -> int:
    """Write beside `path` and rename, so that `path` is never half an export."""
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.absolute().parent, prefix=f".{path.name}.", delete=False
        ) as part:
            try:
                count = _write(memory, scopes, part)
                os.fsync(part.fileno())
                os.chmod(part.name, 0o666 & ~_umask())
                os.replace(part.name, path)
            except BaseException:
                os.unlink(part.name)
                raise
    except OSError as error:
        raise InputError(f"cannot write {os.fspath(path)!r}: {error.strerror}") from error
    return count


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _items(memory: Memory, scope: Scope) -> Iterator[MemoryItem]:
    cursor: str | None = None
    while True:
        page = memory.list(scope, include_past=True, limit=_PAGE, cursor=cursor)
        yield from page.items
        cursor = page.cursor
        if cursor is None:
            return


# ------------------------------------------------------------------------------------- import


def import_file(args: argparse.Namespace) -> int:
    """Add every line; see lines.py for their forms. What was imported before an error stays."""
    with _source(args.file) as stream, open_store(args, read_only=False) as memory:
        before = memory.stats().items
        importer = Importer(memory, scope_of(args), args.kind, args.batch, skip_errors=args.skip_errors)
        progress = Progress("import", _size(stream), enabled=args.progress or sys.stderr.isatty())
        done = 0
        try:
            for number, line in read_lines(stream):
                done += len(line)
                importer.take(number, line)
                progress.update(done, number)
                if importer.stopped:
                    break
            importer.finish()
        finally:
            progress.finish(done, importer.count)
            _report(importer, memory, before)
    return 1 if importer.stopped else 0


def _report(importer: Importer, memory: Memory, before: int) -> None:
    actions = ", ".join(f"{action} {count}" for action, count in sorted(importer.actions.items()))
    text = f"imported {importer.count} lines" + (f" ({actions})" if actions else "")
    if importer.skipped:
        text += f", skipped {importer.skipped}"
    with contextlib.suppress(StoreError, NotFound):  # the error under way says more
        text += f"; {before} items in the store before, {memory.stats().items} after"
    print(text, file=sys.stderr)


@contextlib.contextmanager
def _source(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = open(name, "rb")  # noqa: SIM115 (errors of the body are not to be caught)
    except OSError as error:
        raise InputError(f"cannot read {name!r}: {error.strerror}") from error
    with stream:
        yield stream


def _size(stream: BinaryIO) -> int | None:
    """Bytes of a regular file, else None."""
    try:
        status = os.fstat(stream.fileno())
    except OSError:  # a stream without a file descriptor
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
