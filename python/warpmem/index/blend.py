"""The k best rows by what the scan scores and by words together, exactly.

    score = the scan's score + w_lexical * lexical + w_adjacent * adjacent      (csrc/cpu/postings.hpp)

The scan's best and the best by words are asked for apart, and the scan for the scores of the latter. A row in
neither list scores at most the worst of both together: when the k-th best is above that, it is done (the
threshold algorithm: Fagin, Lotem and Naor, "Optimal Aggregation Algorithms for Middleware", 2001). Else the
next round asks for more, and the last for every row that has a word: the scan's best hold the best of others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..records import ScopePart, ScoreParams, SearchRequest
from .owner_words import OwnerWords

MOST = 4096
_SCANNED = 16
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


class Blended(NamedTuple):
    """One of the k best: lexical and adjacent are the unweighted parts."""

    score: float
    similarity: float
    owner: int
    row_id: int
    lexical: float
    adjacent: float


class Words(NamedTuple):
    """An owner's words, how many row ids it had when the search began, and the place of its scope in the
    request."""

    words: OwnerWords
    n_rows: int
    group: int


Scan = Callable[[Sequence[SearchRequest], int], Sequence[Rows]]
"""(requests, k) -> what each finds."""


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
    """The k best of each request, of those with at least params.min_similarity; without a weight for
    similarity, of those with a word. owners: by number, in the order of the request's parts."""
    found: list[list[Blended]] = [[] for _ in requests]
    active = [number for number, request in enumerate(requests) if request.parts]
    known = {number: owners(requests[number]) for number in active}
    limit = MOST // max(1, *(most_repeated(request) for request in requests))
    scanned, worded = min(limit, max(_SCANNED, 2 * k)), max(_WORDED, 4 * k)
    while active:
        last = scanned == limit
        most = _ALL if last else worded
        dense = dict(zip(active, scan([requests[number] for number in active], scanned), strict=True))
        words = {
            number: {
                owner: _ask_words(requests[number], params, entry, dense[number], owner, most)
                for owner, entry in known[number].items()
            }
            for number in active
        }
        lexical = _scores_of(requests, known, words, dense, scan, limit)
        left = []
        for number in active:
            best = _best(
                k, params, known[number], words[number], dense[number], lexical[number], scanned, last
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
    dense: Mapping[int, Rows],
    scan: Scan,
    limit: int,
) -> dict[int, list[Rows]]:
    """By request: what the scan says of the best by words that were not among its own best."""
    pieces: list[tuple[int, SearchRequest, int]] = []
    for number, by_owner in words.items():
        for owner, entry in by_owner.items():
            best = entry.row_ids[: entry.n]
            n_rows = known[number][owner].n_rows
            rows = np.setdiff1d(best[best < n_rows], entry.row_ids[entry.n :], assume_unique=True)
            for start in range(0, len(rows), limit):
                piece = rows[start : start + limit]
                pieces.append((number, _only(requests[number], owner, piece, n_rows), len(piece)))
    found: dict[int, list[Rows]] = {number: [] for number in words}
    if pieces:
        most = max(count for _, _, count in pieces)
        for (number, _, _), rows_found in zip(
            pieces, scan([request for _, request, _ in pieces], most), strict=True
        ):
            found[number].append(rows_found)
    return found


def _best(
    k: int,
    params: ScoreParams,
    known: Mapping[int, Words],
    words: Mapping[int, _Worded],
    dense: Rows,
    lexical: Sequence[Rows],
    scanned: int,
    last: bool,
) -> list[Blended] | None:
    """The k best of what is known; None while another row could be among them."""
    seen = [dense, *lexical]
    owners = np.concatenate([rows.owners for rows in seen])
    row_ids = np.concatenate([rows.row_ids for rows in seen])
    scores = np.concatenate([rows.scores for rows in seen]).astype(np.float64)
    similarities = np.concatenate([rows.similarities for rows in seen])
    total, by_words, around = (np.zeros(len(row_ids), np.float64) for _ in range(3))
    ordinals, groups = np.zeros(len(row_ids), np.uint32), np.zeros(len(row_ids), np.int64)
    for owner, entry in words.items():
        mine = np.flatnonzero(owners == owner) if len(words) > 1 else np.arange(len(owners))
        order = np.argsort(entry.row_ids, kind="stable")
        at = order[np.searchsorted(entry.row_ids, row_ids[mine], sorter=order)]
        total[mine], by_words[mine], around[mine] = entry.totals[at], entry.lexical[at], entry.adjacent[at]
        ordinals[mine] = known[owner].words.postings.ordinals(np.ascontiguousarray(row_ids[mine]))
        groups[mine] = known[owner].group
    # A row that two parts of the request found is one.
    order = np.lexsort((row_ids, ordinals, groups, -(scores + total)))
    order = order[similarities[order] >= params.min_similarity]
    if not params.similarity:
        order = order[total[order] > 0]
    names = owners[order] << 32 | row_ids[order]
    order = order[np.sort(np.unique(names, return_index=True)[1])][:k]
    final = (scores + total).astype(np.float32)
    if not last and len(dense.scores) == scanned:
        bound = float(dense.scores[-1]) + max(entry.least for entry in words.values())
        if len(order) < k or float(final[order[-1]]) <= bound + _SLACK * (1.0 + abs(bound)):
            return None
    return [
        Blended(*cells)
        for cells in zip(
            final[order].tolist(),
            similarities[order].tolist(),
            owners[order].tolist(),
            row_ids[order].tolist(),
            by_words[order].tolist(),
            around[order].tolist(),
            strict=True,
        )
    ]


def _only(request: SearchRequest, owner: int, rows: NDArray[np.int64], n_rows: int) -> SearchRequest:
    """The request over chosen rows of one owner alone."""
    bits = np.zeros((n_rows + 63) // 64 * 64, np.uint8)
    bits[rows] = 1
    mine = (part for part in request.parts if part.owner == owner)
    parts = tuple(msgspec.structs.replace(part, bitmap=_both(part, bits)) for part in mine)
    return msgspec.structs.replace(request, parts=parts)


def _both(part: ScopePart, bits: NDArray[np.uint8]) -> NDArray[np.uint64]:
    words: NDArray[np.uint64] = np.packbits(bits, bitorder="little").view(np.uint64)
    if part.bitmap is not None:
        shared = min(len(words), len(part.bitmap))
        words = words[:shared] & part.bitmap[:shared]
    return words


def most_repeated(request: SearchRequest) -> int:
    """In how many parts of a request its most frequent owner stands."""
    owners = [part.owner for part in request.parts]
    return max((owners.count(owner) for owner in owners), default=1)
