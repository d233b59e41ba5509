"""Taking an owner's rows in from the log: half of it is done while the other half runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..protocols import RowPool
from ..records import RowBlock, RowHeader
from .partition import Partition
from .row_columns import RowTable

_WORTH_A_THREAD = 4096


def take_in(
    pool: RowPool,
    partition: Partition,
    blocks: Iterable[RowBlock],
    table: Callable[[Sequence[RowHeader], Sequence[Any], NDArray[np.float32]], RowTable],
    taken: Callable[[int], None],
) -> None:
    """Append all blocks to an empty partition and to the pool. taken: told the rows so far after each block.

    Reading a block, making its columns and taking it into the pool go on side by side for three blocks.
    """
    partition.loaded()
    found = iter(blocks)
    block = next(found, None)
    with contextlib.ExitStack() as stack:
        helpers: ThreadPoolExecutor | None = None
        taking: Future[None] | None = None
        while block is not None:
            following = None
            if len(block.headers) >= _WORTH_A_THREAD:
                helpers = helpers or stack.enter_context(ThreadPoolExecutor(2, "warpmem-load"))
                following = helpers.submit(next, found, None)
            n, next_id = len(block.headers), len(partition.names)
            made = table(block.headers, block.metadata or (), block.vectors)
            ids = np.arange(next_id, next_id + n, dtype=np.int64)
            rows = ((), made.list_ids, ids, made.ordinals, made.columns, block.vectors)
            partition.names.begin(block.names)
            partition.past_until = made.past_until
            if helpers is None:
                pool.apply(*rows)
            else:
                if taking is not None:
                    taking.result()
                taking = helpers.submit(pool.apply, *rows)
            taken(next_id + n)
            block = next(found, None) if following is None else following.result()
        if taking is not None:
            taking.result()
