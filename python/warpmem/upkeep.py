"""Looking after stores that are not open: verify, repair, restore. Composed here, made in storage/."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .embed.hashing import HashingEmbedder
from .embed.wordllama import WordLlamaEmbedder
from .errors import FormatError, IndexCorrupt, InputError, StoreError
from .index.cpu import CpuBackend
from .index.numpy_ref import NumpyBackend
from .memory.portable import digests_of
from .memory.vectors import Vectors
from .ops.clock import SystemClock
from .protocols import Embedder
from .records import Backup, StoreIdentity
from .storage import directory
from .storage.backup import restore_backup
from .storage.backup_list import list_backups
from .storage.identity import read_identity
from .storage.log import open_log
from .storage.repair import repair_store
from .storage.reports import RepairReport, VerifyReport
from .storage.rocks import RocksEngine
from .storage.verify import verify_store
from .types.scalars import integer

Progress = Callable[[str, int], None]


def _quiet(what: str, count: int) -> None:
    pass


def verify(
    path: str | os.PathLike[str], *, progress: Progress | None = None, limit: int = 1000
) -> VerifyReport:
    """Read all of a store and say what is wrong with it; only reads, also beside a writer.

    Every block of every table, the checksum of every value, the log without gaps, and whether items,
    versions, vectors, listing, lookup and counters agree. A store that does not open is read file by file.
    progress(what, count) is called about every thousand entries. `limit`: how many faults are listed in full.
    Takes minutes for a million items. Raises FormatError when there is no store, InputError,
    StoreError.
    """
    most = integer(limit, "limit", 0, (1 << 63) - 1)
    return verify_store(
        _checked(path, "path"),
        digests_of,
        progress=progress or _quiet,
        limit=most,
        check_index=_check_index,
    )


def repair(
    path: str | os.PathLike[str],
    new: str | os.PathLike[str],
    *,
    embedder: Embedder | None = None,
    progress: Progress | None = None,
) -> RepairReport:
    """Bring everything whole of a damaged store into a new one at `new`, which must not exist or be empty.

    The original is only read, and the new store's receipts of erasures name it. What is lost is listed by id;
    its entries in the log become stubs. A text that has lost its vector is embedded again, by `embedder` or
    by the built-in model that the store names; without either it stands in history, as that of a deleted item
    does. The result is verified before it appears. Raises InputError when `new` is taken or inside `path`,
    StoreLocked, StoreCorrupt when nothing is whole, DiskFull, FormatError.
    """

    def make_embed(identity: StoreIdentity) -> Callable[[str], NDArray[np.float32]] | None:
        chosen = embedder
        if chosen is None:
            chosen = (
                WordLlamaEmbedder()
                if identity.model_id == WordLlamaEmbedder.model_id
                else HashingEmbedder(identity.dimension)
            )
        if (chosen.model_id, chosen.dimension) != (identity.model_id, identity.dimension):
            if embedder is None:
                return None
            raise InputError(
                f"the store holds vectors of {identity.model_id!r} ({identity.dimension} dimensions), not of "
                f"{chosen.model_id!r} ({chosen.dimension})"
            )
        vectors = Vectors(chosen, NumpyBackend().normalize, identity)
        return lambda text: vectors.normalize(vectors.embed([text], "document"))[0]

    return repair_store(
        _checked(path, "path"), _checked(new, "new"), digests_of, make_embed, progress=progress or _quiet
    )


def backup(path: str | os.PathLike[str], root: str | os.PathLike[str], *, verify: bool = True) -> Backup:
    """As `Memory.backup`, of a store that no process has open for writing. Raises StoreLocked, FormatError
    when there is no store, StoreReadOnly when it is a backup, and as that."""
    place = _checked(path, "path")
    directory.require(directory.absolute(place))
    engine = RocksEngine(place)
    try:
        identity = read_identity(engine)
        if identity is None:
            raise FormatError(f"the store at {place!r} was never completely created: there is nothing in it")
        log = open_log(engine, SystemClock(), model_id=identity.model_id, dimension=identity.dimension)
    except BaseException:
        engine.close()
        raise
    try:
        return log.backup(_checked(root, "root"), digests_of, verify=verify)
    finally:
        log.close()


def backups(root: str | os.PathLike[str]) -> tuple[Backup, ...]:
    """The backups that `Memory.backup` made below `root`, oldest first. Raises StoreError, StoreCorrupt when
    one does not say what it is."""
    return list_backups(_checked(root, "root"))


def restore(backup: str | os.PathLike[str], path: str | os.PathLike[str], *, link: bool = True) -> Backup:
    """Make `path`, which must not exist or be empty, a store with the content of one backup.

    link: tables, which are never written again, are hard links where the file system allows it; False copies
    them. Everything else is copied in any case, and every file is compared with its digest. The new store's
    receipts of erasures name the backup and the others of its store below the same root. Raises InputError
    when `path` is taken or inside the backup, StoreCorrupt when the backup is damaged or was written to,
    FormatError when there is none, StoreLocked, DiskFull.
    """
    return restore_backup(_checked(backup, "backup"), _checked(path, "path"), link=link)


def _check_index(path: str) -> str | None:
    """Read every page of an index checkpoint; what is wrong with it, or None. Without the native module it
    cannot be read, and is never used either."""
    backend = CpuBackend()
    if backend.available() is not None:
        return None
    try:
        pool, _ = backend.open_pool(path)
        for list_id in pool.lists().tolist():
            row_ids = pool.rows(list_id)[0]
            pool.vectors(list_id, row_ids)
    except (IndexCorrupt, FormatError, StoreError) as error:
        return str(error)
    return None


def _checked(path: str | os.PathLike[str], name: str) -> str:
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"{name} must be a path, not {type(path).__name__}")
    return os.fspath(path)
