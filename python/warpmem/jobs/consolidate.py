"""Consolidation: old events of a scope become summaries, a month at a time, with provenance.

What was said in a month is put in clusters by the vectors it has, and each cluster becomes one item of kind
"summary" whose `sources` are its events, which are deleted for that. Both are one change, and months do not
depend on each other: a run that is killed anywhere and goes on ends where one that was not would have.
Nothing that was said is left out but repetitions in the same words. With a language model the wording of
several things is the model's, and the events stand in the history of their ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence, Set
from datetime import MAXYEAR, UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..config import MAX_NAMES, Consolidation
from ..errors import ModelError, NotFound
from ..memory.paid import Paid
from ..memory.serving import Serving
from ..memory.vectors import background
from ..memory.writer import Defaults
from ..ops.blank import is_blank
from ..ops.clock import to_datetime
from ..ops.digest import digest16
from ..ops.event_time import with_days
from ..ops.ids import format_id, is_id, origins, owner_of, parse_id
from ..policy.reconcile import is_current
from ..protocols import Transaction
from ..records import Record
from ..types import MemoryItem, NewItem, Scope
from .clusters import clustered
from .summaries import Line, days_of_all, lines_of, parted, text_of
from .told import tell
from .tools import Job, Tools, Turn, given_trust, store_instead

MADE: Final = "consolidated"
"""The key of a summary's metadata that tells that this job made it."""
_REASON: Final = "summarised in "
_LONGEST_STEP: Final = 4096
_LONGEST_TEXT: Final = 1 << 16
"""Characters; a longer text is a document of its own."""
_MOST_ORIGINS: Final = 64
"""A summary names them besides its events, for which Consolidation.max_events leaves so much room."""
_TRIES: Final = 4


class _Place(NamedTuple):
    """What one summary may tell of: a calendar month (UTC) of one scope, and where it comes from, so that a
    source can be revoked afterwards."""

    year: int
    month: int
    scope: Scope
    origins: frozenset[str]


class Consolidate(Job):
    """The job "consolidate"."""

    name = "consolidate"

    def __init__(self, options: Consolidation) -> None:
        self._options = options
        self._kinds = frozenset(options.kinds)

    def of_owner(self, tools: Tools, owner: int, turn: Turn, counts: Counter[str]) -> None:
        """See tools.Job."""
        before = to_datetime(tools.log.now()) - timedelta(days=self._options.older_than_days)
        for place, keys in self._groups(tools, owner, before):
            if len(keys) >= self._options.min_events:
                self._replace(tools, place, keys, turn, counts)

    def _groups(self, tools: Tools, owner: int, before: datetime) -> Iterator[tuple[_Place, list[bytes]]]:
        """The keys of the events that may go, of each calendar month (UTC) that ended before a time, a
        bounded number at a time. Only keys are held: a month may have more events than memory has room for,
        and to cut it where that is full would cut small scopes in parts that are too few."""
        groups: dict[_Place, list[bytes]] = {}
        of: tuple[int, int] | None = None
        revoked = tools.revoked()
        for _, record in tools.log.records(owner, order="valid_from", reverse=False, after=None):
            when = record.item.valid_from.astimezone(UTC)
            if (when.year, when.month) != of:
                yield from groups.items()
                groups, of = {}, (when.year, when.month)
            if when.year == MAXYEAR or _month_end(when) > before:
                return
            # Without a vector it would be like everything else; left out later, it would have been counted.
            if self._may_go(tools, record, revoked) and _vector(tools, record) is not None:
                place = _place(record.item)
                groups.setdefault(place, []).append(record.key)
                if len(groups[place]) == _LONGEST_STEP:
                    yield place, groups.pop(place)
        yield from groups.items()

    def _may_go(self, tools: Tools, record: Record, revoked: frozenset[str]) -> bool:
        """Whether a summary of its words can stand for an item, now and later."""
        item, log = record.item, tools.log
        return (
            item.kind in self._kinds
            and item.key is None
            and 0 < len(item.text) <= _LONGEST_TEXT
            and item.blob is None
            and len(origins(item.sources)) <= _MOST_ORIGINS
            and item.expires_at is None  # a summary would outlive it
            and not item.quarantined  # it would take the summary of all the others there
            and revoked.isdisjoint((item.id, *item.sources))  # and so would these
            and is_current(item, log.now())
            and log.space_of(record.key, item.version) == 0
            and not log.work.has("extract", record.key, item.version)
        )

    def _replace(
        self, tools: Tools, place: _Place, keys: Sequence[bytes], turn: Turn, counts: Counter[str]
    ) -> None:
        """Put summaries in the place of events, in one change."""
        for _ in range(_TRIES):
            revoked = tools.revoked()
            records = [
                record
                for record in tools.log.get_many(keys)
                if record is not None
                and _place(record.item) == place
                and self._may_go(tools, record, revoked)
            ]
            found, vectors = _with_vectors(tools, records)
            if len(found) < self._options.min_events:
                return
            new = [
                self._summary(tools, part, turn, counts)
                for cluster in self._clusters(tools, found, vectors, turn)
                for part in parted(
                    cluster, tools.counter.count, self._options.max_tokens, self._options.max_events
                )
            ]
            try:
                with tools.exchanging:
                    made: int = tools.current.write(_Exchange(tools, new, found).run, own_vectors=False)
            except NotFound:  # one of them was changed or went meanwhile
                continue
            counts["events"] += len(found)
            counts["summaries"] += made
            turn.check()
            return

    def _clusters(
        self, tools: Tools, records: Sequence[Record], vectors: NDArray[np.float32], turn: Turn
    ) -> list[list[Line]]:
        """The different things that were said, in clusters, each in the order of time."""
        lines = lines_of([record.item for record in records])
        row_of = {record.item.id: row for row, record in enumerate(records)}
        rows = vectors[[row_of[line.items[0].id] for line in lines]]
        options = self._options
        cluster = partial(tools.cluster, check=turn.check_closing)
        return clustered(lines, rows, options.lines_per_summary, options.outliers, cluster)

    def _summary(self, tools: Tools, lines: Sequence[Line], turn: Turn, counts: Counter[str]) -> NewItem:
        text, by = text_of(lines), "extract"
        if self._options.by == "model" and len(lines) > 1:
            turn.check_closing()
            try:
                owner = lines[0].items[0].scope.owner
                costs = tools.current.now.costs
                model = Paid(tools.language_model(), costs, owner, "background", "consolidate")
                text, by = tell(model, text, self._options.max_tokens), model.model_id
            except ModelError:
                counts["without the model"] += 1
        return _summary_of(tools, [item for line in lines for item in line.items], text, by)


def _summary_of(tools: Tools, items: Sequence[MemoryItem], text: str, by: str) -> NewItem:
    """The item that stands for others. by: "extract", or the id of the model that worded it."""
    # An id would outlive its event's erasure.
    first = digest16(tools.log.identity.salt, b"consolidated", items[0].id.encode()).hex()
    times = [item.valid_from for item in items]
    made: dict[str, Any] = {
        MADE: {
            "by": by, "events": len(items), "from": min(times).isoformat(), "to": max(times).isoformat(),
            "first": first,  # what two summaries never share: none is the other's duplicate
        }
    }  # fmt: skip
    timed = with_days(made, days_of_all(items))
    return NewItem(
        text=text,
        scope=items[0].scope,
        kind="summary",
        metadata=timed if tools.current.now.writer.fits("summary", timed) else made,
        priority=max(item.priority for item in items),
        entities=tuple(dict.fromkeys(name for item in items for name in item.entities))[:MAX_NAMES],
        sources=(*(item.id for item in items), *sorted(origins(items[0].sources))),
        trust=min(item.trust for item in items),
        valid_from=min(times),
    )  # fmt: skip


def _place(item: MemoryItem) -> _Place:
    when = item.valid_from.astimezone(UTC)
    return _Place(when.year, when.month, item.scope, origins(item.sources))


def _month_end(when: datetime) -> datetime:
    year, month = (when.year + 1, 1) if when.month == 12 else (when.year, when.month + 1)
    return datetime(year, month, 1, tzinfo=UTC)


def _vector(tools: Tools, record: Record) -> NDArray[np.float32] | None:
    """(dim,) float32; None for one that waits for its vector."""
    vector = tools.log.vector(record.key, record.item.version, tools.log.identity)
    return None if vector is None or is_blank(vector) else vector


def _with_vectors(tools: Tools, records: Sequence[Record]) -> tuple[list[Record], NDArray[np.float32]]:
    """The records that have vectors still, and (n, dim) float32."""
    found, vectors = [], []
    for record in records:
        vector = _vector(tools, record)
        if vector is not None:
            found.append(record)
            vectors.append(vector)
    return found, np.array(vectors, np.float32).reshape(len(vectors), tools.log.identity.dimension)


class _Exchange(NamedTuple):
    """Stores summaries and deletes what they stand for."""

    tools: Tools
    new: Sequence[NewItem]
    old: Sequence[Record]

    def run(self, serving: Serving) -> int:
        """How many were stored. Raises NotFound, and nothing is changed, when one of the old is not what it
        was."""
        with background("consolidate"):
            prepared = serving.writer.prepare(self.new, Defaults(scope=None))

        def change(transaction: Transaction) -> int:
            serving.writer.confirm(transaction)
            for record in self.old:
                now = transaction.get(record.key)
                if now is None or now.item.version != record.item.version:
                    raise NotFound("an event was changed while it was being summarised")
            for entry in prepared:
                made = serving.writer.put(transaction, entry)
                for source in entry.item.sources:
                    if is_id(source):
                        serving.editor.remove(transaction, parse_id(source), None, _REASON + made.id)
            return len(prepared)

        return self.tools.log.transact(change)


def is_told(tools: Tools, key: bytes) -> bool:
    """Whether a summary that is there tells of a deleted item, or of another summary that did."""
    owner, chain = owner_of(key), set()
    while past := tools.log.history(key):
        reason = past[-1].reason or ""
        if not reason.startswith(_REASON):
            break
        chain.add(format_id(key))
        where = reason.removeprefix(_REASON)
        if not is_id(where):  # that one was erased
            break
        key = parse_id(where)
    records = tools.log.records(owner, order="recorded", reverse=False, after=None) if chain else ()
    return any(
        MADE in record.item.metadata and not chain.isdisjoint(record.item.sources) for _, record in records
    )


def rebuild(tools: Tools, summary: MemoryItem, without: Set[str]) -> None:
    """Store a summary of what is left of its sources when some of them are erased, worded without a model:
    which of a model's words came from which source, nobody knows. The old one is the caller's to remove."""
    left, trusts = [], []
    for source in summary.sources:
        if source not in without and is_id(source):
            history = tools.log.history(parse_id(source))
            known = [past.record.item for past in history if past.record is not None]
            if known and known[-1].scope == summary.scope:
                left.append(known[-1])
                trusts.append(given_trust(history, known[-1]))
    if left:
        new = _summary_of(tools, left, text_of(lines_of(left)), "extract")
        sources = (*(item.id for item in left), *sorted(origins(summary.sources)))
        new = msgspec.structs.replace(new, trust=min(trusts), priority=summary.priority, sources=sources)
        store_instead(tools, summary, new)
