"""Rows, queries and their true neighbours, which NumPy finds: nothing that is measured judges itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from systems import F32, I64, K

_PIECE = 20_000
_CANDIDATES = 4 * K  # by float32 products, of which float64 products choose


class Data:
    """A folder with rows.npy, queries.npy, owners.npy and query_owners.npy, as bench_scan.py takes it.

    real: which queries are rows of the real set, so neither made nor among the rows. Where there are some,
    they alone judge: queries that were made as the rows were lie in the midst of cells, and need half as many
    of them. Settings are tuned on every second one, `tuned`, and measured on the others, `measured`. work:
    where true neighbours are kept."""

    def __init__(self, folder: Path, real: Path | None, work: Path) -> None:
        self.rows: F32 = np.load(folder / "rows.npy")
        self.queries: F32 = np.load(folder / "queries.npy")
        self.owners = np.load(folder / "owners.npy").astype(np.int64)
        self.query_owners = np.load(folder / "query_owners.npy").astype(np.int64)
        self.real = np.zeros(len(self.queries), bool)
        if real is not None:
            known = np.load(real).astype(np.float32)
            known /= np.linalg.norm(known, axis=1, keepdims=True)
            for first in range(0, len(known), 5_000):
                self.real |= (self.queries @ known[first : first + 5_000].T).max(axis=1) > 0.9999
        judged = np.flatnonzero(self.real) if self.real.any() else np.arange(len(self.queries))
        self.tuned, self.measured = judged[::2], judged[1::2]
        known_truth = work / "truth.npy"
        if not known_truth.exists():
            work.mkdir(parents=True, exist_ok=True)
            np.save(known_truth, nearest(self.rows, self.queries))
        self.truth: I64 = np.load(known_truth)

    def recall(self, found: I64, which: NDArray[np.int64], truth: I64 | None = None) -> NDArray[np.float64]:
        """Of each of these queries. AssertionError for an answer that no correct search gives."""
        wanted = self.truth[which] if truth is None else truth
        assert found.shape == wanted.shape, found.shape
        ordered = np.sort(found, axis=1)
        assert not ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(), "a row is found twice"
        hits = (found[:, None, :] == wanted[:, :, None]) & (wanted >= 0)[:, :, None]
        there = (wanted >= 0).sum(axis=1)
        shares: NDArray[np.float64] = np.where(
            there, hits.any(axis=2).sum(axis=1) / np.maximum(there, 1), 1.0
        )
        return shares

    def summary(self, found: I64) -> dict[str, float | None]:
        """Mean recall of the measured queries, and of those that were made, from answers to all."""
        made = np.flatnonzero(~self.real)
        return {
            "recall": float(self.recall(found[self.measured], self.measured).mean()),
            "recall_made": float(self.recall(found[made], made).mean()) if len(made) else None,
        }


def nearest(rows: F32, queries: F32, allowed: NDArray[np.bool_] | None = None) -> I64:
    """(n, K) row numbers of largest float64 products, -1 where there are fewer; of the allowed rows."""
    numbers = np.arange(len(rows)) if allowed is None else np.flatnonzero(allowed)
    best = np.full((len(queries), 0), -1, np.int64)
    scores = np.zeros((len(queries), 0), np.float32)
    for first in range(0, len(numbers), _PIECE):
        part = numbers[first : first + _PIECE]
        products = queries @ rows[part].T
        keep = min(_CANDIDATES, len(part))
        top = np.argpartition(-products, keep - 1, axis=1)[:, :keep]
        best = np.concatenate([best, part[top]], axis=1)
        scores = np.concatenate([scores, np.take_along_axis(products, top, axis=1)], axis=1)
        if best.shape[1] > _CANDIDATES:
            top = np.argpartition(-scores, _CANDIDATES - 1, axis=1)[:, :_CANDIDATES]
            best, scores = (np.take_along_axis(x, top, axis=1) for x in (best, scores))
    out = np.full((len(queries), K), -1, np.int64)
    for i, candidates in enumerate(best):
        exact = rows[candidates].astype(np.float64) @ queries[i].astype(np.float64)
        order = np.lexsort((candidates, -exact))[:K]
        out[i, : len(order)] = candidates[order]
    return out
