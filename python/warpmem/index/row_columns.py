"""What a store's rows say to the scan: one int64 cell a column, by the block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..ops.blank import blank_rows
from ..records import NEVER, Row, RowHeader, ScopePart, Term
from .columns import float_image
from .item_columns import ItemColumns
from .partition import BLANK, PAST, Partition

VALID_FROM, VALID_TO, RECORDED_AT, RETIRED_AT, EXPIRES_AT, PRIORITY, KIND, AGENT, RUN = range(9)
N_COLUMNS = 9
_NOBODY = -1

V = TypeVar("V")


class RowTable(NamedTuple):
    """Of n rows: list_ids (n,) int64, ordinals (n,) uint32, columns (n, n_columns) int64, and the latest end
    of truth or knowledge among them and their partition's past rows."""

    list_ids: NDArray[np.int64]
    ordinals: NDArray[np.uint32]
    columns: NDArray[np.int64]
    past_until: int


def table(
    owner: int,
    partition: Partition,
    rows: Sequence[Row | RowHeader],
    metadata: Sequence[Any],
    vectors: NDArray[np.float32],
    declared: ItemColumns,
    kind_code: Callable[[str], int],
) -> RowTable:
    """The cells of rows of one owner, vectors (n, dim). Strings that are new get their codes here."""
    cells: list[Sequence[int]] = [
        [row.valid_from for row in rows],
        [row.valid_to for row in rows],
        [row.recorded_at for row in rows],
        [row.retired_at for row in rows],
        [row.expires_at for row in rows],
        _coded([row.priority for row in rows], float_image),
        _coded([row.kind for row in rows], kind_code),
        _coded([row.agent_id for row in rows], lambda name: _code(partition, "a", name)),
        _coded([row.run_id for row in rows], lambda name: _code(partition, "r", name)),
    ]
    if len(declared):
        cells += zip(*(declared.encode(entry, partition) for entry in metadata), strict=True)
    columns = np.array(cells, np.int64).reshape(N_COLUMNS + len(declared), len(rows))
    list_ids = np.full(len(rows), 2 * owner, np.int64)
    past_until = partition.past_until
    if any(min(cells[column], default=NEVER) != NEVER for column in (VALID_TO, RETIRED_AT)):
        ends = np.minimum(columns[VALID_TO], columns[RETIRED_AT])
        ended = ends != NEVER
        past_until = max(past_until, int(ends[ended].max()))
        list_ids += PAST * ended
    blank = blank_rows(vectors)
    if blank.any():
        partition.blank = True
        list_ids += BLANK * blank
    return RowTable(
        list_ids,
        np.array([row.ordinal for row in rows], np.uint32),
        columns.T.copy(),
        past_until,
    )


def _coded(values: Sequence[V], code: Callable[[V], int]) -> list[int]:
    """The codes of values, each asked for once, in the order of first appearance."""
    if len(values) == 1:
        return [code(values[0])]
    codes = {value: code(value) for value in dict.fromkeys(values)}
    if len(codes) == 1:
        return [*codes.values()] * len(values)
    return [codes[value] for value in values]


def _code(partition: Partition, tag: str, name: str | None) -> int:
    return _NOBODY if name is None else partition.codes.setdefault(tag + name, len(partition.codes))


def narrow(partition: Partition, part: ScopePart) -> list[Term] | None:
    """Terms for a scope's attributes; None when no row can have them."""
    terms: list[Term] = []
    for column, tag, name in ((AGENT, "a", part.agent_id), (RUN, "r", part.run_id)):
        if name is not None:
            code = partition.codes.get(tag + name)
            if code is None:
                return None
            terms.append((column, 0, code, code))
    return terms
