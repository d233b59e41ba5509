"""How an approximate index is trained: pure functions of its size."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MIN_ROWS = 20_000
"""Owners with fewer rows are scanned exactly: that takes less time than looking for cells saves."""

_LANES = 32
_PIECE = 4  # elements of a subspace: 16 entries for 4 numbers, a nibble
_MAX_SUBSPACES = 256
_CELL = 100  # rows, on average at least: pages of 64 stand half empty in smaller ones
_ROWS_A_CELL = 16  # trained on, and more where there are few cells
_SAMPLE = 32_768  # rows with which better cells cost less than a second
_PQ_SAMPLE = 65_536


class TrainingPlan(NamedTuple):
    """n_lists cells by k-means over `sample` rows; pq_dim subspaces of 4-bit codes over `pq_sample` rows.

    threads: how many each step uses."""

    n_lists: int
    sample: int
    iterations: int
    pq_dim: int
    pq_sample: int
    pq_iterations: int
    threads: int


class Cells(NamedTuple):
    """One owner's cells, with ids first .. first + n_cells - 1, and how they are searched.

    spherical: a row belongs to the centroid of largest dot product, else to the nearest; to one that is
    nearly so where codes choose it. recall: what was
    measured with these n_probes and refine, on middles of rows; recall_rows: on rows themselves."""

    n_cells: int
    first: int
    spherical: bool
    n_probes: int
    refine: int
    recall: float = float("nan")
    recall_rows: float = float("nan")

    @property
    def ids(self) -> NDArray[np.int64]:
        return np.arange(self.first, self.first + self.n_cells, dtype=np.int64)


def padded(dim: int) -> int:
    """`dim` rounded up to a multiple of 32: what codebooks cover."""
    return (dim + _LANES - 1) // _LANES * _LANES


def plan_training(n_rows: int, dim: int, threads: int) -> TrainingPlan:
    """What to train for one owner of `n_rows` rows of `dim` dimensions.

    Cells: 3 sqrt(n). With 2 sqrt(n) a query of a million rows reads a third more codes for the same recall;
    with more it takes longer to train and to assign than is worth it. Below 90,000 rows fewer, of 100 rows:
    of 20,000 text embeddings 24 of 200 cells hold as many neighbours as 32 of 400, and are read sooner. That
    takes ten rounds of training over most rows. Codes: 4 elements a nibble, an eighth of a byte a
    dimension. They are codes of the rows, not of what a centroid leaves of them: on a million text
    embeddings of 384 dimensions both gave the same recall, and so codes do not depend on the cells and one
    table serves all cells of a query.
    """
    n_lists = min(max(min(round(3 * math.sqrt(n_rows)), n_rows // _CELL), 1), 65_536)
    sample = min(n_rows, max(_ROWS_A_CELL * n_lists, _SAMPLE))
    piece = _PIECE
    while padded(dim) // piece > _MAX_SUBSPACES:
        piece *= 2
    return TrainingPlan(
        n_lists=n_lists,
        sample=sample,
        iterations=10 if sample <= _SAMPLE else 6,
        pq_dim=padded(dim) // piece,
        pq_sample=min(n_rows, _PQ_SAMPLE),
        pq_iterations=12,
        threads=threads,
    )


def ladder(top: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, 16, ... up to `top`, which is the last."""
    steps = [1]
    while steps[-1] < top:
        last = steps[-1]
        power = 1 << (last.bit_length() - 1)
        steps.append(last + 1 if last < 4 else last + power // 2)
    return [step for step in steps if step < top] + [top]


def cost(n_probes: int, refine: int, *, rows_a_cell: float, code_bytes: int, row_bytes: int, k: int) -> float:
    """Bytes that a query reads, those of rescored rows four times: they lie apart, and measured four times as
    dear as codes on a million rows."""
    return n_probes * rows_a_cell * code_bytes + 4.0 * refine * k * row_bytes
