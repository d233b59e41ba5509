"""Which items the items of other owners name as their sources: a summary of many owners, for example."""

from __future__ import annotations

from ..errors import NotFound
from ..ops.ids import owner_of, parse_id
from ..records import Record
from .tools import Tools, Turn


class Citations:
    """What was found in one pass over the owners. It is read when it is first asked for, owner by owner, goes
    on where a turn ended, and keeps up with the log from then on."""

    def __init__(self) -> None:
        self._owner = 0
        self._sequence: int | None = None
        self._cited: dict[int, set[str]] = {}

    def of_owner(self, tools: Tools, owner: int, turn: Turn) -> set[str]:
        """Ids of an owner's items that current items of others name. Raises Stopped, and what the log
        raises."""
        log = tools.log
        if self._sequence is None:
            last = log.position()
            self._sequence = 0 if last is None else last.sequence
        for number, _ in log.owners(self._owner):
            for _, record in log.records(number, order="recorded", reverse=False, after=None):
                turn.check()
                self._note(record)
            self._owner = number
        for entry in log.entries(self._sequence):
            for changed in log.get_many([entry.key]):
                if changed is not None:
                    self._note(changed)
            self._sequence = entry.sequence
        return self._cited.get(owner, set())

    def _note(self, record: Record) -> None:
        for source in record.item.sources:
            try:
                owner = owner_of(parse_id(source))
            except NotFound:  # the name of an origin
                continue
            if owner != owner_of(record.key):
                self._cited.setdefault(owner, set()).add(source)
