"""What takes a Memory's contents elsewhere: backups."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import InputError
from ..records import Backup
from ..types import MemoryItem
from .digests import Digests

if TYPE_CHECKING:
    from ..protocols import Log


class Portable:
    """The part of Memory that makes backups. Memory says what it is about."""

    _log: Log

    def _check_open(self) -> None:
        """Raises StoreClosed when the Memory may not be used any more."""

    def backup(self, root: str | os.PathLike[str], *, verify: bool = True) -> Backup:
        """Make a backup in a new directory below `root`, while readers and writers go on.

        Each is a store of its own, which shares unchanged tables with the store and earlier backups by hard
        links; `warpmem.backups(root)` lists them, `warpmem.restore` brings one back. Writers wait for
        `pause_seconds`. It has every change that was acknowledged before the call. verify: read it back in
        full, and refuse it when anything does not agree. Nothing appears under `root` before it is whole.
        Raises NotSupported for a store in memory, StoreReadOnly, StoreCorrupt, DiskFull, InputError.
        """
        self._check_open()
        if not isinstance(root, (str, os.PathLike)):
            raise InputError(f"root must be a path, not {type(root).__name__}")
        return self._log.backup(os.fspath(root), digests_of, verify=verify)


def digests_of(salt: bytes, item: MemoryItem) -> tuple[bytes | None, bytes | None]:
    """The digests of an item in the store with this salt: of a duplicate, of its key's slot."""
    digests = Digests(salt)
    return digests.duplicate(item), digests.slot(item)
