"""Importing a file of JSON lines (lines.py), from where an earlier run of it was left (ledger.py)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING

import msgspec

from ..embed.weights import PROBE
from ..errors import DeadlineExceeded, InputError, ModelError, Overloaded, WarpmemError
from ..protocols import Log
from ..types import Scope
from .item_line import read_lines
from .ledger import ExportedLines, Ledger
from .lines import Importer
from .vectors import background

if TYPE_CHECKING:
    from .facade import Memory

_LISTED = 1000


class ImportReport(msgspec.Struct, frozen=True):
    """What became of the lines of a file.

    stored    lines that were stored by this call, by what that did: {"added": 7, "touched": 1}
    before    lines that earlier calls had stored: of the same file, and exported ones of any file
    refused   (line, error) of the first thousand lines that were refused. The next call for the file tries
              them again
    stopped   the last of them ended the import, and lines after it were not read
    """

    stored: dict[str, int]
    before: int
    refused: tuple[tuple[int, str], ...]
    skipped: int
    stopped: bool


def import_file(
    memory: Memory,
    log: Log,
    file: str | os.PathLike[str] | IO[bytes],
    scope: Scope | None,
    kind: str | None,
    *,
    enforce_scope: bool,
    batch: int,
    skip_errors: bool,
    again: bool,
    say: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> ImportReport:
    """See Memory.import_."""
    refused: list[tuple[int, str]] = []

    def refuse(number: int, error: WarpmemError) -> None:
        text = f"{type(error).__name__}: line {number}: {error}"
        if len(refused) < _LISTED:
            refused.append((number, text))
        if ledger is not None:
            ledger.refuse(number)
        say(text)

    with _source(file) as stream, background("import"):
        ledger = _ledger(stream, log, scope, kind)
        importer = Importer(
            memory, scope, kind, batch, ExportedLines(log), enforce_scope=enforce_scope,
            skip_errors=skip_errors, again=again, answers=lambda modality: _answers(memory, modality),
            refused=refuse, say=say,
            stored=lambda number: None if ledger is None else ledger.stored(number),
        )  # fmt: skip
        number = first = 0 if ledger is None else _resume(stream, ledger, importer, again=again)
        done = 0
        for number, line in () if importer.stopped else read_lines(stream, first):
            done += len(line)
            if ledger is not None:
                ledger.take(line)
            importer.take(number, line)
            progress(done, number)
            if importer.stopped:
                break
        importer.finish()
        if ledger is not None and not importer.stopped:
            ledger.stored(number, finished=True)
    return ImportReport(
        dict(importer.actions), importer.known, tuple(refused), importer.skipped, importer.stopped
    )


def _answers(memory: Memory, modality: str) -> bool:
    """Whether the model of a modality embeds a fixed text: then another that it failed at is to blame."""
    space = memory._spaces.of(modality)
    try:
        if space is None:
            memory._current.now.vectors.embed([PROBE], "document")
        else:
            space.of_texts([PROBE], [])
    except (ModelError, InputError, Overloaded, DeadlineExceeded):
        return False
    return True


def _ledger(stream: IO[bytes], log: Log, scope: Scope | None, kind: str | None) -> Ledger | None:
    """None for a stream that cannot be read twice."""
    if not getattr(stream, "seekable", bool)():
        return None
    start = stream.tell()
    _, first = next(read_lines(stream), (0, b""))
    stream.seek(start)
    return Ledger(log, scope, kind, first)


def _resume(stream: IO[bytes], ledger: Ledger, importer: Importer, *, again: bool) -> int:
    """Read the file's first lines, as far as they are known: pass over those that are stored, and try those
    that were refused; how many. again: none."""
    start = stream.tell()
    known = ledger.find(read_lines(stream))
    stream.seek(start)
    if again or not known:
        return 0
    importer.since = ledger.began
    refused = frozenset(ledger.refused)
    for number, line in read_lines(stream):
        ledger.take(line, is_stored=number not in refused)
        if number in refused:
            importer.take(number, line)
        else:
            importer.pass_over(number, line)
        if number == known or importer.stopped:
            break
    return known


@contextlib.contextmanager
def _source(file: str | os.PathLike[str] | IO[bytes]) -> Iterator[IO[bytes]]:
    if not isinstance(file, (str, os.PathLike)):
        yield file
        return
    try:
        stream = open(file, "rb")  # noqa: SIM115 (errors of the body are not to be caught)
    except OSError as error:
        raise InputError(f"cannot read {os.fspath(file)!r}: {error.strerror}") from error
    with stream:
        yield stream
