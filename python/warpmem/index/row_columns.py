"""What a store's rows say to the scan: one int64 cell a column, by the block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..records import NEVER, Row, RowHeader, ScopePart, Term
from .columns import float_image
from .item_columns import ItemColumns
from .partition import Partition, lists_of

VALID_FROM, VALID_TO, RECORDED_AT, RETIRED_AT, EXPIRES_AT, PRIORITY, KIND, AGENT, RUN = range(9)
N_COLUMNS = 9
_NOBODY = -1


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
    declared: ItemColumns,
    kind_code: Callable[[str], int],
) -> RowTable:
    """The cells of rows of one owner. Strings that are new get their codes here."""
    ends = [min(row.valid_to, row.retired_at) for row in rows]
    current, past = lists_of(owner)
    images = {priority: float_image(priority) for priority in {row.priority for row in rows}}
    kinds = {kind: kind_code(kind) for kind in dict.fromkeys([row.kind for row in rows])}
    cells: list[Sequence[int]] = [
        [row.valid_from for row in rows],
        [row.valid_to for row in rows],
        [row.recorded_at for row in rows],
        [row.retired_at for row in rows],
        [row.expires_at for row in rows],
        [images[row.priority] for row in rows],
        [kinds[row.kind] for row in rows],
        _codes(partition, "a", [row.agent_id for row in rows]),
        _codes(partition, "r", [row.run_id for row in rows]),
    ]
    if len(declared):
        cells += zip(*(declared.encode(entry, partition) for entry in metadata), strict=True)
    columns = np.array(cells, np.int64).reshape(N_COLUMNS + len(declared), len(rows))
    return RowTable(
        np.array([current if end == NEVER else past for end in ends], np.int64),
        np.array([row.ordinal for row in rows], np.uint32),
        np.ascontiguousarray(columns.T),
        max([partition.past_until, *(end for end in ends if end != NEVER)]),
    )


def _codes(partition: Partition, tag: str, names: Sequence[str | None]) -> list[int]:
    codes = partition.codes
    return [_NOBODY if name is None else codes.setdefault(tag + name, len(codes)) for name in names]


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
