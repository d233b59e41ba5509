"""Reading the files of a store that another process may be writing.

A writer names new files in MANIFEST and removes old ones at any time. Who reads them meanwhile misses some,
which looks like damage. So damage is believed only when no file came or went while it was met, or when it is
met in files that were held open together, which stay what they are when they are removed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from ..errors import StoreError
from . import directory

_SECONDS: Final = 10.0
_DESCRIPTORS: Final = "/proc/self/fd"
_PIECE: Final = 1 << 20


def changed(path: str, before: Mapping[str, int]) -> bool:
    """Whether files came or went since `before`, or MANIFEST grew. Logs grow all the time, and may."""
    return _shape(before) != _shape(directory.data_files(path))


def _shape(files: Mapping[str, int]) -> set[tuple[str, int]]:
    return {(name, size if name.startswith("MANIFEST") else 0) for name, size in files.items()}


@contextmanager
def linked(path: str, links: str) -> Iterator[None]:
    """Makes the directory `links` show the files of a store, as long as they are there. Raises StoreError."""
    directory.mirror(path, links)
    yield


@contextmanager
def held(path: str, links: str) -> Iterator[None]:
    """Makes the directory `links` show all files of a store of one moment, removed ones too, until the end.

    A copy of MANIFEST, and links to descriptors of the files that it names. They were all there when none of
    its records came while they were opened: a file is removed after the record that no longer needs it. Nor
    did a log come, whose successor may have been listed without it.
    Raises StoreError when there are not enough descriptors, when /proc is not mounted, or when records come
    for ten seconds.
    """
    descriptors: dict[str, int] = {}
    try:
        state = _hold(path, descriptors)
        os.mkdir(links)
        for name, data in state.items():
            with open(os.path.join(links, name), "xb") as file:
                file.write(data)
        for name, descriptor in descriptors.items():
            link = os.path.join(links, name)
            os.symlink(f"{_DESCRIPTORS}/{descriptor}", link)
            if not os.path.exists(link):  # a file that is there would look lost
                raise StoreError(f"cannot hold the files of {path!r}: {_DESCRIPTORS} does not show them")
        yield
    except OSError as error:
        raise StoreError(f"cannot hold the files of {path!r}: {error.strerror}") from error
    finally:
        _let_go(descriptors)


def _hold(path: str, descriptors: dict[str, int]) -> dict[str, bytes]:
    """Open all files of a store but those that say what it consists of: what those hold, by name."""
    deadline = time.monotonic() + _SECONDS
    while True:
        state = _state(path)
        for name in directory.mirrored(path):
            if name in state or name.startswith("MANIFEST"):
                continue
            try:
                descriptors[name] = os.open(os.path.join(path, name), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # not needed by then, or MANIFEST says so now
        if state and _stands(path, state) and _logs(path) <= descriptors.keys():
            return state
        _let_go(descriptors)
        if time.monotonic() > deadline:
            raise _busy(path)


def _let_go(descriptors: dict[str, int]) -> None:
    while descriptors:
        os.close(descriptors.popitem()[1])


def _state(path: str) -> dict[str, bytes]:
    """CURRENT and the MANIFEST that it names; nothing while a writer replaces them."""
    try:
        with open(os.path.join(path, "CURRENT"), "rb") as file:
            current = file.read(_PIECE)
        name = current.strip().decode("ascii", "replace")
        if not directory.is_store_file(name):
            return {"CURRENT": current}
        with open(os.path.join(path, name), "rb") as file:
            return {"CURRENT": current, name: file.read()}
    except FileNotFoundError:
        return {}


def _stands(path: str, state: Mapping[str, bytes]) -> bool:
    """Whether no record came since `state`."""
    try:
        with open(os.path.join(path, "CURRENT"), "rb") as file:
            current = file.read(_PIECE)
        sizes = {name: os.stat(os.path.join(path, name)).st_size for name in state}
    except FileNotFoundError:
        return False
    return current == state["CURRENT"] and sizes == {name: len(data) for name, data in state.items()}


def _logs(path: str) -> set[str]:
    return {name for name in directory.mirrored(path) if name.endswith(".log")}


def _busy(path: str) -> StoreError:
    return StoreError(
        f"the writer replaced files of {path!r} during each attempt of {_SECONDS:.0f} s to read a whole "
        "state: try again, or open the store with more memtable_bytes where it is written"
    )
