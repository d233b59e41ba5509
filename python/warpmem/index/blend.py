"""The k best rows by what the scan scores and by words together, exactly.

    score = the scan's score + w_lexical * lexical + w_adjacent * adjacent      (csrc/cpu/postings.hpp)

This is for pools that cannot add inside the scan. The scan's best and the best by words are asked for apart,
and the scan for the scores of the latter. Rows that wait for their vectors are among the latter alone: words
find them, nothing else does. A row in neither list scores at most the worst of both together: when the k-th
best is above that, it is done (the threshold algorithm: Fagin, Lotem and Naor, "Optimal Aggregation
Algorithms for Middleware", 2001). Else the next round asks for more, and the last for every row that has a
word: the scan's best hold the best of others.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..records import ScopePart, ScoreParams, SearchRequest
from .owner_words import OwnerWords

MOST = 4096
_SCANNED = 20
_WORDED = 128
_GROWTH = 8
_SLACK = 1e-5  # of float32 sums, against the bound
_ALL = (1 << 31) - 1


class Rows(NamedTuple):
    """What a scan found for one request, best first: scores, similarities float32, owners and row ids int64,
    all (n,)."""

    scores: NDArray[np.float32]
    similarities: NDArray[np.float32]
    owners: NDArray[np.int64]
    row_ids: NDArray[np.int64]


_NONE = Rows(np.empty(0, np.float32), np.empty(0, np.float32), np.empty(0, np.int64), np.empty(0, np.int64))


class Blended(NamedTuple):
    """One of the k best: lexical and adjacent are the unweighted parts."""

    score: float
    similarity: float
    owner: int
    row_id: int
    lexical: float
    adjacent: float


class Words(NamedTuple):
    """An owner's words, how many row ids it had when the search began, and the places of its scopes in the
    request, ascending. blank: some of its rows may wait for their vectors."""

    words: OwnerWords
    n_rows: int
    groups: Sequence[int]
    blank: bool = False


Scan = Callable[[Sequence[SearchRequest], int, bool], Sequence[Rows]]
"""(requests, k, blank) -> what each finds of those with at least the wanted similarity: its k best, or more
where scopes share an owner. blank: of rows that wait for their vectors too, whose similarity is 0."""


class _Worded(NamedTuple):
    """What words say of some rows of one owner: the first n are the best by words. least: what every other
    row has at most. totals, lexical, adjacent float32, row_ids int64, all (m,)."""

    n: int
    least: float
    row_ids: NDArray[np.int64]
    totals: NDArray[np.float32]
    lexical: NDArray[np.float32]
    adjacent: NDArray[np.float32]


def blend(
    requests: Sequence[SearchRequest],
    k: int,
    params: ScoreParams,
    scan: Scan,
    owners: Callable[[SearchRequest], Mapping[int, Words]],
) -> list[list[Blended]]:
    """The k best of each request; without a weight for similarity, of those with a word. owners: by number,
    in the order of the request's parts."""
    found: list[list[Blended]] = [[] for _ in requests]
    active = [number for number, request in enumerate(requests) if request.parts]
    known = {number: owners(requests[number]) for number in active}
    limit = MOST // max(1, *(most_repeated(request) for request in requests))
    scanned, worded = min(limit, max(_SCANNED, 2 * k)), max(_WORDED, 4 * k)
    while active:
        last = scanned == limit
        most = _ALL if last else worded
        if params.similarity or params.recency or params.priority:
            dense = dict(
                zip(active, scan([requests[number] for number in active], scanned, False), strict=True)
            )
        else:  # the scan has nothing to say: only rows with a word count
            dense = dict.fromkeys(active, _NONE)
        words = {
            number: {
                owner: _ask_words(requests[number], params, entry, dense[number], owner, most)
                for owner, entry in known[number].items()
            }
            for number in active
        }
        worded_rows = _scores_of(requests, known, words, scan, limit)
        left = []
        for number in active:
            best = _best(
                k, params, known[number], words[number], dense[number], worded_rows[number], scanned, last
            )
            if best is None:
                left.append(number)
            else:
                found[number] = best
        active = left
        scanned, worded = min(limit, scanned * _GROWTH), worded * _GROWTH
    return found


def _ask_words(
    request: SearchRequest, params: ScoreParams, entry: Words, dense: Rows, owner: int, most: int
) -> _Worded:
    also = dense.row_ids[dense.owners == owner]
    n, whole, rows, totals, lexical, adjacent = entry.words.score(
        request.words, params.lexical, params.adjacent, most, also
    )
    return _Worded(n, 0.0 if whole else float(totals[n - 1]), rows, totals, lexical, adjacent)


def _scores_of(
    requests: Sequence[SearchRequest],
    known: Mapping[int, Mapping[int, Words]],
    words: Mapping[int, Mapping[int, _Worded]],
    scan: Scan,
    limit: int,
) -> dict[int, list[tuple[int, Rows]]]:
    """By request: the places of scopes and what the scan says there of the best by words. Where scopes share
    an owner, of all its rows: that tells in which of them a row stands."""
    pieces: list[tuple[int, int, SearchRequest, int]] = []
    for number, by_owner in words.items():
        for owner, entry in by_owner.items():
            _, n_rows, groups, _ = known[number][owner]
            rows = entry.row_ids[: entry.n] if len(groups) == 1 else np.unique(entry.row_ids)
            for start, group in itertools.product(range(0, len(rows), limit), groups):
                piece = rows[start : start + limit]
                pieces.append((number, group, _only(requests[number], group, piece, n_rows), len(piece)))
    found: dict[int, list[tuple[int, Rows]]] = {number: [] for number in words}
    if pieces:
        most = max(count for *_, count in pieces)
        scanned = scan([request for _, _, request, _ in pieces], most, True)
        for (number, group, _, _), rows_found in zip(pieces, scanned, strict=True):
            found[number].append((group, rows_found))
    return found


def _best(
    k: int,
    params: ScoreParams,
    known: Mapping[int, Words],
    words: Mapping[int, _Worded],
    dense: Rows,
    worded: Sequence[tuple[int, Rows]],
    scanned: int,
    last: bool,
) -> list[Blended] | None:
    """The k best of what is known; None while another row could be among them."""
    columns = zip(dense, *(rows for _, rows in worded), strict=True)
    seen = Rows(*(np.concatenate(column) for column in columns))
    groups = np.repeat(
        [0, *(group for group, _ in worded)], [len(dense.owners), *(len(rows.owners) for _, rows in worded)]
    )
    if len(words) == 1:
        (entry,) = words.values()
        table = _table(entry, seen)
    else:
        table = np.zeros((3, len(seen.owners)))
        for owner, entry in words.items():
            mine = seen.owners == owner
            table[:, mine] = _table(entry, Rows(*(column[mine] for column in seen)))
    totals, by_words, around = table
    final = (seen.scores + totals).astype(np.float32)
    wanted = totals > 0 if not params.similarity else np.ones(len(totals), np.bool_)
    for owner, place in known.items():
        mine = np.flatnonzero(dense.owners == owner)
        groups[mine] = place.groups[0]
        if len(place.groups) > 1:
            wanted[mine] = False  # they are among the others, with their scopes
    order = np.flatnonzero(wanted)
    enough = k * (1 + max(len(place.groups) for place in known.values()))  # so often a row may stand in it
    if len(order) > enough:
        least = np.partition(final[order], len(order) - enough)[len(order) - enough]
        order = order[final[order] >= least]
    ordinals = np.empty(len(order), np.uint32)
    for owner, place in known.items():
        mine = np.flatnonzero(seen.owners[order] == owner)
        ordinals[mine] = place.words.postings.ordinals(seen.row_ids[order[mine]])
    order = order[np.lexsort((seen.row_ids[order], ordinals, groups[order], -final[order]))]
    best: dict[tuple[int, int], Blended] = {}  # a row may have been found twice
    for at in order.tolist():
        name = int(seen.owners[at]), int(seen.row_ids[at])
        if name not in best:
            best[name] = Blended(
                float(final[at]), float(seen.similarities[at]), *name, float(by_words[at]), float(around[at])
            )
            if len(best) == k:
                break
    bounds = []  # of what stands in neither list
    if dense is _NONE or len(dense.scores) >= scanned:
        bounds.append(float(dense.scores[-1]) if dense is not _NONE else 0.0)
    if any(place.blank and words[owner].least for owner, place in known.items()):
        bounds.append(max(0.0, params.recency) + max(0.0, params.priority))
    if bounds and not last:
        bound = max(bounds) + max(entry.least for entry in words.values())
        if len(best) < k or final[at] <= bound + _SLACK * (1.0 + abs(bound)):
            return None
    return list(best.values())


def _table(entry: _Worded, rows: Rows) -> NDArray[np.float64]:
    """(3, n): total, lexical and adjacent of rows of one owner."""
    places = np.empty(int(entry.row_ids.max(initial=0)) + 1, np.int64)  # filled in for those rows alone
    places[entry.row_ids] = np.arange(len(entry.row_ids))
    at = places[rows.row_ids]
    return np.stack([entry.totals[at], entry.lexical[at], entry.adjacent[at]]).astype(np.float64)


def _only(request: SearchRequest, group: int, rows: NDArray[np.int64], n_rows: int) -> SearchRequest:
    """The request over chosen rows of one scope alone."""
    chosen = np.zeros(n_rows, np.bool_)
    chosen[rows[rows < n_rows]] = True
    part = request.parts[group]
    parts = (msgspec.structs.replace(part, bitmap=both(part, chosen)),)
    return msgspec.structs.replace(request, parts=parts)


def both(part: ScopePart, chosen: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """The bitmap of a part, of its chosen rows alone: by row id."""
    octets = np.zeros((len(chosen) + 63) // 64 * 8, np.uint8)
    octets[: (len(chosen) + 7) // 8] = np.packbits(chosen, bitorder="little")
    words: NDArray[np.uint64] = octets.view(np.uint64)
    if part.bitmap is not None:
        shared = min(len(words), len(part.bitmap))
        words = words[:shared] & part.bitmap[:shared]
    return words


def most_repeated(request: SearchRequest) -> int:
    """In how many parts of a request its most frequent owner stands."""
    owners = [part.owner for part in request.parts]
    return max((owners.count(owner) for owner in owners), default=1)
