"""How far a file was imported: kept in the store, so that the next run of the same import goes on there.

A file is known by its first line, and by a digest of all lines up to where it was left. Both are keyed with
the store's salt; nothing of the file itself is kept. FORMATS.md: family meta, key `import`.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Final

import msgspec

from ..ops.clock import to_datetime
from ..ops.digest import digest16
from ..protocols import Log
from ..types import Scope

_PREFIX: Final = b"import"


class ImportMark(msgspec.Struct, frozen=True, array_like=True):
    """Lines of one file that are stored. began: when its first run did, microseconds. finished: all are."""

    began: int
    lines: int
    digest: bytes
    finished: bool


class Ledger:
    """Reads and writes the mark of one file."""

    def __init__(self, log: Log, scope: Scope | None, kind: str | None, first: bytes) -> None:
        self._log = log
        call = msgspec.json.encode([scope, kind])
        self._key = _PREFIX + digest16(log.identity.salt, b"import", call, first)
        self.mark = self._read()
        self._began = log.now() if self.mark is None else self.mark.began
        self.start_over()

    def start_over(self) -> None:
        """Begin again before the first line."""
        self._lines = 0
        self._digest = hashlib.blake2b(key=self._log.identity.salt, digest_size=16)
        self._digests: dict[int, bytes] = {}

    def take(self, line: bytes, *, is_stored: bool = False) -> None:
        """Account for the next line of the file. is_stored: it was, by an earlier run."""
        self._lines += 1
        if is_stored:
            self._digests.clear()
        self._digest.update(len(line).to_bytes(8, "big") + line)
        self._digests[self._lines] = self._digest.digest()

    @property
    def matches(self) -> bool:
        """Whether the lines so far are exactly those that are stored."""
        return self.mark is not None and (self._lines, self._digest.digest()) == (
            self.mark.lines, self.mark.digest
        )  # fmt: skip

    @property
    def began(self) -> datetime:
        """When the first run began."""
        return to_datetime(self._began)

    def stored(self, lines: int, *, finished: bool = False) -> None:
        """Remember that `lines` are stored, as many as at the last call or more."""
        digest = self._digests.get(lines)
        if digest is None:
            return
        self._digests = {number: known for number, known in self._digests.items() if number >= lines}
        mark = ImportMark(self._began, lines, digest, finished)
        if mark != self.mark:
            # Not synced: with the lines of the batch lost, which were written before it, it is lost as well.
            payload = msgspec.msgpack.encode(mark)
            self._log.transact(lambda transaction: transaction.keep(self._key, payload), "os")
            self.mark = mark

    def _read(self) -> ImportMark | None:
        payload = self._log.kept(self._key)
        if payload is None:
            return None
        try:
            return msgspec.msgpack.decode(payload, type=ImportMark)
        except msgspec.MsgspecError:
            return None  # the import then begins anew, and adds nothing twice as long as its keys are known
