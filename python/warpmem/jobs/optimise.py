"""Upkeep of what searches read: removed rows give back their memory, the index is saved where close() would
save it, and tables are written anew. Results stay the same, and done twice it does nothing.

A store's lists are exact, so there are no cells to train; VectorIndex.optimise() does that for its own.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import msgspec

from ..config import Optimisation
from ..errors import StoreCorrupt
from .tools import Job, Tools, Turn

_KEY: Final = b"compacted"


class Optimise(Job):
    """The job "optimise"."""

    name = "optimise"

    def __init__(self, options: Optimisation, checkpoint_rows: int) -> None:
        """checkpoint_rows: see Config."""
        self._changes = options.changes
        self._checkpoint_rows = checkpoint_rows

    def of_owner(self, tools: Tools, owner: int, turn: Turn, counts: Counter[str]) -> None:
        """See tools.Job."""
        counts["rows given back"] += sum(index.compact(owner) for index in tools.current.indexes())

    def of_store(self, tools: Tools, turn: Turn, counts: Counter[str]) -> None:
        """See tools.Job."""
        turn.check()
        if self._checkpoint_rows:
            counts["indexes saved"] += tools.current.now.index.checkpoint(self._checkpoint_rows)
        turn.check()
        totals = tools.log.totals()
        if totals["sequence"] - _compacted(tools) >= max(self._changes, totals["items"] // 10):
            counts["tables written"] += tools.log.compact()
            mark = msgspec.msgpack.encode(totals["sequence"])
            tools.log.transact(lambda transaction: transaction.keep(_KEY, mark), "os")


def _compacted(tools: Tools) -> int:
    """Up to which change of the log the storage was written anew; 0 when it never was."""
    payload = tools.log.kept(_KEY)
    try:
        return 0 if payload is None else msgspec.msgpack.decode(payload, type=int)
    except msgspec.MsgspecError as error:
        raise StoreCorrupt("the mark of the last compaction does not decode") from error
