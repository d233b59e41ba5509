"""Which items the items of other owners name as their sources: a summary of many owners, for example."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from ..errors import NotFound, StoreCorrupt
from ..ops.digest import digest16
from ..ops.ids import owner_of, parse_id
from ..records import Record
from .tools import Tools, Turn

_KEY: Final = b"citations"
_WIDTH: Final = 8
_STEP: Final = 256


class _Known(msgspec.Struct, array_like=True):
    """What was found so far: behind which owner and which entry of the log, and digests of what is cited, one
    after the other. An id would outlive its erasure; two items of one digest both stay."""

    owner: int
    sequence: int
    cited: bytes


class Citations:
    """What was found in one pass over the owners. It is read when it is first asked for, owner by owner, and
    keeps up with the log from then on. Where a turn ends, in this process or in another, the next goes on."""

    def __init__(self) -> None:
        self._known: _Known | None = None
        self._cited: set[bytes] = set()

    def among(self, tools: Tools, ids: Iterable[str], turn: Turn) -> set[str]:
        """Of these items those that current items of other owners name. Raises Stopped, and what the log
        raises."""
        known = self._load(tools)
        before, whole = known.owner, False
        try:
            self._go_on(tools, known, turn)
            whole = True
        finally:
            if not whole or known.owner != before:
                known.cited = b"".join(sorted(self._cited))
                _keep(tools, msgspec.msgpack.encode(known))
        return {name for name in ids if _digest(tools, parse_id(name)) in self._cited}

    def begin_anew(self, tools: Tools) -> None:
        """Forget what was found: some of it may be gone."""
        self._known = None
        if tools.log.kept(_KEY) is not None:
            _keep(tools, None)

    def _load(self, tools: Tools) -> _Known:
        if self._known is not None:
            return self._known
        last = tools.log.position()
        sequence = 0 if last is None else last.sequence
        known, payload = _Known(0, sequence, b""), tools.log.kept(_KEY)
        if payload is not None:
            try:
                stored = msgspec.msgpack.decode(payload, type=_Known)
            except msgspec.MsgspecError as error:
                raise StoreCorrupt("what the items of other owners cite does not decode") from error
            if stored.sequence <= sequence:
                known = stored
        places = range(0, len(known.cited), _WIDTH)
        self._cited = {known.cited[place : place + _WIDTH] for place in places}
        self._known = known
        return known

    def _go_on(self, tools: Tools, known: _Known, turn: Turn) -> None:
        """The turn is asked behind what was read: so each run gets further."""
        log = tools.log
        for number, _ in log.owners(known.owner):
            for _, record in log.records(number, order="recorded", reverse=False, after=None):
                self._note(tools, record)
            known.owner = number
            turn.check()
        for entry in log.entries(known.sequence):
            for changed in log.get_many([entry.key]):
                if changed is not None:
                    self._note(tools, changed)
            known.sequence = entry.sequence
            if entry.sequence % _STEP == 0:
                turn.check()

    def _note(self, tools: Tools, record: Record) -> None:
        for source in record.item.sources:
            try:
                key = parse_id(source)
            except NotFound:  # the name of an origin
                continue
            if owner_of(key) != owner_of(record.key):
                self._cited.add(_digest(tools, key))


def _digest(tools: Tools, key: bytes) -> bytes:
    return digest16(tools.log.identity.salt, b"cited", key)[:_WIDTH]


def _keep(tools: Tools, payload: bytes | None) -> None:
    tools.log.transact(lambda transaction: transaction.keep(_KEY, payload), "os")
