"""The scan of one list as a CUDA kernel in Numba: shared memory and barriers, so the simulator runs it too.

    grid    (tiles of ROWS rows, segments), one block each
    dots    a warp's worth of threads ("lanes") takes a row: lane j adds up the elements j, j + 32, ... That
            is accumulator j of the canonical scorer, so the lanes of a row fold to its bits. Neighbouring
            lanes read neighbouring elements.
    fold    sums[ROWS][32] float64 in shared memory, by 16, 8, 4, 2, 1, a barrier after each, all rows at once
    score   thread x has row x of the tile
    select  rank of a row = rows of the tile that stand before it; rows of rank < k go to the output at their
            rank

Shared memory: ROWS (32 * 8 + 4 + 4 + 4) bytes, 17 KiB. The host merges the tiles. Multiplications whose
product is added to something go through `multiply`, which the compiler must not fuse: only products of two
float32 numbers may be.
"""

# mypy: disable-error-code="untyped-decorator,misc"
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import config, cuda
from numba import float32 as f32
from numba import float64 as f64
from numba import int32 as i32
from numpy.typing import NDArray

from ..records import AND, NOT, OR, RANGE
from .canonical import _TAYLOR, key_to_f64
from .numpy_ref import NumpyPool, _Found, _List, _Ranking, found_rows
from .segments import Segments, pack_filters

ROWS = 64
LANES = 32
_INT64_MAX = (1 << 63) - 1
_POWERS = 2.0 ** -np.arange(1023.0)  # exact; 2^n without looking at bits
_SIMULATED = bool(config.ENABLE_CUDASIM)
THREADS = 64 if _SIMULATED else 256

if _SIMULATED:

    @cuda.jit(device=True)
    def multiply(a: Any, b: Any) -> Any:
        """a b, rounded; never part of a fused multiply-add."""
        return a * b

else:
    from numba.cuda import dispatcher, libdevice

    multiply = libdevice.dmul_rn
    # Small lists are small grids, of which each launch would warn. numba-cuda reads a `config` of its own.
    dispatcher.config.CUDA_LOW_OCCUPANCY_WARNINGS = 0


def unavailable() -> str | None:
    """None when a CUDA device or the simulator is there, else the reason."""
    return None if cuda.is_available() else "Numba finds no CUDA device; NUMBA_ENABLE_CUDASIM=1 simulates one"


@cuda.jit(device=True)
def exp2_neg(x: Any, powers: Any) -> Any:
    """2^x for x <= 0, as csrc/core/score.hpp defines it. powers[n] = 2^-n."""
    if not (x >= -1022.0):
        return 0.0
    n = math.floor(x + 0.5)
    y = multiply(x - n, 0.6931471805599453)
    p = _TAYLOR[0]
    for t in range(1, 14):
        p = multiply(p, y)
        p = p + _TAYLOR[t]
    return multiply(p, powers[int(-n)])


@cuda.jit(device=True)
def holds(cell: Any, op: Any, lo: Any, hi: Any, values: Any, offset: Any) -> Any:
    """One term: a range, or one of the ascending values[offset + lo .. offset + hi)."""
    if op == RANGE:
        return lo <= cell and cell <= hi
    lo += offset
    end = offset + hi
    hi = end
    while lo < hi:
        middle = lo + (hi - lo) // 2
        if values[middle] < cell:
            lo = middle + 1
        else:
            hi = middle
    return lo < end and values[lo] == cell


@cuda.jit(device=True)
def passes(i: Any, s: Any, row_ids: Any, columns: Any, segments: Any) -> Any:
    """Filters of one row for segment s, the query and then the arrays of `segments.pack_filters`."""
    _, terms, term_ends, values, value_ends, words, word_ends = segments
    one = np.uint64(1)
    stack = np.uint64(0)  # of truth values, the uppermost in the lowest bit
    depth = 0
    for t in range(term_ends[s], term_ends[s + 1]):
        op = terms[t, 1]
        upper = stack & one
        if op == NOT:
            stack ^= one
        elif op == AND:
            stack = (stack >> one) & (upper | ~one)
            depth -= 1
        elif op == OR:
            stack = (stack >> one) | upper
            depth -= 1
        else:
            cell = columns[i, terms[t, 0]]
            held = holds(cell, op, terms[t, 2], terms[t, 3], values, value_ends[s])
            stack = (stack << one) | np.uint64(held)
            depth += 1
    if depth > 0 and stack << np.uint64(64 - depth) != ~np.uint64(0) << np.uint64(64 - depth):
        return False
    first = word_ends[s]
    if words[first] != 0:
        row_id = row_ids[i]
        if row_id < 0 or row_id // 64 >= word_ends[s + 1] - first - 1:
            return False
        return (words[first + 1 + row_id // 64] >> np.uint64(row_id % 64)) & np.uint64(1) != 0
    return True


@cuda.jit(device=True)
def final_score(
    similarity: Any, weights: Any, settings: Any, columns: Any, numbers: Any, powers: Any, i: Any
) -> Any:
    """The weighted sum of csrc/core/score.hpp for row i. numbers: the columns as the float64 they stand
    for."""
    s = multiply(weights[1], f64(similarity))
    if weights[2] != 0.0:
        then, now = columns[i, settings[0]], settings[2]
        age = 0.0
        if then < now:
            # Beyond int64 the difference wraps to a negative number.
            difference = now - then if (then >= 0 or now < 0 or now <= _INT64_MAX + then) else _INT64_MAX
            age = f64(difference)
        s += multiply(weights[2], exp2_neg(-(age / weights[4]), powers))
    if weights[3] != 0.0:
        s += multiply(weights[3], numbers[i, settings[1]])
    if s != s:
        return f32(-math.inf)
    return f32(s) + f32(0.0)  # -0 becomes +0


@cuda.jit
def scan_kernel(
    row_ids: Any,
    ordinals: Any,
    columns: Any,
    numbers: Any,
    vectors: Any,
    queries: Any,
    segments: Any,
    weights: Any,
    settings: Any,
    powers: Any,
    scores: Any,
    similarities: Any,
    positions: Any,
) -> None:
    """scores, similarities float32 and positions int64 (segments, tiles, kept); positions start as -1."""
    sums = cuda.shared.array((ROWS, LANES), f64)
    shared_scores = cuda.shared.array(ROWS, f32)
    shared_similarities = cuda.shared.array(ROWS, f32)
    alive = cuda.shared.array(ROWS, i32)
    tile, s, thread = cuda.blockIdx.x, cuda.blockIdx.y, cuda.threadIdx.x
    n, dim = vectors.shape
    first = tile * ROWS
    q = segments[0][s]

    for x in range(thread, ROWS, THREADS):
        i = first + x
        alive[x] = 1 if i < n and passes(i, s, row_ids, columns, segments) else 0
    cuda.syncthreads()

    lane = thread % LANES
    for x in range(thread // LANES, ROWS, THREADS // LANES):
        total = f64(0.0)
        if alive[x] != 0:
            for j in range(lane, dim, LANES):
                if settings[3] == 0:
                    total += f64(vectors[first + x, j]) * f64(queries[q, j])
                else:
                    difference = f64(vectors[first + x, j]) - f64(queries[q, j])
                    total += multiply(difference, difference)
        sums[x, lane] = total
    cuda.syncthreads()
    width = LANES // 2
    while width > 0:
        for at in range(thread, ROWS * width, THREADS):
            x, j = at // width, at % width
            sums[x, j] += sums[x, j + width]
        cuda.syncthreads()
        width //= 2

    for x in range(thread, ROWS, THREADS):
        if alive[x] != 0:
            similarity = f32(sums[x, 0])
            if settings[3] != 0:
                similarity = f32(0.0) - similarity
            if f64(similarity) >= weights[0]:
                shared_similarities[x] = similarity
                shared_scores[x] = final_score(
                    similarity, weights, settings, columns, numbers, powers, first + x
                )
            else:
                alive[x] = 0
    cuda.syncthreads()

    for x in range(thread, ROWS, THREADS):
        if alive[x] != 0:
            i, score = first + x, shared_scores[x]
            rank = 0
            for y in range(ROWS):
                if alive[y] != 0 and y != x:
                    other = first + y
                    before = shared_scores[y] > score
                    if shared_scores[y] == score:
                        before = ordinals[other] < ordinals[i]
                        if ordinals[other] == ordinals[i]:
                            before = row_ids[other] < row_ids[i]
                    if before:
                        rank += 1
            if rank < scores.shape[2]:
                scores[s, tile, rank] = score
                similarities[s, tile, rank] = shared_similarities[x]
                positions[s, tile, rank] = i


class NumbaCudaPool(NumpyPool):
    """RowPool whose scan is the kernel above. Every scan copies the lists it needs to the device."""

    @property
    def isa(self) -> str:
        return "numba-cuda"

    def _search(
        self,
        lists: Mapping[int, _List],
        queries: NDArray[np.float32],
        segments: Segments,
        k: int,
        ranking: _Ranking,
    ) -> list[_Found]:
        found: list[_Found] = []
        r = ranking
        weights = (r.min_similarity, r.w_similarity, r.w_recency, r.w_priority, r.half_life)
        settings = (r.recency_column, r.priority_column, r.now, self._metric == "l2")
        weights_on = cuda.to_device(np.array(weights, np.float64))
        settings_on = cuda.to_device(np.array(settings, np.int64))
        powers_on = cuda.to_device(_POWERS)
        queries_on = cuda.to_device(np.ascontiguousarray(queries))
        for list_id, group in segments.by_list():
            if list_id not in lists:
                continue
            rows = lists[list_id]
            tiles, s = -(-len(rows.row_ids) // ROWS), len(group)
            filters = [segments.distinct[i] for i in segments.filters[group].tolist()]
            packed = (segments.queries[group], *pack_filters(filters))
            shape = (s, tiles, min(k, ROWS))
            scores_on = cuda.to_device(np.zeros(shape, np.float32))
            similarities_on = cuda.to_device(np.zeros(shape, np.float32))
            positions_on = cuda.to_device(np.full(shape, -1, np.int64))
            numbers = key_to_f64(rows.columns)
            arrays = (rows.row_ids, rows.ordinals, rows.columns, numbers, rows.vectors)
            scan_kernel[(tiles, s), THREADS](
                *(cuda.to_device(_not_empty(array)) for array in arrays),
                queries_on,
                tuple(cuda.to_device(_not_empty(array)) for array in packed),
                weights_on, settings_on, powers_on, scores_on, similarities_on, positions_on,
            )  # fmt: skip
            scores, similarities = scores_on.copy_to_host(), similarities_on.copy_to_host()
            positions = positions_on.copy_to_host()
            held = positions >= 0
            of_segment = group[np.nonzero(held)[0]]
            part = (positions[held], scores[held], similarities[held])
            found.append(found_rows(rows, list_id, segments, of_segment, *part))
        return found


def _not_empty(array: NDArray[Any]) -> NDArray[Any]:
    """An array that a device can hold: one zero element in place of none."""
    return array if array.size else np.zeros((1,) * array.ndim, array.dtype)
