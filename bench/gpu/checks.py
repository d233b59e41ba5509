"""What an answer should be, from float64 products that share no code with the package."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import data
import numpy as np

CLOSE = 1e-6
"""More than the rounding of a canonical score to float32; near ties may change places within it."""


def products(xp: Any, rows: Any, query: Any) -> Any:
    """(n,) float64 on the host: products of a query with the rows as they are kept, in float16."""
    parts = []
    wide = xp.asarray(query, xp.float64)
    for first in range(0, len(rows), data.CHUNK):
        part = rows[first : first + data.CHUNK].astype(xp.float16).astype(xp.float64)
        parts.append(data.to_host(part @ wide))
    return np.concatenate(parts) if parts else np.zeros(0)


def best(similarities: Any, row_ids: Any, count: int, ids: Any, exact: Any, k: int) -> bool:
    """Whether one query's answer names the k best of `ids`, whose true values are `exact`, best first."""
    n = min(k, len(ids))
    given = np.asarray(row_ids[:n])
    if count != n or len(set(given.tolist())) != n:
        return False
    order = np.argsort(ids)
    at = order[np.searchsorted(ids, given, sorter=order).clip(0, max(0, len(ids) - 1))] if n else order[:0]
    if not np.array_equal(ids[at], given):
        return False
    true = exact[at]
    wanted = np.sort(exact)[::-1][:n]
    return bool((np.abs(similarities[:n] - true) <= CLOSE).all() and (np.abs(true - wanted) <= CLOSE).all())


def scan(
    xp: Any, found: Any, queries: Any, rows_of: Callable[[int], tuple[Any, Any]], k: int, some: Sequence[int]
) -> bool:
    """Whether the answers to queries `some` are right. rows_of(query): row ids (NumPy) and rows (of `xp`)."""
    similarities, row_ids, counts = (np.asarray(data.to_host(xp.asarray(found[i]))) for i in (1, 3, 4))
    for q in some:
        ids, rows = rows_of(q)
        exact = products(xp, rows, queries[q])
        if not best(similarities[q], row_ids[q], int(counts[q]), ids, exact, k):
            return False
    return True


def spread(n: int, most: int = 8) -> list[int]:
    """Some of range(n), the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, n - 1, min(n, most))})


def nearest(xp: Any, blocks: Any, queries: Any, k: int) -> Any:
    """(q, k) int64 on the host: for each query the rows of the k largest float32 products with all blocks."""
    kept_scores: Any = None
    kept_ids: Any = None
    for first, rows in blocks:
        scores = queries @ rows.astype(xp.float32).T
        n = min(k, scores.shape[1])
        values, top = largest(xp, scores, n)
        ids = top + first
        if kept_ids is not None:
            ids = xp.concatenate([kept_ids, ids], axis=1)
            values = xp.concatenate([kept_scores, values], axis=1)
        order = xp.argsort(-values, axis=1)[:, :k]
        kept_ids, kept_scores = (xp.take_along_axis(part, order, axis=1) for part in (ids, values))
    return np.asarray(data.to_host(kept_ids), np.int64)


def largest(xp: Any, scores: Any, k: int) -> tuple[Any, Any]:
    """(values, places) of the k largest of each row, in any order: by torch where CuPy would sort it all."""
    if hasattr(xp, "cuda") and importlib.util.find_spec("torch") is not None:
        import torch

        values, places = torch.topk(torch.from_dlpack(scores), k, dim=1)
        return xp.from_dlpack(values), xp.from_dlpack(places)
    places = xp.argpartition(-scores, k - 1, axis=1)[:, :k]
    return xp.take_along_axis(scores, places, axis=1), places


def recall(found: Any, truth: Any) -> float:
    """The share of true neighbours, (q, k) row ids, that were found."""
    return float((np.asarray(found)[:, None, :] == truth[:, :, None]).any(axis=2).mean())
