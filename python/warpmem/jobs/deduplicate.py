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

from ..config import Deduplication
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
_NEAREST: Final = 16
_MORE: Final = 8


class _Repetition(NamedTuple):
    """What goes into another item, and the rule that allows it."""

    record: Record
    rule: str


class Deduplicate(Job):
    """The job "deduplicate". threshold: cosine from which another wording is one; None looks for none."""

    name = "deduplicate"

    def __init__(self, options: Deduplication, threshold: float | None) -> None:
        self._threshold = threshold if options.near else None

    def of_owner(self, tools: Tools, owner: int, turn: Turn, counts: Counter[str]) -> None:
        """See tools.Job."""
        records = _candidates(tools, owner)
        digests = Digests(tools.log.identity.salt)
        equal = _alike(records, digests.duplicate)
        similar: Mapping[bytes, Sequence[Record]] = {}
        if self._threshold is not None:
            similar = _alike(records, lambda item: (item.scope, item.kind, names_and_numbers(item.text)))
        by_key = {record.key: record for record in records}
        gone: set[bytes] = set()
        for start in range(0, len(records), _TOGETHER):
            turn.check()
            part = [record for record in records[start : start + _TOGETHER] if record.key not in gone]
            near = self._near(tools, owner, [record for record in part if record.key in similar])
            for record in part:
                if record.key in gone:
                    continue
                others = similar.get(record.key)
                reworded = [
                    (by_key[match[2]], match[1])
                    for match in near.get(record.key, ())
                    if others is not None and similar.get(match[2]) is others
                ]
                rules = _rules(record, equal.get(record.key, ()), reworded)
                found = [one for one in rules if one.record.key not in gone]
                if found:
                    turn.check()
                    gone |= _take_in(tools, record, found, counts)

    def _near(self, tools: Tools, owner: int, records: Sequence[Record]) -> Mapping[bytes, Sequence[Match]]:
        """By key: all that is near to each of these items, which have their vectors."""
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
                asked = [entry for entry, some in zip(asked, matches, strict=True) if len(some) == k]
                k *= _MORE
            return found


def _candidates(tools: Tools, owner: int) -> list[Record]:
    """What may repeat something or be repeated, in the order in which it is looked at."""
    now = tools.log.now()
    walk = tools.log.records(owner, order="recorded", reverse=False, after=None)
    found = [record for _, record in walk if may_repeat(record.item) and is_current(record.item, now)]
    return sorted(found, key=lambda record: rank(record.item))


def _alike(records: Sequence[Record], what: Callable[[MemoryItem], Any]) -> dict[bytes, list[Record]]:
    """By key: all records that have something in common with this one, where there is another."""
    found: dict[Any, list[Record]] = {}
    for record in records:
        found.setdefault(what(record.item), []).append(record)
    return {one.key: same for same in found.values() if len(same) > 1 for one in same}


def _rules(
    record: Record, equal: Sequence[Record], reworded: Sequence[tuple[Record, float]]
) -> Iterator[_Repetition]:
    """What an item stands for, in order. reworded: what is near it, with the cosines."""
    into = format_id(record.key)
    rules = {other.key: (other, f"reworded: near {into}, cosine {cosine:.4f}") for other, cosine in reworded}
    rules |= {other.key: (other, f"repeated: the same text as {into}") for other in equal}
    item = record.item
    for other, rule in sorted(rules.values(), key=lambda entry: rank(entry[0].item)):
        if rank(other.item) > rank(record.item) and stands_for(item, other.item):
            item = joined(item, other.item)
            yield _Repetition(other, rule)


def _take_in(
    tools: Tools, record: Record, repetitions: Sequence[_Repetition], counts: Counter[str]
) -> set[bytes]:
    """Put repetitions into an item, those that are still what they were; which these are."""
    editor = tools.current.now.editor

    def change(transaction: Transaction) -> list[_Repetition]:
        kept = transaction.get(record.key)
        if kept is None or kept.item.version != record.item.version:
            return []
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
            editor.revise(transaction, kept, item, None, operation="merge", reason=reason)
        gone = to_datetime(transaction.now)
        for other, rule in going:
            ended = superseded(other.item, gone)
            editor.revise(transaction, other, ended, None, operation="merge", reason=rule)
        return going

    with tools.exchanging:
        going = tools.log.transact(change)
    counts.update(repetition.rule.split(":")[0] for repetition in going)
    return {repetition.record.key for repetition in going}
