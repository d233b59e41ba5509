"""The file of an index checkpoint, for backends that read it and for those that can only take it away."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ..errors import StoreError
from ..protocols import Log, RowPool
from ..records import RowChange
from .partition import Partition


class Restored(NamedTuple):
    """What a checkpoint gave: rows in a pool, whose they are, and what has happened since."""

    pool: RowPool
    kinds: dict[str, int]
    partitions: dict[int, Partition]
    changes: list[RowChange]


class CheckpointFile:
    """The place of a checkpoint in a store whose backend reads and writes none: another one may have left
    its file there, which an erasure must not leave."""

    def __init__(self, path: str, log: Log) -> None:
        self._path = path
        self._log = log

    def read(self, dimension: int, n_columns: int) -> Restored:
        """What the file holds. Raises FileNotFoundError where there is none for this backend."""
        raise FileNotFoundError(self._path)

    def write(self, pool: RowPool, kinds: Mapping[str, int], partitions: Mapping[int, Partition]) -> bool:
        """Save a pool; False where it was not."""
        return False

    def exists(self) -> bool:
        """Whether there is a file that this process may map, or what a killed process left of one."""
        return os.path.exists(self._path) or bool(self._beside())

    def remove(self) -> None:
        """Delete the file and what was left beside it; the log has what they held. Between two changes.
        Raises StoreError."""
        try:
            self.discard()
            sync_folder(self._path)
        except OSError as error:
            raise StoreError(f"cannot delete {self._path!r}: {error.strerror}") from error

    def between_changes(self, do: Callable[[], None]) -> None:
        """Call `do` while no change is made, and nothing saved."""
        self._log.transact(lambda transaction: do())

    def discard(self) -> None:
        """Remove the file, before rows of another model take its place. On the committer thread. Raises
        StoreError."""
        for name in (*self._beside(), self._path):
            try:
                os.unlink(name)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StoreError(f"cannot delete {name!r}: {error.strerror}") from error

    def tidy(self) -> None:
        """Remove what saving left behind when its process was killed, as far as that can be removed."""
        for left in self._beside():
            with contextlib.suppress(OSError):
                os.unlink(left)

    def _beside(self) -> list[str]:
        """What killed processes left, as long as nothing is being saved: nobody else writes to a store."""
        return glob.glob(glob.escape(self._path) + ".*")


def sync_folder(path: str) -> None:
    """Make what was renamed to `path`, or deleted there, durable."""
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
