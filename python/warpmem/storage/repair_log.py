"""The log of a repaired store: no gaps, stubs for what is lost, an entry for every version there is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import msgspec

from ..ops.ids import KEY_BYTES
from ..records import LogEntry
from . import codec
from .erasure_values import notice, stub
from .repair_source import Source
from .repair_write import CHANGED, STUB, UNLOGGED, Writer
from .reports import Lost
from .values import decode, encode

_STEP: Final = {"add": 1, "delete": -1}
_NOBODY: Final = (None, None, None, None)


def write_log(writer: Writer, source: Source, lost: list[Lost]) -> tuple[int, int, int]:
    """Write the whole log; (its last number, the last that was found, how many stubs). Gaps are added to
    `lost`."""
    known = (int.from_bytes(key, "big") for key, _ in source.notes(STUB))
    next_stub = next(known, 0)
    previous = LogEntry(0, 0, "erase", bytes(KEY_BYTES), 0, _NOBODY, 0)
    stubs = 0
    for entry in source.log():
        missing = range(previous.sequence + 1, entry.sequence)
        if missing:
            before = max(0, entry.items - _STEP.get(entry.operation, 0))
            for sequence in missing:
                _put(writer, stub(LogEntry(sequence, previous.at, "erase", b"", 0, _NOBODY, before)))
            stubs += len(missing)
            _note_missing(missing, lost)
        # The clock of a log never goes back; only what damage made of an entry could say so.
        at = max(entry.at, previous.at)
        if entry.sequence == next_stub:
            next_stub = next(known, 0)
            entry = stub(entry)
            stubs += 1
        previous = msgspec.structs.replace(entry, at=at)
        _put(writer, previous)
    return _append(writer, source, previous, changed=bool(stubs)), previous.sequence, stubs


def _append(writer: Writer, source: Source, last: LogEntry, *, changed: bool) -> int:
    """Notices for owners whose memory changed, then entries for versions that had none."""
    added = [decode(value, LogEntry) for _, value in source.notes(UNLOGGED)]
    owners = [int.from_bytes(key, "big") for key, _ in source.notes(CHANGED)]
    before = writer.items - sum(_STEP.get(entry.operation, 0) for entry in added)
    sequence = last.sequence
    now = max(time.time_ns() // 1000, last.at)
    if not owners and (changed or added or last.items != before) and sequence + len(added) + before:
        owners = sorted(writer.owners)
    for owner in owners:
        sequence += 1
        _put(writer, notice(sequence, now, owner, before))
    items = before
    for entry in added:
        sequence += 1
        items += _STEP.get(entry.operation, 0)
        _put(writer, LogEntry(sequence, now, entry.operation, entry.key, entry.version, entry.scope, items))
    return sequence


def _put(writer: Writer, entry: LogEntry) -> None:
    writer.put("log", codec.log_key(entry.sequence), encode(entry))


def _note_missing(missing: Sequence[int], lost: list[Lost]) -> None:
    first, last = missing[0], missing[-1]
    if first == last:
        lost.append(Lost("an entry of the log", sequence=first))
    else:
        lost.append(Lost(f"entries {first} to {last} of the log", sequence=first))
