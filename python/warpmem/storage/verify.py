"""Verifying a store: every block, every checksum, and whether the families agree. Only reads.

First every entry of every family is read and its checksum compared; then, if all blocks could be read, what
they say is held against each other (verify_items.py, verify_log.py). A store that does not open is read file
by file (files.py), again if files came or went meanwhile. Nothing is written, so it works on a full disk and
beside a writer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

from ..errors import FormatError, StoreCorrupt, StoreError
from ..protocols import Engine
from ..protocols.storage import DigestsOf
from ..records import StoreIdentity
from . import codec, directory
from .files import examine_files
from .identity import read_identity
from .lock import is_held
from .reports import Faults, VerifyReport
from .rocks import RocksEngine
from .steady import changed
from .verify_items import ItemsFound, verify_items
from .verify_log import verify_costs, verify_log, verify_owners

Progress = Callable[[str, int], None]
"""progress(what is being read, how many entries of it so far), about every thousand entries."""

_STEP = 1000
_READINGS = 5
_END = b"\xff" * 64
_UNFINISHED = b"erase"  # keys of family meta that name an erasure under way begin so


def verify_store(
    path: str,
    digests: DigestsOf,
    *,
    progress: Progress = lambda what, count: None,
    limit: int = 1000,
    check_index: Callable[[str], str | None] | None = None,
) -> VerifyReport:
    """Read all of the store at `path`.

    limit        how many faults are listed in full
    check_index  what is wrong with the index checkpoint at a path, or None

    Raises FormatError when it is no store or is just being made, StoreError when it cannot be read for other
    reasons than damage.
    """
    started = time.monotonic()
    path = directory.absolute(path)
    faults = Faults(limit)
    if not directory.looks_like_store(path):
        raise FormatError(f"there is no store at {path!r}: check the path")
    entries: dict[str, int] = {}
    files: dict[str, str] = {}
    found = ItemsFound()
    identity: StoreIdentity | None = None
    opened = complete = False
    sequence = 0
    before = directory.data_files(path)
    try:
        engine = RocksEngine(path, read_only=True)
    except StoreCorrupt as error:
        faults, files, entries = _read_files(path, str(error), limit, progress)
    else:
        opened = True
        try:
            readable = _read_everything(engine, faults, entries, progress)
            if not faults.listed and not any(entries.values()):
                _check_made(path, before)
            identity = _identity(engine, faults)
            sequence = _last_sequence(engine)
            unfinished = any(True for _ in engine.scan("meta", *codec.prefix_range(_UNFINISHED)))
            if readable and identity is not None and not unfinished:
                complete = True
                owners = verify_owners(engine, identity, faults)
                found = verify_items(engine, identity, owners, digests, faults, progress)
                verify_costs(engine, owners, faults)
                verify_log(engine, identity, found, faults, progress)
        except StoreCorrupt as error:
            # In a block that only a single read meets: a filter, for example.
            faults.note("file", str(error))
            complete = False
        finally:
            engine.close()
    index = os.path.join(path, directory.INDEX_NAME)
    if check_index is not None and os.path.exists(index):
        wrong = check_index(index)
        if wrong is not None and os.path.exists(index):
            faults.note("index", f"{wrong}; it is derived, and made anew when the store is opened")
    return VerifyReport(
        path=path,
        ok=complete and not faults.listed,
        opened=opened,
        complete=complete,
        format=None if identity is None else identity.format,
        model_id=None if identity is None else identity.model_id,
        dimension=None if identity is None else identity.dimension,
        items=found.items,
        owners=found.owners,
        sequence=sequence,
        entries=entries,
        faults=tuple(faults.listed),
        more=faults.more,
        files=files,
        seconds=time.monotonic() - started,
    )


def _read_files(
    path: str, wrong: str, limit: int, progress: Progress
) -> tuple[Faults, dict[str, str], dict[str, int]]:
    """(faults, a sentence for each file, whole entries by family) of a store that does not open."""
    for _ in range(_READINGS):
        before = directory.data_files(path)
        faults = Faults(limit)
        faults.note("file", wrong)
        try:
            files, entries = examine_files(path, faults, progress)
        except StoreError:
            if not changed(path, before):
                raise
        else:
            if not changed(path, before):
                return faults, files, entries
    faults = Faults(limit)
    faults.note("file", wrong)
    faults.note("file", "files are replaced too quickly to be read one by one: verify when no process writes")
    return faults, {}, {}


def _check_made(path: str, before: Mapping[str, int]) -> None:
    """Raises FormatError for an empty store that another process was making since `before`."""
    if is_held(path) or directory.data_files(path) != before:
        raise FormatError(f"the store at {path!r} is being made, and nothing is in it yet: verify it later")


def _read_everything(engine: Engine, faults: Faults, entries: dict[str, int], progress: Progress) -> bool:
    """Read every entry of every family; whether every block could be read."""
    readable = True
    for family in codec.FAMILIES:
        entries[family] = 0
        last = _read_family(engine, family, b"", faults, entries, progress, reverse=False)
        if last is not None:
            readable = False
            # What lies behind the unreadable block is reached from the other end.
            _read_family(engine, family, last, faults, entries, progress, reverse=True)
    return readable


def _read_family(
    engine: Engine,
    family: str,
    start: bytes,
    faults: Faults,
    entries: dict[str, int],
    progress: Progress,
    *,
    reverse: bool,
) -> bytes | None:
    """Read from one end to the other or to an unreadable block; then the key after the last one read."""
    last = b""
    try:
        for key, value in engine.scan(family, start, _END, reverse=reverse):
            last = key + b"\0"
            try:
                codec.unseal(family, key, value)
            except StoreError as error:
                faults.note(family, str(error), key)
                continue
            entries[family] += 1
            if entries[family] % _STEP == 0:
                progress(family, entries[family])
    except StoreCorrupt as error:
        faults.note(family, f"entries cannot be read: {error}")
        return last
    return None


def _identity(engine: Engine, faults: Faults) -> StoreIdentity | None:
    try:
        identity = read_identity(engine)
    except StoreCorrupt as error:
        faults.note("meta", str(error), b"identity")
        return None
    if identity is None:
        faults.note("meta", "the store's identity is missing", b"identity")
    return identity


def _last_sequence(engine: Engine) -> int:
    for key, _ in engine.scan("log", b"", _END, reverse=True):
        return codec.read_log_key(key)
    return 0
