"""Masks of filters beside an owner who is read anew or restored: rows of one are not rows of the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import warpmem

ONES = np.ones(8, np.float32)


def test_rows_read_while_the_index_is_restored_are_not_the_restored(tmp_path: Path) -> None:
    with warpmem.open(tmp_path / "store", dimension=8) as memory:
        gone = memory.add("red", vector=ONES, user_id="another")
        memory.add("blue", vector=ONES, user_id="u")
        memory.search(vector=ONES, user_id="u")
        assert memory.checkpoint()
        index: Any = memory._index
        (owner,) = index._partitions
        read, seen = index._read, []

        def reading(checkpoint: Any) -> Any:
            found = read(checkpoint)
            partition = index._partitions.get(owner)
            if partition is not None:
                with partition.lock:
                    index._drop(owner, partition)
            seen.append(index.row_keys(owner))
            return found

        index._read = reading
        memory.erase([gone.id])
        ((generation, _, names),) = seen
        assert index.rows_since(owner, generation, len(names)) is None


def test_row_keys_are_of_a_partition_that_is_there() -> None:
    with warpmem.open(dimension=8) as memory:
        memory.add("red", vector=ONES, user_id="u")
        memory.search(vector=ONES, user_id="u")
        index: Any = memory._index
        ((owner, partition),) = index._partitions.items()
        known, turns = index._partition, []

        def late(owner: int) -> Any:
            turns.append(owner)
            if len(turns) > 1:
                return known(owner)
            with partition.lock:
                index._drop(owner, partition)
            return partition

        index._partition = late
        *_, names = index.row_keys(owner)
        assert len(names) == 1 and names[0] is not None and len(turns) == 2
