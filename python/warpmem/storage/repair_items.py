"""What becomes of one item, given everything whole that was found of it: values in, values out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..ops.ids import format_id
from ..records import MAKES_VERSION, NEVER, LogEntry
from .reports import Lost
from .values import HistoryValue, ItemValue

Embed = Callable[[str], "NDArray[np.float32]"]
"""text -> its vector, (dim,) float32 of unit length."""


class Evidence(msgspec.Struct):
    """Everything whole that was found of one item.

    items    what once stood in family items, newest first, up to a deletion
    removed  the last thing that was done in family items was to delete it
    gone     (tag of the family, version) that were deleted last
    unread   payload of what waits for a language model to read it; empty: nothing
    waiting  versions that wait for their vector, and since when; dimension: that it will have
    space    number of the one that its vectors lie in
    """

    key: bytes
    items: list[ItemValue] = []
    removed: bool = False
    versions: dict[int, HistoryValue] = {}
    vectors: dict[int, NDArray[np.float32]] = {}
    gone: set[tuple[bytes, int]] = set()
    log: list[LogEntry] = []
    waiting: dict[int, int] = {}
    unread: bytes = b""
    dimension: int = 0
    space: int = 0

    def forget(self, erased: Collection[int]) -> list[LogEntry]:
        """Leave out past versions that are being erased; the log entries that tell of them."""
        if not erased:
            return []
        self.items = [item for item in self.items if item.version not in erased]
        for versions in (self.versions, self.vectors, self.waiting):
            for number in erased:
                versions.pop(number, None)
        told: list[LogEntry] = []
        left: list[LogEntry] = []
        for entry in self.log:  # a deletion names the last version, and stays
            (told if entry.version in erased and entry.operation != "delete" else left).append(entry)
        self.log = left
        return told


class Outcome(msgspec.Struct):
    """What is stored of one item. current None: deleted, or nothing is left of it. stubs: sequences of log
    entries that tell of what is not there. unlogged: what no entry tells of, to be appended."""

    current: ItemValue | None = None
    history: dict[int, HistoryValue] = {}
    vectors: dict[int, NDArray[np.float32]] = {}
    stubs: list[int] = []
    unlogged: list[LogEntry] = []
    lost: list[Lost] = []
    embedded: int = 0


def settle(found: Evidence, embed: Embed | None) -> Outcome:
    """Decide on one item. Without `embed`, what has lost its vector cannot be current any more: its text
    then stands in history, as that of a deleted item does."""
    out = Outcome()
    marks = {number: past for number, past in found.versions.items() if past.item is None}
    deletions = [entry for entry in found.log if entry.operation == "delete"]
    deleted = bool(marks or deletions or found.removed)
    versions = _versions(found)
    newest = max((entry.version for entry in found.log), default=0)
    if versions and not deleted:
        _settle_live(found, versions, newest, embed, out)
        deleted = out.current is None
    else:
        _settle_past(versions, out)
    if deleted and (versions or deletions):
        _mark_deletion(found, marks, deletions, versions, out)
    _settle_log(found, out)
    return out


def _versions(found: Evidence) -> dict[int, ItemValue]:
    """Every version that is whole somewhere, oldest first: those that were current once, and those of
    history, which know when they ended."""
    versions: dict[int, ItemValue] = {}
    for item in found.items:
        known = versions.get(item.version)
        if known is None or item.touched_at > known.touched_at:
            versions[item.version] = item
    for number, past in found.versions.items():
        if past.item is not None:
            versions[number] = past.item
    return dict(sorted(versions.items()))


def _settle_live(
    found: Evidence, versions: dict[int, ItemValue], newest: int, embed: Embed | None, out: Outcome
) -> None:
    """The newest whole version is current; those before it are history."""
    last = max(versions)
    for number, item in versions.items():
        vector = _vector(found, versions, item, embed, out)
        if vector is None:
            if number == last:
                out.lost.append(Lost("its vector, and no embedder was given; its text stands in history",
                                     format_id(found.key), number))  # fmt: skip
                out.current, out.vectors, out.history = None, {}, {}
                _settle_past(versions, out)
                return
            out.lost.append(Lost("its vector, and no embedder was given", format_id(found.key), number))
            continue
        out.vectors[number] = vector
        if number == last:
            out.current = msgspec.structs.replace(item, retired_at=NEVER)
        else:
            out.history[number] = _past(versions, number)
    assert out.current is not None
    if newest > last:
        out.lost.append(
            Lost(f"version {newest}; version {last} stands in its place", format_id(found.key), newest)
        )
    touches = [entry.at for entry in found.log if entry.operation == "touch" and entry.version == last]
    if touches and max(touches) > out.current.touched_at:
        out.lost.append(Lost("when it was last touched", format_id(found.key), last))


def _settle_past(versions: dict[int, ItemValue], out: Outcome) -> None:
    for number in versions:
        out.history[number] = _past(versions, number)


def _past(versions: dict[int, ItemValue], number: int) -> HistoryValue:
    """A version as history holds it. One found in family items ended where the next one was recorded."""
    item = versions[number]
    if item.retired_at == NEVER:
        later = [other.recorded_at for version, other in versions.items() if version > number]
        item = msgspec.structs.replace(item, retired_at=min(later, default=item.touched_at))
    return HistoryValue(item.operation, item.recorded_at, item)


def _vector(
    found: Evidence, versions: dict[int, ItemValue], item: ItemValue, embed: Embed | None, out: Outcome
) -> NDArray[np.float32] | None:
    """The version's own vector, that of another version with the same text, zeros while it waits for one, or
    a new one."""
    for number in (item.version, *found.vectors):
        other = versions.get(number)
        if number in found.vectors and other is not None and other.text == item.text:
            return found.vectors[number]
    if item.version in found.waiting and not found.space:
        return np.zeros(found.dimension, np.float32)
    if embed is None or found.space or not item.text:
        return None
    out.embedded += 1
    return embed(item.text)


def _mark_deletion(
    found: Evidence,
    marks: dict[int, HistoryValue],
    deletions: Sequence[LogEntry],
    versions: dict[int, ItemValue],
    out: Outcome,
) -> None:
    """One mark, one above the last version, and one log entry that says so."""
    if deletions:
        last, at = deletions[-1].version, deletions[-1].at
    elif marks:
        last, at = max(marks) - 1, marks[max(marks)].at
    else:
        last = max(versions, default=0)
        at = max((item.touched_at for item in versions.values()), default=0)
    out.history[last + 1] = HistoryValue("delete", at, None)
    if not deletions:
        scope = versions[max(versions)].scope if versions else (None, None, None, None)
        out.unlogged.append(LogEntry(0, at, "delete", found.key, last, scope, 0))


def _settle_log(found: Evidence, out: Outcome) -> None:
    """Entries of versions that are not there become stubs; versions without an entry get one."""
    there = {number: past.item for number, past in out.history.items() if past.item is not None}
    if out.current is not None:
        there[out.current.version] = out.current
    deleted = any(past.item is None for past in out.history.values())
    named = {loss.version for loss in out.lost}
    told: set[int] = set()
    for entry in found.log:
        kept = deleted if entry.operation == "delete" else entry.version in there
        if entry.operation in MAKES_VERSION:
            # Once is enough: a second entry of one version can only be what damage made of another.
            kept = kept and entry.version not in told
            told.add(entry.version)
        if not kept:
            out.stubs.append(entry.sequence)
            if entry.operation in MAKES_VERSION and entry.version not in named:
                out.lost.append(Lost("a version", format_id(found.key), entry.version, entry.sequence))
    for number, item in there.items():
        if number not in told:
            operation = item.operation if item.operation in MAKES_VERSION else "update"
            out.unlogged.append(LogEntry(0, item.recorded_at, operation, found.key, number, item.scope, 0))
