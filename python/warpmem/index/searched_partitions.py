"""The searches of the partitioned index: what a request says to the scan, and what the scan found."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import IndexCorrupt, InputError
from ..records import NEVER, NOT, QUARANTINED, Match, ScoreParams, SearchRequest, Segment, Term
from .blend import MOST, Blended, Rows, Words, blend, both, most_repeated
from .item_columns import ItemColumns
from .owner_words import Sums
from .partition import BLANK, PAST, Partition, owners_of
from .row_columns import (
    EXPIRES_AT,
    KIND,
    PRIORITY,
    RECORDED_AT,
    RETIRED_AT,
    VALID_FROM,
    VALID_TO,
    narrow,
)
from .worded_partitions import WordedPartitions

_MIN = -(1 << 63)
MOMENTS = 4  # searches of several looks that a change overtook before one is taken as it is
_TRIES = 16  # searches that meet new strings before they leave rows with newer ones out
_MOST_SUMS = 1 << 22  # rows of which one scan is told what words say: 48 MiB
_NO_WORDS = itertools.repeat((0.0, 0.0))


class Asked(NamedTuple):
    """One search. partitions: of the owners that it looked at. bounds: by owner, from which code on strings
    are too new for filters. blank: rows that wait for their vectors are found with or without a word."""

    requests: Sequence[SearchRequest]
    k: int
    params: ScoreParams
    partitions: dict[int, Partition]
    bounds: Mapping[int, int]
    blank: bool = False


class SearchedPartitions(WordedPartitions):
    """The part of PartitionedIndex that searches."""

    _columns: ItemColumns

    @abstractmethod
    def _partition(self, owner: int) -> Partition: ...

    def search(
        self, requests: Sequence[SearchRequest], k: int, params: ScoreParams | Sequence[ScoreParams]
    ) -> list[list[Match]]:
        if isinstance(params, ScoreParams):
            return self._search(requests, k, params)
        alike: dict[ScoreParams, list[int]] = {}
        for place, own in enumerate(params):
            alike.setdefault(own, []).append(place)
        owners = {part.owner for request in requests for part in request.parts}
        found: list[list[Match]] = [[] for _ in requests]
        for _ in range(MOMENTS):
            before = {owner: self._partition(owner).changes for owner in owners}
            for own, places in alike.items():
                answers = self._search([requests[place] for place in places], k, own)
                for place, matches in zip(places, answers, strict=True):
                    found[place] = matches
            now = {owner: self._partition(owner).changes for owner in owners}
            if len(alike) == 1 or (now == before and not any(moment % 2 for moment in now.values())):
                break
        return found

    def mmr(
        self, vectors: NDArray[np.float32], relevance: NDArray[np.float32], k: int, weight: float
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        from . import kernels  # few searches need them, and every import would wait

        values, places = kernels.mmr(vectors[None], relevance[None], k, weight=weight)
        return values[0], places[0]

    def _search(self, requests: Sequence[SearchRequest], k: int, params: ScoreParams) -> list[list[Match]]:
        if self._slack < 0:
            self._within_budget({part.owner for request in requests for part in request.parts})
        again = False
        try:
            for attempt in itertools.count():
                if attempt and not again:
                    again = True
                    self._stay(1)
                found = self._attempt(requests, k, params, attempt)
                if found is not None:
                    return found
        finally:
            if again:
                self._stay(-1)
        raise AssertionError("unreachable")

    def _attempt(
        self, requests: Sequence[SearchRequest], k: int, params: ScoreParams, attempt: int
    ) -> list[list[Match]] | None:
        """None: what it found may be half of a change, or of an owner that is gone."""
        known = {
            part.owner: len(self._partition(part.owner).codes)
            for request in requests
            for part in request.parts
            if part.where is not None
        }
        asked = Asked(requests, k, params, {}, known if attempt >= _TRIES else {})
        try:
            found = self._find(asked)
        except IndexCorrupt:
            # The checkpoint is damaged in one of these lists; the log has their rows.
            for owner, partition in asked.partitions.items():
                with partition.lock:
                    self._give_up(owner, partition)
            return None
        except IndexError:
            # Rows of an owner who was read anew meanwhile, beyond the names that there were.
            if all(partition.state == "ready" for partition in asked.partitions.values()):
                raise
            return None
        # Rows may carry strings by now that a filter knew nothing of.
        grown = not asked.bounds and any(
            len(asked.partitions[owner].codes) != size for owner, size in known.items()
        )
        ready = all(partition.state == "ready" for partition in asked.partitions.values())
        return found if ready and not grown else None

    def _find(self, asked: Asked) -> list[list[Match]]:
        """One try."""
        by_words = asked.params.lexical or asked.params.adjacent
        return self._by_words(asked) if by_words else self._scanned(asked)

    def _scanned(self, asked: Asked, sums: Sequence[Mapping[int, Sums]] = ()) -> list[list[Match]]:
        """By what one scan knows. sums: by request and owner, what words add."""
        found = []
        repeats = max(most_repeated(request) for request in asked.requests)
        for number, rows in enumerate(self._scan(asked, sums)):
            places = list(zip(rows.owners.tolist(), rows.row_ids.tolist(), strict=True))
            names = [asked.partitions[owner].names[row_id] for owner, row_id in places]
            words = [sums[number][owner].parts(row_id) for owner, row_id in places] if sums else _NO_WORDS
            matches = [
                (score, similarity, key, version, lexical, adjacent, 0.0)
                for score, similarity, (key, version), (lexical, adjacent) in zip(
                    rows.scores.tolist(), rows.similarities.tolist(), names, words, strict=False
                )
            ]
            if repeats > 1:
                best: dict[bytes, Match] = {}
                for match in matches:
                    best.setdefault(match[2], match)
                matches = list(best.values())[: asked.k]
            found.append(matches)
        return found

    def _by_words(self, asked: Asked) -> list[list[Match]]:
        """By words and neighbours too. It takes several looks at pool and words, so it is made again when a
        change came between them."""
        self._check_k(asked.requests, asked.k)
        search = self._summed if "added" in self._backend.capabilities else self._blended
        moments: dict[int, int] = {}
        for _ in range(MOMENTS):
            moments.clear()
            found = search(asked, moments)
            now = {owner: asked.partitions[owner].changes for owner in moments}
            if now == moments and not any(moment % 2 for moment in now.values()):
                break
        return found

    def _summed(self, asked: Asked, moments: dict[int, int]) -> list[list[Match]]:
        """Of a pool that adds to scores: one scan, or several where what words say of all rows is much."""
        found: list[list[Match]] = []
        sums: list[dict[int, Sums]] = []
        size = 0
        for number, request in enumerate(asked.requests, 1):
            owners = self._owners(asked, request, moments)
            sums.append(
                {
                    owner: entry.words.sums(request.words, asked.params.lexical, asked.params.adjacent)
                    for owner, entry in owners.items()
                }
            )
            size += sum(len(entry.totals) for entry in sums[-1].values())
            if size >= _MOST_SUMS or number == len(asked.requests):
                those = asked.requests[number - len(sums) : number]
                found += self._scanned(asked._replace(requests=those), sums)
                sums, size = [], 0
        return found

    def _blended(self, asked: Asked, moments: dict[int, int]) -> list[list[Match]]:
        """Of a pool that does not: by its best and the best by words."""

        def scan(requests: Sequence[SearchRequest], most: int, blank: bool) -> list[Rows]:
            return self._scan(asked._replace(requests=requests, k=most), blank=blank)

        def match(hit: Blended) -> Match:
            key, version = asked.partitions[hit.owner].names[hit.row_id]
            return hit.score, hit.similarity, key, version, hit.lexical, hit.adjacent, 0.0

        def owners(request: SearchRequest) -> dict[int, Words]:
            return self._owners(asked, request, moments)

        found = blend(asked.requests, asked.k, asked.params, scan, owners)
        return [[match(hit) for hit in hits] for hits in found]

    def _owners(self, asked: Asked, request: SearchRequest, moments: dict[int, int]) -> dict[int, Words]:
        """The words of a request's owners. moments: takes down how far each was when it was first asked."""
        groups: dict[int, list[int]] = {}
        for group, part in enumerate(request.parts):
            groups.setdefault(part.owner, []).append(group)
        found: dict[int, Words] = {}
        for owner, of_owner in groups.items():
            partition = asked.partitions.setdefault(owner, self._partition(owner))
            moments.setdefault(owner, partition.changes)  # before its words, which it may forget
            words = self._words(owner, partition)
            found[owner] = Words(words, len(partition.names), of_owner, partition.blank)
        return found

    def _check_k(self, requests: Sequence[SearchRequest], k: int) -> int:
        """How often the most frequent owner of a request stands in it."""
        repeats = max(most_repeated(request) for request in requests)
        if repeats * k > MOST:
            raise InputError(f"k = {k} over {repeats} scopes of one owner exceeds {MOST}; ask for fewer")
        return repeats

    def _scan(
        self, asked: Asked, sums: Sequence[Mapping[int, Sums]] = (), *, blank: bool = False
    ) -> list[Rows]:
        """The k best rows of each request; one of an owner in several parts may come several times. blank:
        those too that wait for their vectors; with sums, those of them that have a word."""
        params = asked.params
        segments: list[Segment] = []
        added: list[NDArray[np.float32]] = []
        repeats = self._check_k(asked.requests, asked.k)
        for number, request in enumerate(asked.requests):
            said = sums[number] if sums else None
            self._segments(asked, number, request, segments, added, said, blank or asked.blank)
        if len(asked.requests) == 1:
            queries = asked.requests[0].vector.reshape(1, -1)
        else:
            queries = np.stack([request.vector for request in asked.requests])
        scores, similarities, lists, rows, counts = self._pool.scan(
            queries,
            segments,
            repeats * asked.k,
            min_similarity=params.min_similarity,
            w_similarity=params.similarity,
            w_recency=params.recency,
            w_priority=params.priority,
            half_life=params.half_life,
            recency_column=VALID_FROM,
            priority_column=PRIORITY,
            now=params.now,
            **({"added": added} if sums else {}),
        )
        return [
            Rows(scores[i, :n], similarities[i, :n], owners_of(lists[i, :n]), rows[i, :n])
            for i, n in enumerate(counts.tolist())
        ]

    def _segments(
        self,
        asked: Asked,
        number: int,
        request: SearchRequest,
        out: list[Segment],
        added: list[NDArray[np.float32]],
        sums: Mapping[int, Sums] | None,
        blank: bool,
    ) -> None:
        """Append a request's segments, and what words add in each. Where the similarity has no weight, only
        rows with a word are looked at."""
        values: list[int] = []
        if request.kinds is not None:
            values = sorted(self._kinds[kind] for kind in set(request.kinds) if kind in self._kinds)
        at, known_at = request.at, request.known_at
        since = at if request.since is None else request.since
        for group, part in enumerate(request.parts):
            partition = asked.partitions.setdefault(part.owner, self._partition(part.owner))
            if request.kinds is not None and not values:
                # Loading may have met the kinds for the first time.
                values = sorted(self._kinds[kind] for kind in set(request.kinds) if kind in self._kinds)
                if not values:
                    continue
            terms = narrow(partition, part)
            if terms is None:
                continue
            if request.kinds is not None:
                terms.append((KIND, 1, 0, len(values)))
            part_values = list(values)
            but = sorted(self._kinds[kind] for kind in set(request.but) if kind in self._kinds)
            if but:
                terms += [(KIND, 1, len(part_values), len(part_values) + len(but)), (0, NOT, 0, 0)]
                part_values += but
            if part.where is not None:
                bound = asked.bounds.get(part.owner)
                tested = self._columns.terms(part.where, partition.codes, part_values, bound)
                if tested is None:
                    continue
                terms += tested
            terms.append((VALID_FROM, 0, _MIN, at))
            terms.append((EXPIRES_AT, 0, since + 1, NEVER))
            if known_at is not None:
                terms.append((RECORDED_AT, 0, _MIN, known_at))
            current = 2 * part.owner
            bitmap = worded = part.bitmap
            if sums is not None and (partition.blank or not asked.params.similarity):
                worded = both(part, sums[part.owner].totals > 0)
                bitmap = bitmap if asked.params.similarity else worded
                worded = bitmap if asked.blank else worded
            lists = [(current, bitmap)]
            if partition.blank and (blank or sums is not None):
                lists.append((current + BLANK, worded))
            out += [(number, one, group, terms, part_values, bits) for one, bits in lists]
            if request.quarantined:
                hidden: list[Term] = [
                    *terms,
                    (VALID_TO, 0, since + 1, NEVER),
                    (RETIRED_AT, 0, QUARANTINED, QUARANTINED),
                ]
                out += [(number, one + PAST, group, hidden, part_values, bits) for one, bits in lists]
            if since < partition.past_until or (known_at is not None and known_at < partition.past_until):
                known = NEVER if known_at is None else known_at + 1
                ended: list[Term] = [*terms, (VALID_TO, 0, since + 1, NEVER), (RETIRED_AT, 0, known, NEVER)]
                out += [(number, one + PAST, group, ended, part_values, bits) for one, bits in lists]
            if sums is not None:
                added += [sums[part.owner].totals] * (len(out) - len(added))
