"""The searches of the partitioned index: what a request says to the scan, and what the scan found."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import IndexCorrupt, InputError, WarpmemError
from ..records import NEVER, Match, Row, ScoreParams, SearchRequest, Segment, Term
from .blend import MOST, Blended, Rows, Words, blend, most_repeated
from .item_columns import ItemColumns
from .owner_words import OwnerWords, Placed, TextSource
from .partition import Partition, lists_of
from .row_columns import (
    EXPIRES_AT,
    KIND,
    PRIORITY,
    RECORDED_AT,
    RETIRED_AT,
    VALID_FROM,
    VALID_TO,
    RowTable,
    narrow,
)
from .saved_partitions import SavedPartitions

_MIN = -(1 << 63)
_MOMENTS = 4  # searches by words that a change overtook before one is taken as it is
_TRIES = 16  # searches that meet new strings before they leave rows with newer ones out


class SearchedPartitions(SavedPartitions):
    """The part of PartitionedIndex that searches."""

    _columns: ItemColumns
    _texts: TextSource | None

    @abstractmethod
    def _partition(self, owner: int) -> Partition: ...

    def search(self, requests: Sequence[SearchRequest], k: int, params: ScoreParams) -> list[list[Match]]:
        for attempt in itertools.count():
            partitions: dict[int, Partition] = {}
            known = {
                part.owner: len(self._partition(part.owner).codes)
                for request in requests
                for part in request.parts
                if part.where is not None
            }
            bounds = known if attempt >= _TRIES else {}
            find = self._blended if params.lexical or params.adjacent else self._scanned
            try:
                found = find(requests, k, params, partitions, bounds)
            except IndexCorrupt:
                # The checkpoint is damaged in one of these lists; the log has their rows.
                for owner, partition in partitions.items():
                    with partition.lock:
                        self._give_up(owner, partition)
                continue
            # Rows may carry strings by now that a filter knew nothing of.
            grown = not bounds and any(len(partitions[owner].codes) != size for owner, size in known.items())
            if not grown and all(partition.state == "ready" for partition in partitions.values()):
                return found
        raise AssertionError("unreachable")

    def _scanned(
        self,
        requests: Sequence[SearchRequest],
        k: int,
        params: ScoreParams,
        partitions: dict[int, Partition],
        bounds: Mapping[int, int],
    ) -> list[list[Match]]:
        """By what the scan knows alone."""
        found = []
        repeats = max(most_repeated(request) for request in requests)
        for rows in self._scan(requests, k, params, partitions, bounds):
            names = [
                partitions[owner].names[row_id]
                for owner, row_id in zip(rows.owners.tolist(), rows.row_ids.tolist(), strict=True)
            ]
            matches = [
                (score, similarity, key, version, 0.0, 0.0)
                for score, similarity, (key, version) in zip(
                    rows.scores.tolist(), rows.similarities.tolist(), names, strict=True
                )
            ]
            if repeats > 1:
                best: dict[bytes, Match] = {}
                for match in matches:
                    best.setdefault(match[2], match)
                matches = list(best.values())[:k]
            found.append(matches)
        return found

    def _blended(
        self,
        requests: Sequence[SearchRequest],
        k: int,
        params: ScoreParams,
        partitions: dict[int, Partition],
        bounds: Mapping[int, int],
    ) -> list[list[Match]]:
        """By words and neighbours too. It takes several looks at pool and words, so it is made again when a
        change came between them."""
        self._check_k(requests, k)
        moments: dict[int, int] = {}

        def scan(asked: Sequence[SearchRequest], most: int) -> list[Rows]:
            return self._scan(asked, most, params, partitions, bounds)

        def owners(request: SearchRequest) -> dict[int, Words]:
            groups: dict[int, list[int]] = {}
            for group, part in enumerate(request.parts):
                groups.setdefault(part.owner, []).append(group)
            found: dict[int, Words] = {}
            for owner, of_owner in groups.items():
                partition = partitions.setdefault(owner, self._partition(owner))
                words = self._words(owner, partition)
                moments.setdefault(owner, partition.changes)
                found[owner] = Words(words, len(partition.names), of_owner)
            return found

        def match(hit: Blended) -> Match:
            key, version = partitions[hit.owner].names[hit.row_id]
            return hit.score, hit.similarity, key, version, hit.lexical, hit.adjacent

        for _ in range(_MOMENTS):
            moments.clear()
            found = blend(requests, k, params, scan, owners)
            now = {owner: partitions[owner].changes for owner in moments}
            if now == moments and not any(moment % 2 for moment in now.values()):
                break
        return [[match(hit) for hit in hits] for hits in found]

    def _check_k(self, requests: Sequence[SearchRequest], k: int) -> int:
        """How often the most frequent owner of a request stands in it."""
        repeats = max(most_repeated(request) for request in requests)
        if repeats * k > MOST:
            raise InputError(f"k = {k} over {repeats} scopes of one owner exceeds {MOST}; ask for fewer")
        return repeats

    def _scan(
        self,
        requests: Sequence[SearchRequest],
        k: int,
        params: ScoreParams,
        partitions: dict[int, Partition],
        bounds: Mapping[int, int],
    ) -> list[Rows]:
        """The k best rows of each request; one of an owner in several parts may come several times."""
        segments: list[Segment] = []
        repeats = self._check_k(requests, k)
        for number, request in enumerate(requests):
            self._segments(number, request, segments, partitions, bounds)
        if len(requests) == 1:
            queries = requests[0].vector.reshape(1, -1)
        else:
            queries = np.stack([request.vector for request in requests])
        scores, similarities, lists, rows, counts = self._pool.scan(
            queries,
            segments,
            repeats * k,
            min_similarity=params.min_similarity,
            w_similarity=params.similarity,
            w_recency=params.recency,
            w_priority=params.priority,
            half_life=params.half_life,
            recency_column=VALID_FROM,
            priority_column=PRIORITY,
            now=params.now,
        )
        return [
            Rows(scores[i, :n], similarities[i, :n], lists[i, :n] >> 1, rows[i, :n])
            for i, n in enumerate(counts.tolist())
        ]

    def _segments(
        self,
        number: int,
        request: SearchRequest,
        out: list[Segment],
        partitions: dict[int, Partition],
        bounds: Mapping[int, int],
    ) -> None:
        """Append a request's segments. bounds: by owner, from which code on strings are too new for
        filters."""
        values: list[int] = []
        if request.kinds is not None:
            values = sorted(self._kinds[kind] for kind in set(request.kinds) if kind in self._kinds)
        at, known_at = request.at, request.known_at
        for group, part in enumerate(request.parts):
            partition = partitions.setdefault(part.owner, self._partition(part.owner))
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
            part_values = values
            if part.where is not None:
                part_values = list(values)
                bound = bounds.get(part.owner)
                tested = self._columns.terms(part.where, partition.codes, part_values, bound)
                if tested is None:
                    continue
                terms += tested
            terms.append((VALID_FROM, 0, _MIN, at))
            terms.append((EXPIRES_AT, 0, at + 1, NEVER))
            if known_at is not None:
                terms.append((RECORDED_AT, 0, _MIN, known_at))
            out.append((number, 2 * part.owner, group, terms, part_values, part.bitmap))
            if at < partition.past_until or (known_at is not None and known_at < partition.past_until):
                known = NEVER if known_at is None else known_at + 1
                ended: list[Term] = [*terms, (VALID_TO, 0, at + 1, NEVER), (RETIRED_AT, 0, known, NEVER)]
                out.append((number, 2 * part.owner + 1, group, ended, part_values, part.bitmap))

    # --------------------------------------------------------------------------------------- words

    def _words(self, owner: int, partition: Partition) -> OwnerWords:
        """An owner's words, read when they are first asked for. Commits do not wait for it."""
        with partition.words_lock:
            with partition.lock:
                known: OwnerWords | None = partition.words
                if known is not None:
                    return known
                assert self._texts is not None, "an index without texts was asked for words"
                words = OwnerWords(self._texts)
                if partition.state != "ready":
                    return words  # the search will be made again
                rows = self._placed(owner, partition)
                partition.words = words
            try:
                words.build(rows)
            except BaseException:
                with partition.lock:
                    partition.words = None
                raise
            return words

    def _placed(self, owner: int, partition: Partition) -> Placed:
        """Every live row. For holders of the partition's lock."""
        found = [(list_id, self._pool.rows(list_id)) for list_id in lists_of(owner)]
        row_ids = np.concatenate([rows[0] for _, rows in found])
        return Placed(
            [partition.names[row_id] for row_id in row_ids.tolist()],
            row_ids,
            np.concatenate([np.full(len(rows[0]), list_id, np.int64) for list_id, rows in found]),
            np.concatenate([rows[1] for _, rows in found]),
            np.concatenate([rows[2] for _, rows in found]),
            [None] * len(row_ids),
        )

    def _change_words(
        self, partition: Partition, gone: Sequence[int], next_id: int, add: Sequence[Row], made: RowTable
    ) -> None:
        """Take a change in, or forget the words: they are read again when they are next asked for."""
        words = partition.words
        n = len(add)
        try:
            words.change(
                np.array(gone, np.int64),
                Placed(
                    [(row.key, row.version) for row in add],
                    np.arange(next_id, next_id + n, dtype=np.int64),
                    made.list_ids,
                    made.ordinals,
                    made.columns,
                    [row.text for row in add],
                )
                if n
                else None,
            )
        except (MemoryError, WarpmemError):
            partition.words = None
