"""Filters of the Numba scan: which rows of a tile pass the terms and the bitmap of a segment."""

# mypy: disable-error-code="untyped-decorator,misc,assignment"
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from ..records import AND, NOT, OR, RANGE


def jit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compiled at the first call and kept on disk; in memory alone where no cache directory can be
    written."""
    options = {"nogil": True, "error_model": "numpy", **options}

    def compiled(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:
            return numba.njit(**options)(function)

    return compiled


@jit()
def _holds(cell: Any, op: Any, lo: Any, hi: Any, values: Any) -> Any:
    """One test: a range, or one of the ascending values[lo:hi]."""
    if op == RANGE:
        return (lo <= cell) & (cell <= hi)
    at = lo + np.searchsorted(values[lo:hi], cell)
    return at < hi and values[at] == cell


@jit()
def _joined(cells: Any, terms: Any, values: Any) -> Any:
    """A program of terms on one row. The stack of truth values is a word, the uppermost in its lowest bit."""
    one = np.uint64(1)
    stack, depth = np.uint64(0), 0
    for t in range(terms.shape[0]):
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
            held = _holds(cells[terms[t, 0]], op, terms[t, 2], terms[t, 3], values)
            stack = (stack << one) | np.uint64(held)
            depth += 1
    left = np.uint64(64 - depth)
    return stack << left == ~np.uint64(0) << left


@jit()
def filter_rows(
    first: Any, last: Any, row_ids: Any, columns: Any, terms: Any, values: Any, words: Any, chosen: Any
) -> Any:
    """Positions of [first, last) that pass, in `chosen`; returns how many. Branch-free for ranges and
    bitmaps. A program, which ends with a test or more on its stack, takes the rows one by one."""
    joined = False
    for t in range(terms.shape[0]):
        joined |= terms[t, 1] >= AND
    m = 0
    if words[0] == 0:
        for i in range(first, last):
            chosen[m] = i
            m += 1
    else:
        bits = np.int64(words.shape[0] - 1) * 64
        for i in range(first, last):
            row_id = row_ids[i]
            inside = row_id >= 0 and row_id < bits
            word = words[1 + (row_id >> 6)] if inside else np.uint64(0)
            chosen[m] = i
            m += np.int64((word >> np.uint64(row_id & 63)) & np.uint64(1))
    if joined:
        passed = 0
        for x in range(m):
            i = chosen[x]
            chosen[passed] = i
            passed += np.int64(_joined(columns[i], terms, values))
        return passed
    for t in range(terms.shape[0]):
        column, op, lo, hi = terms[t, 0], terms[t, 1], terms[t, 2], terms[t, 3]
        passed = 0
        for x in range(m):
            i = chosen[x]
            chosen[passed] = i
            passed += np.int64(_holds(columns[i, column], op, lo, hi, values))
        m = passed
    return m
