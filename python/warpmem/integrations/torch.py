"""A training stream as a torch IterableDataset."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from ..compose import open as open_memory
from ..errors import InputError
from ..memory.training import TrainingRecord


class TrainingDataset(IterableDataset[Any]):  # type: ignore[misc]
    """The records of a store on disk, shared among the workers of a DataLoader without overlap.

    path: the store's directory. shard: (rank, how many) of the training processes, of which each worker of a
    DataLoader takes a part. transform: makes of a TrainingRecord what is to be yielded; without one it is
    yielded itself, which needs a `collate_fn`. arguments: as for Memory.training_stream.

    Every worker opens the store for itself, and read-only, so it may be in use meanwhile, and sees it as it
    was then. In a process that has the store open for writing, start workers with
    `multiprocessing_context="spawn"`. state_dict() is that of the process which iterates: with workers it is
    for loaders that ask them for it, as torchdata's StatefulDataLoader does.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        shard: tuple[int, int] = (0, 1),
        transform: Callable[[TrainingRecord], Any] | None = None,
        **arguments: Any,
    ) -> None:
        if "cursor" in arguments:
            raise InputError("cursors are those of shards: use load_state_dict()")
        self._path = os.fspath(path)
        self._shard = shard
        self._transform = transform
        self._arguments = arguments
        self._cursors: dict[str, str] = {}
        self._resume: dict[str, str] = {}

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        number, count = self._shard
        shard = (number * workers + worker, count * workers)
        name = f"{shard[0]}/{shard[1]}"
        with open_memory(self._path, read_only=True) as memory:
            cursor = self._resume.pop(name, None)  # an iteration that is begun anew begins at the beginning
            stream = memory.training_stream(shard=shard, cursor=cursor, **self._arguments)
            for record in stream:
                assert stream.cursor is not None
                self._cursors[name] = stream.cursor
                yield record if self._transform is None else self._transform(record)
        self._cursors.pop(name, None)  # the next epoch begins at the beginning

    def state_dict(self) -> dict[str, Any]:
        """Where each shard that this process iterates over is, as plain values without any text."""
        return {"cursors": dict(self._cursors)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict()` was taken, with as many processes and workers. Raises InputError."""
        cursors = state.get("cursors") if isinstance(state, Mapping) else None
        if not isinstance(cursors, Mapping) or not all(
            isinstance(part, str) for pair in cursors.items() for part in pair
        ):
            raise InputError("this is no state of a TrainingDataset")
        self._cursors, self._resume = dict(cursors), dict(cursors)
