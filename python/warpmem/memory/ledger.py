"""What was imported: kept in the store for good, so that it is not imported again.

A file is known by its first line, and by a digest of all lines up to where a run left it. Each run leaves a
mark, so files that begin alike have each their own, and so has a file before it grew. A mark names the lines
that were refused: the next run tries these again, and no others, for they may be good by then. An exported
line is known by itself, whatever file it comes in, for another export of the same store is another file. All
digests are keyed with the store's salt; nothing of the file itself is kept. FORMATS.md: family meta, keys
`import` and `line`.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Final

import msgspec

from ..ops.clock import to_datetime
from ..ops.digest import DIGEST_BYTES, digest16
from ..protocols import Log, Transaction
from ..types import Scope

_FILE: Final = b"import"
_LINE: Final = b"line"
_MAX_REFUSED: Final = 1000  # lines that a mark names; it speaks of none behind the next one


class ImportMark(msgspec.Struct, frozen=True, array_like=True):
    """Lines of one file that are stored, but for `refused`, by their numbers. began: when its first run did,
    microseconds. finished: the file ended there."""

    began: int
    lines: int
    digest: bytes
    finished: bool
    refused: tuple[int, ...] = ()


class Ledger:
    """Reads and writes the marks of one file."""

    def __init__(self, log: Log, scope: Scope | None, kind: str | None, first: bytes) -> None:
        self._log = log
        call = msgspec.json.encode([scope, kind])
        self._prefix = _FILE + digest16(log.identity.salt, b"import", call, first)
        self._marks = self._read()
        self._began = log.now()
        self._last: ImportMark | None = None
        self._own: bytes | None = None  # its key, where no earlier run left it
        self._met: list[ImportMark] = []  # of earlier runs, of this file or its beginning
        self._known = self._stored = 0  # lines
        self._refused: set[int] = set()
        self._tried: set[int] = set()  # those of them that this run tries again
        self._unnamed: int | None = None  # the first refused line that is not among them
        self._digests: dict[int, bytes] = {}
        self._start_over()

    def find(self, lines: Iterable[tuple[int, bytes]]) -> int:
        """How many of the file's first lines earlier runs have stored or refused. lines: from its first."""
        last = max((mark.lines for mark in self._marks.values()), default=0)
        for number, line in lines:
            if number > last:
                break
            self.take(line, is_stored=True)
            mark = self._marks.get(self._digest.digest())
            if mark is not None and mark.lines == number:
                self._met.append(mark)
                self._known, self._began, self._refused = number, mark.began, set(mark.refused)
        self._start_over()
        return self._known

    @property
    def refused(self) -> Collection[int]:
        """The numbers of lines that no run has stored."""
        return self._refused

    def refuse(self, number: int) -> None:
        """Remember that a line is not stored."""
        self._tried.discard(number)
        if number <= max(self._known, self._stored):
            return
        if len(self._refused) < _MAX_REFUSED:
            self._refused.add(number)
        elif self._unnamed is None:
            self._unnamed = number

    def take(self, line: bytes, *, is_stored: bool = False) -> None:
        """Account for the next line of the file. is_stored: it was, by an earlier run."""
        self._lines += 1
        if not is_stored and self._lines in self._refused:
            self._tried.add(self._lines)
        if is_stored:
            self._digests.clear()
        self._digest.update(len(line).to_bytes(8, "big") + line)
        self._digests[self._lines] = self._digest.digest()

    @property
    def began(self) -> datetime:
        """When the first run began."""
        return to_datetime(self._began)

    def stored(self, lines: int, *, finished: bool = False) -> None:
        """Remember that `lines` are stored but for those refused, as many as at the last call or more."""
        self._stored = lines
        done = {number for number in self._tried if number <= lines}
        self._refused -= done
        self._tried -= done
        values = self._correct() if done else {}
        if lines >= self._known:
            values |= self._mark(lines, finished=finished)
        _keep(self._log, values)

    def _correct(self) -> dict[bytes, bytes | None]:
        """What is written for the marks of earlier runs, of whose refused lines this one has stored some."""
        values: dict[bytes, bytes | None] = {}
        for mark in self._met:
            left = tuple(number for number in mark.refused if number in self._refused)
            known = self._marks[mark.digest] = msgspec.structs.replace(mark, refused=left)
            values[self._prefix + mark.digest] = msgspec.msgpack.encode(known)
        return values

    def _mark(self, lines: int, *, finished: bool) -> dict[bytes, bytes | None]:
        """What is written for the mark of this run."""
        digest = self._digests.get(lines)
        self._digests = {number: known for number, known in self._digests.items() if number >= lines}
        if digest is None or (self._unnamed is not None and self._unnamed <= lines):
            return {}
        refused = tuple(sorted(number for number in self._refused if number <= lines))
        known = self._marks.get(digest)
        if known is not None:
            finished = finished or known.finished
        mark = ImportMark(self._began if known is None else known.began, lines, digest, finished, refused)
        if mark == self._last:
            return {}
        values: dict[bytes, bytes | None] = {}
        if self._own is not None:
            values[self._own] = None
        if mark != known:
            values[self._prefix + digest] = msgspec.msgpack.encode(mark)
        self._own = self._prefix + digest if known is None else None
        self._last = mark
        return values

    def _read(self) -> dict[bytes, ImportMark]:
        """Earlier runs' marks by their digests."""
        marks = {}
        for _, payload in self._log.kept_between(self._prefix, self._prefix + b"\xff" * (DIGEST_BYTES + 1)):
            with contextlib.suppress(msgspec.MsgspecError):  # its lines then are known as long as their keys
                mark = msgspec.msgpack.decode(payload, type=ImportMark)
                marks[mark.digest] = mark
        return marks

    def _start_over(self) -> None:
        """Begin again before the first line."""
        self._lines = 0
        self._digest = hashlib.blake2b(key=self._log.identity.salt, digest_size=DIGEST_BYTES)
        self._digests = {}


class ExportedLines:
    """Exported lines that are stored, and as which items. Of both the store keeps digests."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._new: dict[bytes, bytes] = {}

    def line(self, scope: Scope | None, kind: str | None, content: bytes) -> bytes:
        """The name of a line, which is imported with this scope and kind: 16 bytes."""
        where = msgspec.json.encode([scope, kind])
        return digest16(self._log.identity.salt, b"exported line", where, content)

    def source(self, scope: Scope | None, kind: str | None, item_id: str) -> bytes:
        """The name of all lines with this id, whatever they say: 16 bytes."""
        where = msgspec.json.encode([scope, kind])
        return digest16(self._log.identity.salt, b"exported id", where, item_id.encode())

    def item(self, item_id: str) -> bytes:
        """The name of an item of this store: 16 bytes."""
        return digest16(self._log.identity.salt, b"imported item", item_id.encode())

    def find(self, line: bytes) -> bytes | None:
        """The name of the item that a line, or the last of those with its id, was stored as."""
        return self._log.kept(_LINE + line)

    def add(self, line: bytes, item: bytes) -> None:
        """Take a stored line in; keep() makes it last."""
        self._new[_LINE + line] = item

    def keep(self) -> None:
        """Remember what was taken in."""
        new, self._new = self._new, {}
        _keep(self._log, new)


def _keep(log: Log, values: Mapping[bytes, bytes | None]) -> None:
    def change(transaction: Transaction) -> None:
        for key, value in values.items():
            transaction.keep(key, value)

    if values:
        # Not synced: with the lines of the batch lost, which were written before it, it is lost as well.
        log.transact(change, "os")
