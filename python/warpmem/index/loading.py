"""Taking an owner's rows in from the log: half of it is done while the other half runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from ..protocols import RowPool
from ..records import RowBlock, RowHeader
from .partition import Partition
from .row_columns import RowTable


def take_in(
    pool: RowPool,
    partition: Partition,
    blocks: Iterable[RowBlock],
    table: Callable[[Sequence[RowHeader], Sequence[Any]], RowTable],
    taken: Callable[[int], None],
) -> None:
    """Append all blocks to an empty partition and to the pool. taken: told the rows so far after each block.

    While the pool takes in one block on a thread of its own, the next is read and decoded.
    """
    partition.loaded()
    pending: Future[None] | None = None
    with contextlib.ExitStack() as stack:
        helper: ThreadPoolExecutor | None = None
        for block in blocks:
            n, next_id = len(block.headers), len(partition.names)
            made = table(block.headers, block.metadata or ())
            ids = np.arange(next_id, next_id + n, dtype=np.int64)
            rows = ((), made.list_ids, ids, made.ordinals, made.columns, block.vectors)
            partition.names.begin(block.names)
            partition.past_until = made.past_until
            if next_id == 0:
                pool.apply(*rows)  # most owners are one block, which is not worth the start of a thread
            else:
                if pending is not None:
                    pending.result()
                helper = helper or stack.enter_context(ThreadPoolExecutor(1, "warpmem-load"))
                pending = helper.submit(pool.apply, *rows)
            taken(next_id + n)
    if pending is not None:
        pending.result()
