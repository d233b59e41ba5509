"""New store directories: complete, synced and under their name, or not there at all; and copies of stores.

Tables and the index checkpoint are never written again once they have their names, so a copy shares them by
hard links where the file system allows it. Everything else (write-ahead logs, MANIFEST, CURRENT, OPTIONS) is
copied: RocksDB goes on writing into those.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import os
import re
import shutil
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

from ..errors import DiskFull, InputError, StoreError, StoreReadOnly
from .directory import INDEX_NAME, is_store_file, make_folders
from .lock import LOCK_NAME, PathLock

T = TypeVar("T")

_IMMUTABLE: Final = re.compile(r"\d+\.sst|" + re.escape(INDEX_NAME))
_LEFT_BEHIND: Final = re.compile(
    r"warpmem\.lock|warpmem\.backup|warpmem\.index\..+|warpmem\.reserve|LOCK|LOG(\.old\.\d+)?|.*\.dbtmp"
)
WHOLE: Final = "whole"  # in a part: what gets the name, and beside it what is thrown away
_SCRATCH: Final = "scratch"
_UNLINKABLE: Final = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES)
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED: Final = (errno.EACCES, errno.EPERM, errno.EROFS)


class Copied(NamedTuple):
    """What a copy took: files and bytes that are written anew, and those shared by hard links."""

    copied_files: int
    copied_bytes: int
    linked_files: int
    linked_bytes: int


# ------------------------------------------------------------------------------------ new directories


class Attempt:
    """What an attempt to make a directory may have left on a disk, even on one that is not there any more."""

    def __init__(self, target: str) -> None:
        self._target = os.path.abspath(target)
        self._parent = os.path.dirname(self._target)
        self._began_in: tuple[int, int] | None = None

    def begin(self) -> None:
        """Remember the parent directory, in which something is made from now on. Raises OSError."""
        self._began_in = _identity(os.stat(self._parent))

    def came_to_nothing(self) -> bool:
        """Whether nothing is on the disk, whole or in part, nor can be after a power loss. Of a disk that
        went away nothing is known: its place may be empty, or be taken by another one."""
        if stands(self._target) or _may_exist(part_of(self._target)):
            return False
        if self._began_in is None:
            return True
        try:
            return sync_path(self._parent) == self._began_in
        except OSError:
            return False


def build(target: str, fill: Callable[[str, str], T], attempt: Attempt | None = None) -> T:
    """Make the directory `target`, which must not exist or be empty, all at once; returns what `fill` does.

    fill     called with the path of a new directory that becomes `target` afterwards, with all that stands in
             it synced, and that of another one for what is thrown away. What it raises leaves nothing behind
    attempt  is told when it begins, and says after an error whether it came to nothing

    The work is done in a hidden directory beside `target`; a process that dies leaves it there, and the next
    one for the same target removes it. Raises InputError when `target` is taken, StoreLocked when another
    process makes it, DiskFull, StoreReadOnly, StoreError; the last also when `target` stands there, but its
    name could not be synced.
    """
    target = os.path.abspath(target)
    check_free_name(target)
    part = part_of(target)
    try:
        make_folders(os.path.dirname(target))
        if attempt is not None:
            attempt.begin()
        with contextlib.suppress(FileExistsError):
            os.mkdir(part)
        if foreign := _foreign(part):
            raise InputError(
                f"{target!r} is made in {part!r}, where something else is ({foreign!r}): move it away, or "
                "name another directory"
            )
        lock = PathLock(part)
        try:
            _empty(part)
            whole, scratch = os.path.join(part, WHOLE), os.path.join(part, _SCRATCH)
            os.mkdir(whole)
            os.mkdir(scratch)
            result = fill(whole, scratch)
            sync_tree(whole)
            os.rename(whole, target)
            _sync_name(target)
        finally:
            try:
                shutil.rmtree(part, ignore_errors=True)
            finally:
                lock.release()
    except OSError as error:
        raise typed(error, target) from error
    return result


def part_of(target: str) -> str:
    """The hidden directory in which `build` makes `target`."""
    parent, name = os.path.split(os.path.abspath(target))
    return os.path.join(parent, f".{name}.part")


def stands(target: str) -> bool:
    """Whether there is more at a path than an empty directory, or may be."""
    try:
        return bool(os.listdir(target))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def _may_exist(path: str) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def remove_part(part: str) -> None:
    """Remove what a process that died has left of a new directory. Raises StoreLocked while one is making it,
    StoreError when it cannot be removed, or holds something else, which stays."""
    try:
        foreign = _foreign(part)
    except OSError as error:
        raise StoreError(f"{part!r} could not be listed: {error.strerror}") from error
    if foreign:
        raise StoreError(f"{part!r} is not what a new directory was made in: it holds {foreign!r}")
    lock = PathLock(part)
    try:
        shutil.rmtree(part)
        sync_path(os.path.dirname(part))
    except OSError as error:
        raise StoreError(f"{part!r} could not be removed: {error.strerror}") from error
    finally:
        lock.release()


def _sync_name(target: str) -> None:
    try:
        sync_path(os.path.dirname(target))
    except OSError as error:
        raise StoreError(
            f"{target!r} was made and is whole, but may be gone after a power loss: its name could not be "
            f"synced ({error.strerror})"
        ) from error


def check_free_name(target: str) -> None:
    """Raises InputError when `target` is anything but an empty directory or nothing at all."""
    try:
        taken = bool(os.listdir(target))
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{target!r} cannot be a new directory: {error.strerror}") from error
    if taken:
        raise InputError(f"{target!r} is not empty: name a directory that does not exist yet")


def _foreign(part: str) -> str | None:
    """The name of something in a part that `build` does not make there. Raises OSError."""
    return next((name for name in sorted(os.listdir(part)) if name not in (WHOLE, _SCRATCH, LOCK_NAME)), None)


def _empty(part: str) -> None:
    """Remove what was left behind by a process that died. The lock file stays: it is held."""
    with os.scandir(part) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            elif entry.name != LOCK_NAME:
                os.unlink(entry.path)


def sync_tree(path: str) -> None:
    """Make a directory, its files and its subdirectories durable. Raises OSError."""
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                sync_tree(entry.path)
            elif entry.is_file(follow_symlinks=False):
                sync_path(entry.path)
    sync_path(path)


def sync_path(path: str) -> tuple[int, int]:
    """Make one file, or the entries of one directory, durable; its device and inode. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
        return _identity(os.fstat(fd))
    finally:
        os.close(fd)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


# -------------------------------------------------------------------------------------------- copies


def copy_store(
    source: str,
    target: str,
    *,
    link: bool = True,
    reuse: str | None = None,
    finish: Callable[[str], None] | None = None,
    attempt: Attempt | None = None,
) -> Copied:
    """Copy the store in `source` to `target`, which must not exist or be an empty directory.

    source  nobody may change it meanwhile: it is closed, or the caller holds its lock; only read here
    link    hard links for files that are never written again, where source and target allow them
    reuse   another directory, an earlier copy: a table found there, byte for byte the same, is linked from
            there when it cannot be linked from `source`
    finish  called with the path of the complete copy before it gets its name; it may open and change it.
            What it raises removes the copy
    attempt  as in `build`

    Raises as `build`.
    """

    def fill(whole: str, scratch: str) -> Copied:
        done = Copied(0, 0, 0, 0)
        for file in sorted(os.listdir(source)):
            if is_store_file(file) and not _LEFT_BEHIND.fullmatch(file):
                shared = link and _IMMUTABLE.fullmatch(file) is not None
                done = _add(done, *_place(file, source, whole, shared, reuse))
        # The mark of a directory that a warpmem has opened: a damaged copy is then known as a store.
        with open(os.path.join(whole, LOCK_NAME), "xb"):
            pass
        if finish is not None:
            sync_tree(whole)
            finish(whole)
        return done

    return build(target, fill, attempt)


def _place(file: str, source: str, copy: str, link: bool, reuse: str | None) -> tuple[int, bool]:
    """Bring one file into the copy; (bytes, whether they are shared)."""
    origin, copy = os.path.join(source, file), os.path.join(copy, file)
    size = os.stat(origin).st_size
    if link and _link(origin, copy):
        return size, True
    if link and reuse is not None:
        earlier = os.path.join(reuse, file)
        # Compared in full: a file number says nothing once a store was repaired or restored.
        if os.path.isfile(earlier) and filecmp.cmp(origin, earlier, shallow=False) and _link(earlier, copy):
            return size, True
    shutil.copyfile(origin, copy)
    shutil.copymode(origin, copy)
    return size, False


def _link(origin: str, copy: str) -> bool:
    try:
        os.link(origin, copy)
    except OSError as error:
        if error.errno in _UNLINKABLE:
            return False
        raise
    return True


def _add(done: Copied, size: int, shared: bool) -> Copied:
    if shared:
        return done._replace(linked_files=done.linked_files + 1, linked_bytes=done.linked_bytes + size)
    return done._replace(copied_files=done.copied_files + 1, copied_bytes=done.copied_bytes + size)


def typed(error: OSError, target: str) -> StoreError:
    """The typed error for one of the file system that kept the directory `target` from being made."""
    if error.errno in _FULL:
        return DiskFull(
            f"no room for {target!r} ({error.strerror}): free some space; the directory was not made"
        )
    if error.errno in _REFUSED:
        return StoreReadOnly(f"no permission to make {target!r} ({error.strerror})")
    where = f" ({error.filename})" if error.filename else ""
    return StoreError(f"{target!r} could not be made: {error.strerror}{where}")
