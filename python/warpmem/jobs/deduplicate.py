"""Deduplication: of an owner's items that say the same one stays, and the others go into it.

Additions find the repetitions that are there already; what comes by imports, before `near_duplicate` was set,
or in two wordings that a third joins, they cannot. All pairs are compared: equal texts by their digest, other
wordings by the scan, which is asked for everything above the threshold that is near an item, unless nothing
else has its names and numbers.

Items are gone through by policy/repeats.rank, and each takes in what it stands for and was not taken in
before. An item and what goes into it are one change, and taking in does not change whom an item stands for;
so a run that is stopped anywhere and goes on ends where one that was not would have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from ..config import MAX_K, Deduplication
from ..memory.digests import Digests
from ..memory.similar import request_near
from ..ops.blank import is_blank
from ..ops.clock import to_datetime
from ..ops.ids import format_id
from ..policy.reconcile import is_current
from ..policy.repeats import joined, may_repeat, rank, stands_for, superseded
from ..policy.similar import names_and_numbers
from ..protocols import Transaction
from ..records import Match, Record, ScoreParams, SearchRequest
from ..types import MemoryItem
from .tools import Job, Tools, Turn

_TOGETHER: Final = 64
"""Items whose neighbours one scan looks for."""
_STEP: Final = 256
"""Repetitions that go into an item in one change."""
_NEAREST: Final = 16
_MORE: Final = 8


class _Repetition(NamedTuple):
    """What goes into another item, and the rule that allows it."""

    record: Record
    rule: str


class _Alike(NamedTuple):
    """Of an owner's items by key, those that say the same in equal texts, and those among which other
    wordings may be; only where there are others."""

    by_key: Mapping[bytes, Record]
    equal: Mapping[bytes, Sequence[Record]]
    similar: Mapping[bytes, Sequence[Record]]

    def repetitions(self, kept: Record, near: Sequence[Match]) -> Iterator[_Repetition]:
        """What an item stands for, in order. near: what the scan has found."""
        into = format_id(kept.key)
        rules: dict[bytes, str] = {}
        others = self.similar.get(kept.key)
        for _, cosine, key, *_ in near:
            if others is not None and self.similar.get(key) is others:
                rules[key] = f"reworded: near {into}, cosine {cosine:.4f}"
        for record in self.equal.get(kept.key, ()):
            rules[record.key] = f"repeated: the same text as {into}"
        item = kept.item
        for record in sorted((self.by_key[key] for key in rules), key=lambda record: rank(record.item)):
            if rank(record.item) > rank(kept.item) and stands_for(item, record.item):
                item = joined(item, record.item)
                yield _Repetition(record, rules[record.key])


class Deduplicate(Job):
    """The job "deduplicate". threshold: cosine from which another wording is one; None looks for none."""

    name = "deduplicate"

    def __init__(self, options: Deduplication, threshold: float | None) -> None:
        self._threshold = threshold if options.near else None

    def of_owner(self, tools: Tools, owner: int, turn: Turn, counts: Counter[str]) -> None:
        """See tools.Job."""
        records = _candidates(tools, owner)
        alike = self._alike(tools, records)
        gone: set[bytes] = set()
        for start in range(0, len(records), _TOGETHER):
            turn.check()
            part = [record for record in records[start : start + _TOGETHER] if record.key not in gone]
            near = self._near(tools, owner, [record for record in part if record.key in alike.similar])
            for record in part:
                if record.key not in gone:
                    self._gather(tools, owner, record, alike, near.get(record.key, ()), turn, gone, counts)

    def _alike(self, tools: Tools, records: Sequence[Record]) -> _Alike:
        equal = _groups(records, Digests(tools.log.identity.salt).duplicate)
        similar: Mapping[bytes, Sequence[Record]] = {}
        if self._threshold is not None:
            similar = _groups(records, lambda item: (item.scope, item.kind, names_and_numbers(item.text)))
        return _Alike({record.key: record for record in records}, equal, similar)

    def _gather(
        self,
        tools: Tools,
        owner: int,
        kept: Record,
        alike: _Alike,
        near: Sequence[Match],
        turn: Turn,
        gone: set[bytes],
        counts: Counter[str],
    ) -> None:
        """Put into an item what repeats it and is not gone already."""
        while True:
            before = len(gone)
            repetitions = [one for one in alike.repetitions(kept, near) if one.record.key not in gone]
            for first in range(0, len(repetitions), _STEP):
                turn.check()
                now, taken = _take_in(tools, kept, repetitions[first : first + _STEP])
                counts.update(repetition.rule.split(":")[0] for repetition in taken)
                gone.update(repetition.record.key for repetition in taken)
                if now is None:
                    return
                kept = now
            if len(near) < MAX_K or len(gone) == before:
                return
            # There may be more: what went into it is not found again.
            near = self._near(tools, owner, [kept]).get(kept.key, ())

    def _near(self, tools: Tools, owner: int, records: Sequence[Record]) -> Mapping[bytes, Sequence[Match]]:
        """By key: all that is near to each of these items, if they have their vectors; MAX_K at most."""
        if self._threshold is None or not records:
            return {}
        with tools.current.use() as serving:
            asked: list[tuple[bytes, SearchRequest]] = []
            now = tools.log.now()
            for record in records:
                if tools.log.space_of(record.key, record.item.version) == 0:
                    identity = serving.vectors.identity
                    vector = tools.log.vector(record.key, record.item.version, identity)
                    if vector is not None and not is_blank(vector):
                        aligned = np.array(vector, np.float32)
                        asked.append((record.key, request_near(owner, record.item, aligned, now)))
            found: dict[bytes, Sequence[Match]] = {}
            params, k = ScoreParams(min_similarity=self._threshold), _NEAREST
            while asked:
                matches = serving.index.search([request for _, request in asked], k, params)
                found.update((key, some) for (key, _), some in zip(asked, matches, strict=True))
                asked = [entry for entry, some in zip(asked, matches, strict=True) if len(some) == k < MAX_K]
                k = min(k * _MORE, MAX_K)
            return found


def _candidates(tools: Tools, owner: int) -> list[Record]:
    """What may repeat something or be repeated, in the order in which it is looked at."""
    now = tools.log.now()
    walk = tools.log.records(owner, order="recorded", reverse=False, after=None)
    found = [record for _, record in walk if may_repeat(record.item) and is_current(record.item, now)]
    return sorted(found, key=lambda record: rank(record.item))


def _groups(records: Sequence[Record], what: Callable[[MemoryItem], Any]) -> dict[bytes, list[Record]]:
    """By key: all records that have something in common with this one, where there is another."""
    found: dict[Any, list[Record]] = {}
    for record in records:
        found.setdefault(what(record.item), []).append(record)
    return {one.key: same for same in found.values() if len(same) > 1 for one in same}


def _take_in(
    tools: Tools, seen: Record, repetitions: Sequence[_Repetition]
) -> tuple[Record | None, list[_Repetition]]:
    """Put repetitions into an item, those that are still what they were: the item as it is then, and which
    these are. None, and nothing is changed, where the item is not what it was."""
    editor = tools.current.now.editor

    def change(transaction: Transaction) -> tuple[Record | None, list[_Repetition]]:
        kept = transaction.get(seen.key)
        if kept is None or kept.item.version != seen.item.version:
            return None, []
        item, going = kept.item, []
        for known, rule in repetitions:
            other = transaction.get(known.key)
            if other is None or other.item.version != known.item.version:
                continue
            # What somebody has reverted is not to be taken in again.
            if transaction.made_by(other.key) == "revert" or not stands_for(item, other.item):
                continue
            item = joined(item, other.item)
            going.append(_Repetition(other, rule))
        if item != kept.item:
            reason = f"joined with what repeated it: {len(going)}"
            kept = editor.revise(transaction, kept, item, None, operation="merge", reason=reason)
        now = to_datetime(transaction.now)
        for other, rule in going:
            ended = superseded(other.item, now)
            editor.revise(transaction, other, ended, None, operation="merge", reason=rule)
        return kept, going

    with tools.exchanging:
        return tools.log.transact(change)
