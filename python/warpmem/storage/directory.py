"""What a store's directory holds on the file system, looked at before RocksDB touches it.

RocksDB creates a new, empty database wherever the file CURRENT is missing, and adds families to any database
it is pointed at. Both would hide damage or spoil what belongs to somebody else, so it is decided here.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Collection
from typing import Any, Final

from ..errors import FormatError, InputError, StoreCorrupt, StoreError, StoreReadOnly
from ..ops.writer_link import SOCKET_NAME
from .codec import FAMILIES, FIRST_FAMILIES
from .lock import LOCK_NAME
from .reserve import RESERVE_NAME

INDEX_NAME: Final = "warpmem.index"
"""The index checkpoint: derived, and never needed."""

BACKUP_NAME: Final = "warpmem.backup"
"""In a backup: what it is, and the digest of each of its files."""

SNAPSHOT_NAME: Final = "warpmem.snapshot"
"""A directory inside a store while a backup is made of it."""

_OWN_FILES: Final = re.compile(
    r"warpmem\.lock|warpmem\.backup|warpmem\.reserve|warpmem\.socket|warpmem\.index(\.new)?(\.tmp-[\d-]+)?|rocksdict-config\.json|LOCK|IDENTITY|CURRENT|LOG(\.old\.\d+)?|MANIFEST-\d+"
    r"|OPTIONS-\d+(\.dbtmp)?|\d+\.(log|sst|dbtmp)"
)
_DATA_FILES: Final = re.compile(r"\d+\.(log|sst)")
_STATE_FILES: Final = re.compile(r"MANIFEST-\d+|\d+\.(log|sst)")
_MEMORY: Final = ("/dev/shm",)
_SCRATCH_BYTES: Final = 64 << 10  # what RocksDB and its binding write beside the links, and some more
_IGNORED: Final = frozenset({"lost+found", SNAPSHOT_NAME})  # the former: the root of a fresh file system
_UNMIRRORED: Final = frozenset(
    {"LOCK", "LOG", "rocksdict-config.json", INDEX_NAME, RESERVE_NAME, SOCKET_NAME}
)


def absolute(path: str | os.PathLike[str]) -> str:
    """The absolute path, which RocksDB takes as UTF-8, and notes of copies too. Raises InputError,
    StoreError."""
    try:
        found = os.path.abspath(path)
        if b"\0" in found.encode():
            raise InputError(f"the path {os.fspath(path)!r} holds a NUL character")
    except UnicodeError as error:
        raise InputError(f"the path {os.fspath(path)!r} is not UTF-8: name another") from error
    except OSError as error:
        raise StoreError(f"there is no working directory ({error.strerror}): name a whole path") from error
    return found


def prepare(path: str) -> bool:
    """Make sure that `path` holds a store or may become one, see create(); True when it holds one. Changes
    nothing.

    Raises FormatError when it holds something else, StoreCorrupt when it holds the remains of a store,
    StoreError when it cannot be listed.
    """
    try:
        names = _list(path)
    except FileNotFoundError:
        return False
    if "CURRENT" in names:
        return True
    foreign = sorted(name for name in names if not _OWN_FILES.fullmatch(name))
    if foreign:
        raise FormatError(
            f"{path!r} is not a warpmem store and not empty ({len(names)} entries, one is {foreign[0]!r}): "
            "name a new or an empty directory; nothing was changed"
        )
    # Without CURRENT and without data a creation was cut short, and starts over.
    if any(_DATA_FILES.fullmatch(name) for name in names):
        raise StoreCorrupt(
            f"{path!r} holds data files but its file CURRENT is missing: restore the directory from a backup"
        )
    return False


def is_backup(path: str) -> bool:
    """Whether a directory says that it is a backup."""
    return os.path.lexists(os.path.join(path, BACKUP_NAME))


def refuse_backup(path: str) -> None:
    """Raises StoreReadOnly when a directory is a backup: written to, it could not be restored any more."""
    if is_backup(path):
        raise StoreReadOnly(
            f"{path!r} is a backup, which nothing is written to: open it with read_only=True, `restore` it "
            "to a new directory, or copy the directory as it is"
        )


def refuse_inside(store: str, place: str) -> None:
    """Raises InputError when `place`, where a copy of a store is to be made, lies in the store's directory,
    through links too."""
    real = os.path.realpath(store)
    if os.path.commonpath([real, os.path.realpath(place)]) == real:
        raise InputError(f"{place!r} lies inside the store: name a directory outside of it")


def require(path: str) -> None:
    """Make sure that `path` holds a store. Raises FormatError, StoreCorrupt, StoreError; changes nothing."""
    try:
        os.stat(path)
    except OSError as error:
        raise FormatError(
            f"there is no store at {path!r} ({error.strerror}): "
            "only opening for writing creates one; check the path"
        ) from error
    if not prepare(path):
        raise FormatError(
            f"there is no store in {path!r}: only opening for writing creates one; check the path"
        )


def check_families(path: str, found: Collection[str], *, read_only: bool) -> tuple[str, ...]:
    """Make sure that a database's families are a store's. Returns those that a store of an older format does
    not have; only its identity can tell then whether it is one or has lost them (see identity.py).

    Raises FormatError when they are somebody else's, StoreCorrupt when some of a store's are not found.
    """
    unknown = sorted(set(found) - {"default", *FAMILIES})
    missing = [family for family in FAMILIES if family not in found]
    if unknown:
        raise FormatError(
            f"the database in {path!r} has the family {unknown[0]!r}, which warpmem does not know: it was "
            "written by a newer warpmem (upgrade the package) or by something else (name another directory)"
        )
    if not missing:
        return ()
    names = file_names(path)
    if any(_size(path, name) for name in names if _DATA_FILES.fullmatch(name)):
        if not set(missing) & set(FIRST_FAMILIES):
            return tuple(missing)
        if LOCK_NAME in names:
            # RocksDB lists families up to the first damaged record of its MANIFEST, without an error.
            raise StoreCorrupt(
                f"the store in {path!r} shows {len(FAMILIES) - len(missing)} of {len(FAMILIES)} families: "
                "its MANIFEST is damaged; restore the directory from a backup"
            )
        raise FormatError(
            f"the database in {path!r} has {len(FAMILIES) - len(missing)} of {len(FAMILIES)} families: "
            "it is not a warpmem store; name another directory"
        )
    if read_only:
        raise FormatError(
            f"the store in {path!r} was never completely created: open it once without read_only=True"
        )
    return ()


def refuse_older(found: Collection[str]) -> None:
    """Raises FormatError: a store with these families has an older format."""
    raise FormatError(
        f"the store has {len(found) - 1} of {len(FAMILIES)} families, those of an older format: warpmem.open "
        "brings it up to date, after a copy; read_only=True reads it as it is"
    )


def is_ours(path: str) -> bool:
    """Whether a warpmem has opened this directory for writing before."""
    return LOCK_NAME in file_names(path)


def remove_snapshot(path: str) -> None:
    """Remove what a backup has left in a store: its links keep the bytes of deleted tables."""
    shutil.rmtree(os.path.join(path, SNAPSHOT_NAME), ignore_errors=True)


def is_store_file(name: str) -> bool:
    """Whether a store writes files of this name."""
    return _OWN_FILES.fullmatch(name) is not None


def tables(path: str) -> set[str]:
    """The names of RocksDB's tables in a store."""
    return {name for name in file_names(path) if name.endswith(".sst")}


def remove_old_logs(path: str) -> None:
    """Delete RocksDB's logs of earlier openings: they name keys. Raises StoreError."""
    for name in file_names(path):
        if name.startswith("LOG.old."):
            try:
                os.unlink(os.path.join(path, name))
            except OSError as error:
                raise StoreError(f"cannot delete {name!r} in {path!r}: {error.strerror}") from error


def looks_like_store(path: str) -> bool:
    """Whether a directory holds a store, however damaged: files of its names, and data among them. Raises
    StoreError."""
    try:
        names = _list(path)
    except (FileNotFoundError, FormatError):
        return False
    known = [name for name in names if is_store_file(name)]
    return any(_DATA_FILES.fullmatch(name) or name == "CURRENT" for name in known)


def scratch() -> str:
    """A new temporary directory in which files can be written. The caller removes it.

    The usual place may be the disk that is full, in which case memory serves. Raises StoreError.
    """
    failure: OSError | None = None
    for place in (None, *_MEMORY):
        try:
            made = tempfile.mkdtemp(prefix="warpmem-read-only-", dir=place)
        except OSError as error:
            failure = failure or error
            continue
        try:
            with open(os.path.join(made, "probe"), "wb") as probe:
                probe.write(bytes(_SCRATCH_BYTES))
            os.unlink(probe.name)
        except OSError as error:
            shutil.rmtree(made, ignore_errors=True)
            failure = failure or error
        else:
            return made
    reason = "none" if failure is None else failure.strerror
    raise StoreError(
        f"opening this store needs a directory for temporary files ({reason}): set TMPDIR to one"
    ) from failure


def removed_with(owner: object, place: str) -> Any:
    """A finalizer, which may be called before, that removes a directory when `owner` ends; not in a forked
    child, whose parent still has it."""
    return weakref.finalize(owner, _remove, place, os.getpid())


def _remove(place: str, pid: int) -> None:
    if os.getpid() == pid:
        shutil.rmtree(place, ignore_errors=True)


def mirrored(path: str) -> list[str]:
    """The names of a store's files that RocksDB reads. Raises StoreError."""
    return [name for name in file_names(path) if name not in _UNMIRRORED and _OWN_FILES.fullmatch(name)]


def mirror(path: str, links: str) -> None:
    """Make the directory `links` of symbolic links to the files of a store. Raises StoreError."""
    try:
        os.mkdir(links)
        for name in mirrored(path):
            os.symlink(os.path.join(path, name), os.path.join(links, name))
    except OSError as error:
        raise StoreError(f"cannot link to the files of {path!r}: {error.strerror}") from error


def database_id(path: str) -> bytes:
    """What tells a database apart from others that stood or will stand at its path; empty when unknown."""
    try:
        with open(os.path.join(path, "IDENTITY"), "rb") as file:
            return file.read(64)
    except OSError:
        return b""


def data_files(path: str) -> dict[str, int]:
    """The sizes of a store's write-ahead logs and manifests by name, and the names of its tables, which never
    change, with 0. Whatever is written changes it. Raises StoreError."""
    names = [name for name in file_names(path) if _STATE_FILES.fullmatch(name)]
    return {name: 0 if name.endswith(".sst") else _size(path, name) for name in names}


def file_sizes(path: str) -> dict[str, int]:
    """The bytes of all files of a store but its reserve. Raises StoreError."""
    return {name: _size(path, name, follow=False) for name in file_names(path) if name != RESERVE_NAME}


def _size(path: str, name: str, *, follow: bool = True) -> int:
    """0 when it has gone: a writer removes files at any time."""
    try:
        return os.stat(os.path.join(path, name), follow_symlinks=follow).st_size
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise StoreError(f"cannot look at {name!r} in {path!r}: {error.strerror}") from error


def file_names(path: str) -> list[str]:
    """What a directory that is there holds. Raises FormatError, StoreReadOnly, StoreError."""
    try:
        return _list(path)
    except FileNotFoundError as error:
        raise StoreError(f"the directory {path!r} is gone: put it back, or open the store again") from error


def _list(path: str) -> list[str]:
    """Raises as file_names, and FileNotFoundError."""
    try:
        return [name for name in os.listdir(path) if name not in _IGNORED]
    except FileNotFoundError:
        raise
    except NotADirectoryError as error:
        raise FormatError(f"{path!r} is not a directory: name a new or an empty one") from error
    except PermissionError as error:
        raise StoreReadOnly(f"no permission to list {path!r}: give this user read permission") from error
    except OSError as error:
        raise StoreError(f"cannot list {path!r}: {error.strerror}") from error


def make_folders(path: str) -> None:
    """Make a directory and those above it that are missing, whose names survive a power loss then as well as
    what will stand in them. Raises OSError."""
    missing = path
    while not os.path.isdir(parent := os.path.dirname(missing)):
        missing = parent
    there = os.path.isdir(path)
    os.makedirs(path, exist_ok=True)
    _sync_names(path, "" if there else missing)


def _sync_names(path: str, made: str = "") -> None:
    """Sync the names of a directory and of all above it: whoever made them may have died before. Raises
    OSError where the name of `made` or of one below it, which were made just now, cannot be synced."""
    needed = bool(made)
    while (parent := os.path.dirname(path)) != path:
        try:
            folder = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError:
            if needed:
                raise
        needed &= path != made
        path = parent


def create(path: str) -> None:
    """Make a directory for a store, or make sure that one that is there is still there after a power loss.
    Raises StoreReadOnly."""
    try:
        make_folders(path)
    except OSError as error:
        raise StoreReadOnly(f"cannot create the directory {path!r}: {error.strerror}") from error
