"""Deduplication: of an owner's items that say the same one stays as it is, and the others end.

Additions find the repetitions that are there already; what comes by imports, before `near_duplicate` was set,
or in two wordings that a third joins, they cannot. All pairs are compared: equal texts by their digest, other
wordings by the scan, which is asked for everything above the threshold that is near an item, unless nothing
else could end for it.

Items are gone through by policy/repeats.rank, and for each ends what it stands for and has not ended before.
That changes no item that stays, so a run that is stopped anywhere, and goes on behind the last item that it
was done with, ends where one that was not would have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from ..config import MAX_K, Deduplication
from ..memory.digests import Digests
from ..memory.similar import request_near
from ..ops.blank import is_blank
from ..ops.clock import to_datetime
from ..policy.reconcile import is_current
from ..policy.repeats import Rank, in_common, may_repeat, rank, stands_for, superseded
from ..policy.similar import names_and_numbers
from ..protocols import Transaction
from ..records import Match, Record, ScoreParams, SearchRequest
from ..types import MemoryItem
from .tools import Job, Tools, Turn

_TOGETHER: Final = 64
"""Items whose neighbours one scan looks for."""
_STEP: Final = 256
"""Repetitions that end in one change."""
_NEAREST: Final = 16
_MORE: Final = 8


class _Candidate(NamedTuple):
    """An item that may repeat another or be repeated."""

    rank: Rank
    record: Record

    @property
    def key(self) -> bytes:
        return self.record.key


_Group = Mapping[bytes, _Candidate]
"""By key."""


class _Repetition(NamedTuple):
    """What repeats another item, and the rule by which it ends."""

    record: Record
    rule: str


class _Alike(NamedTuple):
    """By an item's key: those among which are some that it may stand for; only where there are.
    equal: in the same text. similar: those among which other wordings may be."""

    equal: Mapping[bytes, _Group]
    similar: Mapping[bytes, _Group]

    def repetitions(self, kept: _Candidate, near: Sequence[Match], gone: set[bytes]) -> list[_Repetition]:
        """What an item stands for and is not gone. near: what the scan has found."""
        equal, similar = self.equal.get(kept.key, {}), self.similar.get(kept.key, {})
        rules: dict[bytes, str] = {}
        for _, cosine, key, *_ in near:
            if key in similar and stands_for(kept.rank, similar[key].rank):
                rules[key] = f"reworded: an item that stays is near, cosine {cosine:.4f}"
        for key, other in equal.items():
            if stands_for(kept.rank, other.rank):
                rules[key] = "repeated: an item that stays has the same text"
        return [
            _Repetition((equal.get(key) or similar[key]).record, rule)
            for key, rule in rules.items()
            if key not in gone
        ]


class Deduplicate(Job):
    """The job "deduplicate". threshold: cosine from which another wording is one; None looks for none."""

    name = "deduplicate"

    def __init__(self, options: Deduplication, threshold: float | None) -> None:
        self._threshold = threshold if options.near else None

    def of_owner(self, tools: Tools, owner: int, turn: Turn, counts: Counter[str]) -> None:
        """See tools.Job. Its place: the ordinal of an item that it is done with, and with all before it."""
        candidates = _candidates(tools, owner)
        alike = self._alike(tools, candidates)
        done = next((one.rank for one in candidates if one.rank.ordinal == turn.place), None)
        left = [one for one in candidates if one.key in alike.equal or one.key in alike.similar]
        left = [one for one in left if done is None or one.rank > done]
        gone: set[bytes] = set()
        for start in range(0, len(left), _TOGETHER):
            part = [one for one in left[start : start + _TOGETHER] if one.key not in gone]
            near = self._near(tools, owner, [one.record for one in part if one.key in alike.similar])
            for one in part:
                if one.key not in gone:
                    self._gather(tools, owner, one, alike, near.get(one.key, ()), turn, gone, counts)
                    turn.place = one.rank.ordinal
            turn.check()  # not before: a run does something, however long it took to read the owner

    def _alike(self, tools: Tools, candidates: Sequence[_Candidate]) -> _Alike:
        digest = Digests(tools.log.identity.salt).duplicate
        equal = _groups(candidates, digest)
        if self._threshold is None:
            return _Alike(equal, {})
        return _Alike(equal, _groups(candidates, lambda item: names_and_numbers(item.text)))

    def _gather(
        self,
        tools: Tools,
        owner: int,
        kept: _Candidate,
        alike: _Alike,
        near: Sequence[Match],
        turn: Turn,
        gone: set[bytes],
        counts: Counter[str],
    ) -> None:
        """End what repeats an item and is not gone already."""
        while True:
            before = len(gone)
            repetitions = alike.repetitions(kept, near, gone)
            for first in range(0, len(repetitions), _STEP):
                if first:
                    turn.check()
                ended = _end(tools, kept.record, repetitions[first : first + _STEP])
                counts.update(repetition.rule.split(":")[0] for repetition in ended)
                gone.update(repetition.record.key for repetition in ended)
            if len(near) < MAX_K or len(gone) == before:
                return
            turn.check()
            # There may be more: what has ended is not found again.
            near = self._near(tools, owner, [kept.record]).get(kept.key, ())

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


def _candidates(tools: Tools, owner: int) -> list[_Candidate]:
    """What may repeat something or be repeated, in the order in which it is looked at."""
    now = tools.log.now()
    walk = tools.log.records(owner, order="recorded", reverse=False, after=None)
    return sorted(
        _Candidate(rank(record), record)
        for _, record in walk
        if may_repeat(record.item) and is_current(record.item, now)
    )


def _groups(candidates: Sequence[_Candidate], what: Callable[[MemoryItem], Hashable]) -> dict[bytes, _Group]:
    """By key: all with which an item has enough in common, `what` too, and for which it could stay by its
    sources; only of items that may stand for another."""
    whole: dict[Hashable, dict[bytes, _Candidate]] = {}
    told: dict[tuple[Hashable, frozenset[str]], dict[bytes, _Candidate]] = {}
    for one in candidates:
        item = one.record.item
        common: Hashable = (in_common(item), what(item))
        whole.setdefault(common, {})[one.key] = one
        told.setdefault((common, frozenset(item.sources)), {})[one.key] = one
    staying = {key for group in whole.values() for key in _long_lived(group)}
    found: dict[bytes, _Group] = {}
    for (common, sources), same in told.items():
        group = same if sources else whole[common]
        if len(group) > 1:
            found.update((key, group) for key in same if key in staying)
    return found


def _long_lived(group: _Group) -> Iterator[bytes]:
    """The keys of items that begin no later and live no shorter than another one."""
    latest: int | None = None
    for one in sorted(group.values(), key=_by_life, reverse=True):
        if latest is not None and latest >= one.rank.expires_before:
            yield one.key
        else:
            latest = one.rank.expires_before


def _by_life(one: _Candidate) -> tuple[int, int, Rank]:
    return one.rank.begins, one.rank.expires_before, one.rank


def _end(tools: Tools, seen: Record, repetitions: Sequence[_Repetition]) -> list[_Repetition]:
    """End repetitions of an item, those that are still what they were; returns which. It ends none where the
    item is not what it was."""
    # What somebody has reverted is not to end again.
    left = [one for one in repetitions if not _was_reverted(tools, one.record.key)]
    editor = tools.current.now.editor

    def change(transaction: Transaction) -> list[_Repetition]:
        kept = transaction.get(seen.key)
        if kept is None or kept.item.version != seen.item.version:
            return []
        now, ended = to_datetime(transaction.now), []
        for one in left:
            other = transaction.get(one.record.key)
            if other is not None and other.item.version == one.record.item.version:
                item = superseded(other.item, now)
                editor.revise(transaction, other, item, None, operation="merge", reason=one.rule)
                ended.append(one)
        return ended

    with tools.exchanging:
        return tools.log.transact(change) if left else []


def _was_reverted(tools: Tools, key: bytes) -> bool:
    return any(past.operation == "revert" for past in tools.log.history(key))
