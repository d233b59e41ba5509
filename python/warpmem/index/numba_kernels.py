"""CPU kernels compiled by Numba: the scan of many lists in one call, and the int8 screen.

A row is looked at in this order, cheapest first; only the canonical score (csrc/core/score.hpp) is kept:

    filters -> int8 screen: can it still enter the k best? -> canonical similarity -> final score -> heap

Screen. A row is r = s c + e with int8 codes c, a query q = t d + f with integers d of up to 16 bits. Then

    q.r = s t (d.c) + f.(s c) + q.e  <=  s t (d.c) + |f| |s c| + |q| |e|

by Cauchy and Schwarz. |s c| and |e| are stored with the row, rounded up. `_SLACK` covers every rounding of
this sum and of the canonical one, which are below (dim / 32 + 10) 2^-53 |q| |r| <= 3e-13 |q| |r| for dim <=
65536. The final score does not decrease with the similarity when its weight is positive, operation by
operation, rounding included; so a bound on the similarity gives one on the score. A comparison with NaN is
false, and only a true one refuses a row.

No fast-math: LLVM fuses no multiply with an addition unless it is told to, and the tests compare every bit.
"""

# mypy: disable-error-code="untyped-decorator,misc,assignment"
from __future__ import annotations

from typing import Any

import numba
import numba.extending
import numpy as np

from .numba_filters import filter_rows, jit

TILE = 1024
"""Rows that a part of the scan reads for all its segments before it goes on: their codes stay in the L2
cache."""

_SLACK = 1e-12
_INT64_MAX = (1 << 63) - 1
_LANES = 32
_TAYLOR = (
    1.6059043836821613e-10, 2.08767569878681e-09, 2.505210838544172e-08, 2.755731922398589e-07,
    2.7557319223985893e-06, 2.48015873015873e-05, 0.0001984126984126984, 0.001388888888888889,
    0.008333333333333333, 0.041666666666666664, 0.16666666666666666, 0.5, 1.0, 1.0,
)  # fmt: skip


@jit()
def dot(a: Any, b: Any, acc: Any) -> Any:
    """Unrounded canonical dot product of a float32 row and a float64 query. acc: 32 float64 of scratch.

    Four chunks of 32 at a time, so that an accumulator is loaded and stored once for four additions."""
    n = a.shape[0]
    acc[:] = 0.0
    blocks = n // 128 * 128
    whole = n // 32 * 32
    for i in range(0, blocks, 128):
        for j in range(_LANES):
            t = acc[j]
            t += np.float64(a[i + j]) * b[i + j]
            t += np.float64(a[i + 32 + j]) * b[i + 32 + j]
            t += np.float64(a[i + 64 + j]) * b[i + 64 + j]
            t += np.float64(a[i + 96 + j]) * b[i + 96 + j]
            acc[j] = t
    for i in range(blocks, whole, 32):
        for j in range(_LANES):
            acc[j] += np.float64(a[i + j]) * b[i + j]
    for j in range(n - whole):
        acc[j] += np.float64(a[whole + j]) * b[whole + j]
    for j in range(16):
        acc[j] += acc[j + 16]
    for j in range(8):
        acc[j] += acc[j + 8]
    for j in range(4):
        acc[j] += acc[j + 4]
    return (acc[0] + acc[2]) + (acc[1] + acc[3])


@jit()
def squared_distance(a: Any, b: Any, acc: Any) -> Any:
    """Canonical, of a float32 and a float64 row. acc: 32 float64 of scratch."""
    n = a.shape[0]
    acc[:] = 0.0
    whole = n // _LANES * _LANES
    for i in range(0, whole, _LANES):
        for j in range(_LANES):
            difference = np.float64(a[i + j]) - b[i + j]
            acc[j] += difference * difference
    for j in range(n - whole):
        difference = np.float64(a[whole + j]) - b[whole + j]
        acc[j] += difference * difference
    for j in range(16):
        acc[j] += acc[j + 16]
    for j in range(8):
        acc[j] += acc[j + 8]
    for j in range(4):
        acc[j] += acc[j + 4]
    return (acc[0] + acc[2]) + (acc[1] + acc[3])


@jit()
def _exp2_neg(x: Any) -> Any:
    """2^x for x <= 0, as csrc/core/score.hpp defines it."""
    if not (x >= -1022.0):
        return 0.0
    n = np.floor(x + 0.5)
    y = (x - n) * 0.6931471805599453
    p = _TAYLOR[0]
    for coefficient in _TAYLOR[1:]:
        p = p * y
        p = p + coefficient
    scale = np.int64((np.int64(n) + 1023) << 52)
    return p * np.int64(scale).view(np.float64)


@jit()
def _age(now: Any, then: Any) -> Any:
    """max(0, now - then) as a float64; a difference beyond int64 saturates."""
    if then >= now:
        return 0.0
    difference = np.uint64(now) - np.uint64(then)
    return np.float64(min(difference, np.uint64(_INT64_MAX)))


@jit()
def _priority(key: Any) -> Any:
    """The float64 whose order-preserving image this is; 0 for the least, a missing value."""
    if key == -_INT64_MAX - 1:
        return 0.0
    bits = key if key >= 0 else key ^ np.int64(_INT64_MAX)
    return np.int64(bits).view(np.float64)


@jit()
def _after(a: Any, b: Any) -> Any:
    """Whether a stands after b: (score, group, ordinal, row id, list id)."""
    if a[0] != b[0]:
        return a[0] < b[0]
    return a[1:] > b[1:]


@jit()
def _entry(best: Any, q: Any, at: Any) -> Any:
    scores, _, groups, ordinals, row_ids, list_ids = best
    return scores[q, at], groups[q, at], ordinals[q, at], row_ids[q, at], list_ids[q, at]


@jit()
def _move(best: Any, q: Any, source: Any, target: Any) -> None:
    scores, similarities, groups, ordinals, row_ids, list_ids = best
    scores[q, target], similarities[q, target] = scores[q, source], similarities[q, source]
    groups[q, target], ordinals[q, target] = groups[q, source], ordinals[q, source]
    row_ids[q, target], list_ids[q, target] = row_ids[q, source], list_ids[q, source]


@jit()
def _offer(best: Any, q: Any, count: Any, row: Any, similarity: Any) -> Any:
    """Put a row into the heap of query q, which has the worst of the k best in front. Returns how many it
    holds now."""
    k = best[0].shape[1]
    if count < k:
        at = count
        count += 1
        while at > 0:
            up = (at - 1) // 2
            if not _after(row, _entry(best, q, up)):
                break
            _move(best, q, up, at)
            at = up
    else:
        if not _after(_entry(best, q, 0), row):
            return count
        at = 0
        while True:
            child = 2 * at + 1
            if child >= k:
                break
            if child + 1 < k and _after(_entry(best, q, child + 1), _entry(best, q, child)):
                child += 1
            if not _after(_entry(best, q, child), row):
                break
            _move(best, q, child, at)
            at = child
    best[0][q, at], best[1][q, at] = row[0], similarity
    best[2][q, at], best[3][q, at], best[4][q, at], best[5][q, at] = row[1], row[2], row[3], row[4]
    return count


@jit()
def _bound(total: Any, step: Any, norm: Any, off: Any, scale: Any, hat: Any, error: Any) -> Any:
    """Not less than the similarity, which is a float32 number; the header derives it."""
    row_hat, row_error = np.float64(hat), np.float64(error)
    bound = np.float64(scale) * step * np.float64(total)
    bound += row_hat * off + row_error * norm + _SLACK * (row_hat + row_error) * (norm + off)
    return np.float64(np.float32(bound))


@jit()
def _dots(codes: Any, chosen: Any, query: Any, total: Any) -> None:
    """Integer dot products of the chosen rows with one query."""
    for x in range(chosen.shape[0]):
        row = codes[chosen[x]]
        a = np.int32(0)
        for j in range(row.shape[0]):
            a = np.int32(a + np.int32(np.int32(row[j]) * np.int32(query[j])))
        total[x] = a


@jit()
def _bounds(
    total: Any,
    step: Any,
    norm: Any,
    off: Any,
    scale: Any,
    hat: Any,
    error: Any,
    weight: Any,
    more: Any,
    out: Any,
) -> None:
    """Of neighbouring rows: out = weight bound + more as float32. Straight, so that it is vectorised."""
    for x in range(out.shape[0]):
        out[x] = np.float32(weight * _bound(total[x], step, norm, off, scale[x], hat[x], error[x]) + more)


@jit()
def _scan_rows(
    first: Any,
    last: Any,
    list_id: Any,
    rows: Any,
    screen: Any,
    queries: Any,
    segments: Any,
    filters: Any,
    weights: Any,
    settings: Any,
    best: Any,
    counts: Any,
) -> None:
    """The rows [first, last) of a list for its segments. The arguments are explained at `scan_parts`."""
    row_ids, ordinals, columns, vectors = rows
    codes, scale, hat, error = screen
    wide, ints, query_scale, query_norm, query_error = queries
    of_query, of_group, of_filter = segments
    terms, term_ends, values, value_ends, words, word_ends = filters
    min_similarity, w_similarity, w_recency, w_priority, half_life = weights
    recency_column, priority_column, now, squared = settings
    front = best[0]  # [q, 0] is the k-th best score of a full heap
    k = front.shape[1]
    screened = codes.shape[0] > 0 and w_similarity > 0.0 and squared == 0
    plain = w_priority == 0.0 and min_similarity == -np.inf
    recency_bound = max(w_recency, 0.0) * (1.0 + 1e-9)  # 0 without recency: adding it changes no comparison
    acc = np.empty(_LANES, np.float64)
    tile = min(TILE, last - first)
    chosen = np.empty(tile, np.int64)
    total = np.empty(tile, np.int32)
    bounds = np.empty(tile, np.float32)
    for begin in range(first, last, TILE):
        end = min(begin + TILE, last)
        for s in range(of_query.shape[0]):
            q, group, f = of_query[s], of_group[s], of_filter[s]
            my_terms = terms[term_ends[f] : term_ends[f + 1]]
            my_values = values[value_ends[f] : value_ends[f + 1]]
            my_words = words[word_ends[f] : word_ends[f + 1]]
            m = filter_rows(begin, end, row_ids, columns, my_terms, my_values, my_words, chosen)
            query = wide[q]
            norm, off, step = query_norm[q], query_error[q], query_scale[q]
            count = counts[q]
            if screened:
                _dots(codes, chosen[:m], ints[q], total)
                if (
                    m == end - begin and count == k and plain
                ):  # nothing but the bound: the common case, vectorised
                    out = bounds[:m]
                    _bounds(
                        total, step, norm, off, scale[begin:end], hat[begin:end], error[begin:end],
                        w_similarity, recency_bound, out,
                    )  # fmt: skip
                    least = front[q, 0]
                    left = 0
                    for x in range(m):
                        chosen[left], total[left] = begin + x, total[x]
                        left += np.int64(not (out[x] < least))
                    m = left
                elif count == k or min_similarity > -np.inf:  # with the threshold that the tile begins with
                    least = front[q, 0] if count == k else np.float32(-np.inf)
                    left = 0
                    for x in range(m):
                        i = chosen[x]
                        near = _bound(total[x], step, norm, off, scale[i], hat[i], error[i])
                        part = w_similarity * near
                        if w_recency != 0.0:
                            part += recency_bound
                        if w_priority != 0.0:
                            part += w_priority * _priority(columns[i, priority_column])
                        chosen[left], total[left] = i, total[x]
                        left += np.int64(not ((near < min_similarity) | (np.float32(part) < least)))
                    m = left
            for x in range(m):
                i = chosen[x]
                if screened and count == k:  # with the threshold of now
                    part = w_similarity * _bound(total[x], step, norm, off, scale[i], hat[i], error[i])
                    if w_recency != 0.0:
                        part += recency_bound
                    if w_priority != 0.0:
                        part += w_priority * _priority(columns[i, priority_column])
                    if np.float32(part) < front[q, 0]:
                        continue
                if squared == 0:
                    similarity = np.float32(dot(vectors[i], query, acc))
                else:
                    similarity = np.float32(0.0) - np.float32(squared_distance(vectors[i], query, acc))
                if not (np.float64(similarity) >= min_similarity):
                    continue
                final = w_similarity * np.float64(similarity)
                if w_recency != 0.0:
                    age = _age(now, columns[i, recency_column])
                    final += w_recency * _exp2_neg(-(age / half_life))
                if w_priority != 0.0:
                    final += w_priority * _priority(columns[i, priority_column])
                if final != final:
                    final = -np.inf
                score = np.float32(final) + np.float32(0.0)  # -0 becomes +0
                if count == k and score < front[q, 0]:
                    continue
                row = (score, group, ordinals[i], row_ids[i], list_id)
                count = _offer(best, q, count, row, similarity)
            counts[q] = count


@numba.extending.intrinsic
def _pointer(context: Any, address: Any) -> Any:
    """An address in an int64 as a pointer, for numba.carray."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(numba.types.voidptr))

    return numba.types.voidptr(address), generate


@jit()
def scan_part(
    p: Any,
    cuts: Any,
    lists: Any,
    shape: Any,
    queries: Any,
    segments: Any,
    filters: Any,
    weights: Any,
    settings: Any,
    best: Any,
    counts: Any,
) -> None:
    """Part p of a scan; see `scan_parts`."""
    n_columns, dim = shape
    of_query, of_group, of_filter, starts, work = segments
    for at in range(lists.shape[0]):
        n, start, end = lists[at, 0], starts[at], starts[at + 1]
        each = end - start
        first = min(max((cuts[p] - work[at] + each - 1) // each, 0), n)
        last = min(max((cuts[p + 1] - work[at] + each - 1) // each, 0), n)
        if first == last:
            continue
        rows = (
            numba.carray(_pointer(lists[at, 2]), (n,), np.int64),
            numba.carray(_pointer(lists[at, 3]), (n,), np.uint32),
            numba.carray(_pointer(lists[at, 4]), (n, n_columns), np.int64),
            numba.carray(_pointer(lists[at, 5]), (n, dim), np.float32),
        )
        coded = n if lists[at, 6] != 0 else 0
        screen = (
            numba.carray(_pointer(lists[at, 6]), (coded, dim), np.int8),
            numba.carray(_pointer(lists[at, 7]), (coded,), np.float32),
            numba.carray(_pointer(lists[at, 8]), (coded,), np.float32),
            numba.carray(_pointer(lists[at, 9]), (coded,), np.float32),
        )
        mine = (of_query[start:end], of_group[start:end], of_filter[start:end])
        _scan_rows(
            first, last, lists[at, 1], rows, screen, queries, mine, filters, weights, settings, best, counts
        )


@jit(parallel=True)
def scan_parts(
    cuts: Any,
    lists: Any,
    shape: Any,
    queries: Any,
    segments: Any,
    filters: Any,
    weights: Any,
    settings: Any,
    best: Any,
    counts: Any,
) -> None:
    """Scan lists in parts, one thread each.

    cuts          (parts + 1,) int64    part p takes the work cuts[p] .. cuts[p + 1]; a row for a segment is 1
    lists         (l, 10) int64    rows, list id, then the addresses of row_ids (n,) int64, ordinals (n,)
                  uint32, columns (n, c) int64, vectors (n, dim) float32, and of the screen's codes (n, dim)
                  int8, scale, hat, error (n,) float32, all 0 without a screen. The caller keeps them alive.
    shape         c, dim
    queries       (q, dim) float64, its integers (q, dim) int16, and their scale, |q|, |q - scale integers|
                  (q,) float64
    segments      list by list: query int64, group uint32, filter int64 (s,); where each list's start
                  (l + 1,), and the work before each list (l,): int64
    filters       the arrays of `segments.pack_filters`
    weights       min_similarity, w_similarity, w_recency, w_priority, half_life
    settings      recency_column, priority_column, now, 1 for the metric l2 or 0 for dot
    best, counts  the k best rows of each query in each part, as heaps: scores, similarities float32, groups,
                  ordinals uint32, row ids, list ids int64, all (parts, q, k); counts (parts, q) int64, which
                  start at 0
    """
    scores, similarities, groups, ordinals, row_ids, list_ids = best
    for p in numba.prange(cuts.shape[0] - 1):
        mine = (scores[p], similarities[p], groups[p], ordinals[p], row_ids[p], list_ids[p])
        scan_part(p, cuts, lists, shape, queries, segments, filters, weights, settings, mine, counts[p])
