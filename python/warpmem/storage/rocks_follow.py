"""A read-only engine that follows the process that writes: RocksDB's secondary instance.

What is odd about it, and why:

* rocksdict writes a file of its own into the directory that it is told to open. So the database is opened
  through a directory of symbolic links, as a read-only one is, and afterwards a link to the store itself
  takes that directory's place: files that appear later are found, and nothing in the store is written to.
* Catching up reads the MANIFEST and then the write-ahead logs. A log that the writer removes in between takes
  changes along that no table of this state has. So it is done again when a file went away meanwhile, and a
  busy writer's database is opened anew after a few times.
* It takes ten milliseconds even when there is nothing new. So the sizes of files are looked at first.
* It is not one step for a reader: a change can show in one family first. So reads wait for it.
* What was read from a log that is gone by now stays as it was read, until another log is read. A value shows
  whose deletion was dropped from the tables together with it. So when logs went away it is opened anew,
  while reads go on in the database that there is: they wait only where catching up itself met that.
* Opening takes longer than a busy writer needs to replace a file, and then it may have missed changes. What
  is opened then is a read-only database, which shows one moment, and the next refresh opens anew.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, TypeVar

from ..errors import StoreClosed, StoreError
from . import directory
from .rocks import RocksEngine
from .rocks_errors import call
from .rocks_open import list_families, open_database

_TRIES: Final = 5
_INFO: Final = "info"
E = TypeVar("E")


class FollowingEngine(RocksEngine):
    """protocols.Engine on a store that another process may be writing. Reads show the state of the last
    catch_up(). Takes no lock, changes nothing in the directory, and needs no free space on its disk.

    Raises as RocksEngine does with read_only; StoreError too when the writer changes files so quickly that no
    state can be read.
    """

    def __init__(self, path: str | os.PathLike[str], *, memtable_bytes: int = 16 << 20) -> None:
        self._catching = threading.Lock()  # held by who catches up; taken before _turn
        self._turn = threading.RLock()  # held while what is read changes, and by who reads
        self._seen: dict[str, int] | None = None
        self._logs: frozenset[str] | None = None  # that were read; None of a database of one moment
        self._torn = False  # catching up failed in the middle
        self._id: Any = None  # the database's, of the first opening
        super().__init__(path, read_only=True, memtable_bytes=memtable_bytes, min_free_bytes=0)

    def _take(
        self,
        database: Any,
        absent: tuple[str, ...] = (),
        remove: Any = None,
        logs: frozenset[str] | None = None,
    ) -> None:
        self._torn = True  # whoever interrupts this leaves it so
        super()._take(database, absent, remove)
        self._logs, self._torn = logs, False

    def _open_read_only(self, memtable_bytes: int) -> tuple[Any, ...]:
        directory.require(self._path)
        if self._id is None:
            self._id = directory.database_id(self._path)
        before = directory.data_files(self._path)
        # RocksDB has several words for a writer that replaces files, also for one that is being opened.
        with contextlib.suppress(StoreError):
            opened = self._open_links(memtable_bytes, before)
            if opened is not None:
                return opened
        return self._open_mirror(memtable_bytes, hold=True)

    def _open_links(self, memtable_bytes: int, before: Mapping[str, int]) -> tuple[Any, ...] | None:
        """None when files came or went meanwhile."""
        place = directory.scratch()
        links = os.path.join(place, "store")
        remove = directory.removed_with(self, place)
        try:
            directory.mirror(self._path, links)
            absent = directory.check_families(links, call(list_families, links), read_only=True)
            info = os.path.join(place, _INFO)
            database = call(open_database, links, memtable_bytes, "follow", info, absent)
            _exchange(links, os.path.join(place, "opened"), self._path)
            if directory.data_files(self._path).keys() == before.keys():
                return database, absent, remove, _logs(before)
            database.close()
        except BaseException:
            remove()
            raise
        remove()
        return None

    def catch_up(self) -> None:
        """Show what the writer has written by now, whole. Raises StoreClosed, StoreCorrupt, StoreError."""
        if not self._families:
            raise StoreClosed(self._closed)
        with self._catching:
            before = self._look()
            if before == self._seen and not self._torn:
                return
            if self._torn or not self._goes_on(before):
                self._begin_anew(before)
                return
            with self._turn:
                self._torn = True
                for _ in range(_TRIES):
                    try:
                        call(self._db.try_catch_up_with_primary)
                        after = self._look()
                    except StoreError:
                        break  # what keeps it from being opened anew is told
                    if before.keys() <= after.keys():
                        self._logs = _logs(before)
                        self._seen, self._torn = before, False  # not before: what failed is tried again
                        return
                    before = after
                    if not self._goes_on(before):
                        break
                self._begin_anew(before)

    def _goes_on(self, files: Mapping[str, int]) -> bool:
        """Whether the database can catch up with a store that has these files."""
        return self._logs is not None and self._logs <= files.keys()

    def _look(self) -> dict[str, int]:
        """The files of the store by now, and their sizes."""
        files = directory.data_files(self._path)
        if self._db is None:
            raise StoreClosed(self._closed)
        if directory.database_id(self._path) != self._id:
            raise StoreError(f"another store stands at {self._path!r} than was opened there: open it again")
        return files

    def _begin_anew(self, before: Mapping[str, int]) -> None:
        """Exchange the database for one that reads what there is now, which is `before` or later."""
        earlier, remove = self._db, self._remove_mirror
        opened = self._open_read_only(self._memtable_bytes)
        try:
            with self._turn:
                self._take(*opened)
                self._let_walks_go()
                self._seen = dict(before)
        except BaseException:
            if self._db is not opened[0]:  # else it is in use, and reads through its links
                opened[2]()
            raise
        try:
            call(earlier.close)
        finally:
            if remove is not None:
                remove()

    def get(self, family: str, key: bytes) -> bytes | None:
        """See protocols.Engine."""
        with self._reading():
            return super().get(family, key)

    def get_many(self, family: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """See protocols.Engine."""
        with self._reading():
            return super().get_many(family, keys)

    def scan(
        self, family: str, start: bytes, stop: bytes, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """See protocols.Engine."""
        with self._reading():
            return _Walk(self._reading, super().scan(family, start, stop, reverse=reverse))

    def chunks(
        self, family: str, start: bytes, stop: bytes, size: int
    ) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """See protocols.Engine."""
        with self._reading():
            return _Walk(self._reading, super().chunks(family, start, stop, size))

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        if not self._families:  # also in a forked child, where the lock may be held for ever
            raise StoreClosed(self._closed)
        if self._torn and not self._catching.locked():
            self.catch_up()
        with self._turn:
            if self._torn:
                raise StoreError(_TORN)
            yield

    def _release(self) -> None:
        with self._catching, self._turn:
            super()._release()


_TORN: Final = (
    "reading what the writer has written failed in the middle: call refresh(), which reads all of it anew "
    "and raises what keeps it from that"
)


class _Walk(Iterator[E]):
    """A walk whose steps are reads as others are: it may make another iterator at any of them."""

    def __init__(self, reading: Callable[[], AbstractContextManager[None]], walk: Iterator[E]) -> None:
        self._reading = reading
        self._walk = walk

    def __next__(self) -> E:
        with self._reading():
            return next(self._walk)


def _exchange(links: str, aside: str, path: str) -> None:
    try:
        os.rename(links, aside)
        os.symlink(path, links, target_is_directory=True)
    except OSError as error:
        raise StoreError(f"cannot link to {path!r}: {error.strerror}") from error


def _logs(files: Iterable[str]) -> frozenset[str]:
    return frozenset(name for name in files if name.endswith(".log"))
