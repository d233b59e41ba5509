"""The entities of the partitioned index, and searches that count what entities an item shares with a query.

    score = score without entities + w_entities * share

The k best are among the k best without entities and, for each share that rows have, the k best of those rows:
whatever stands before a row in its list stands before it in the end. So the sum is not rounded to float32:
rows that differ without entities would be equal with them, and a short list might lack the one added first.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ..errors import IndexCorrupt
from ..records import Match, ScopePart, ScoreParams, SearchRequest
from ..types.graph import ENTITY, RELATION
from .blend import both
from .owner_names import NameSource, OwnerNames
from .partition import Partition
from .searched_partitions import MOMENTS, Asked, SearchedPartitions
from .seen_names import SeenNames, Sight, View


class _Piece(NamedTuple):
    """A request of one of its scopes alone: over all rows, or those of one share."""

    number: int
    group: int
    share: float
    request: SearchRequest


class NamedPartitions(SearchedPartitions):
    """The part of PartitionedIndex that knows names."""

    _naming: NameSource | None

    @abstractmethod
    def _kind_code(self, kind: str) -> int: ...

    def names(self, part: ScopePart, at: int, known_at: int | None) -> SeenNames | None:
        while True:
            partition = self._partition(part.owner)
            try:
                found = self._seen(part, partition, at, at, known_at)
            except IndexCorrupt:
                with partition.lock:
                    self._give_up(part.owner, partition)
                continue
            except IndexError:  # of rows of another partition, which took its place
                if partition.state == "ready":
                    raise
                continue
            if partition.state == "ready":
                return found

    def _seen(
        self, part: ScopePart, partition: Partition, since: int, at: int, known_at: int | None
    ) -> SeenNames | None:
        """What a scope sees of its owner's names; None where no row has its ids."""
        codes = []
        for tag, name in (("a", part.agent_id), ("r", part.run_id)):
            code = None if name is None else partition.codes.get(tag + name)
            if name is not None and code is None:
                return None
            codes.append(code)
        sight = Sight(codes[0], codes[1], since, at, known_at)
        return SeenNames(View(self._names(part.owner, partition), sight, partition.names))

    def _names(self, owner: int, partition: Partition) -> OwnerNames:
        assert self._naming is not None, "an index without a source of names was asked for entities"
        kinds = self._kind_code(ENTITY), self._kind_code(RELATION)
        return self._kept(owner, partition, "entities", functools.partial(OwnerNames, self._naming, *kinds))

    # --------------------------------------------------------------------------------------- search

    def _find(self, asked: Asked) -> list[list[Match]]:
        if not asked.params.entities:
            return super()._find(asked)
        for _ in range(MOMENTS):
            moments: dict[int, int] = {}
            pieces = self._pieces(asked, moments)
            found = self._each(asked, pieces)
            now = {owner: asked.partitions[owner].changes for owner in moments}
            if now == moments and not any(moment % 2 for moment in now.values()):
                break
        return [
            _best([one for one in found if one[0].number == number], asked.k, asked.params.entities)
            for number in range(len(asked.requests))
        ]

    def _pieces(self, asked: Asked, moments: dict[int, int]) -> list[_Piece]:
        pieces = []
        for number, request in enumerate(asked.requests):
            for group, part in enumerate(request.parts):
                partition = asked.partitions.setdefault(part.owner, self._partition(part.owner))
                moments.setdefault(part.owner, partition.changes)
                pieces.append(_Piece(number, group, 0.0, _alone(request, part)))
                since = request.at if request.since is None else request.since
                seen = self._seen(part, partition, since, request.at, request.known_at)
                for share, rows in () if seen is None else seen.shares(request.words, len(partition.names)):
                    narrowed = msgspec.structs.replace(part, bitmap=both(part, rows))
                    pieces.append(_Piece(number, group, share, _alone(request, narrowed)))
        return pieces

    def _each(self, asked: Asked, pieces: Sequence[_Piece]) -> list[tuple[_Piece, list[Match]]]:
        """The k best of each piece, without entities."""

        def find(
            some: Sequence[_Piece], params: ScoreParams, blank: bool = False
        ) -> list[tuple[_Piece, list[Match]]]:
            if not some:
                return []
            narrowed = asked._replace(requests=[one.request for one in some], params=params, blank=blank)
            return list(zip(some, super(NamedPartitions, self)._find(narrowed), strict=True))

        shared = [one for one in pieces if one.share]
        waiting = any(partition.blank for partition in asked.partitions.values())
        if waiting:  # what waits for its vector is found by a word or by what it shares
            found = find([one for one in pieces if not one.share], asked.params)
            found += find(shared, asked.params, True)
        else:
            found = find(pieces, asked.params)
        if (asked.params.lexical or asked.params.adjacent) and not asked.params.similarity:
            # A search by words finds rows with a word alone; what the query names is found without one, too.
            without = msgspec.structs.replace(asked.params, lexical=0.0, adjacent=0.0)
            found += find(shared, without, waiting)
        return found


def _alone(request: SearchRequest, part: ScopePart) -> SearchRequest:
    return msgspec.structs.replace(request, parts=(part,))


def _best(found: Sequence[tuple[_Piece, list[Match]]], k: int, weight: float) -> list[Match]:
    """The k best of one request; an item counts where it stands first."""
    best: dict[bytes, tuple[float, int, bytes, Match]] = {}
    for one, matches in found:
        for match in matches:
            score = match[0] + weight * one.share
            # An owner's keys ascend with the ordinals.
            rank = (-score, one.group, match[2], (score, *match[1:6], one.share))
            known = best.get(match[2])
            if known is None or rank[:2] < known[:2]:
                best[match[2]] = rank
    return [match for *_, match in sorted(best.values())[:k]]
