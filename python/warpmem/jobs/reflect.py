"""Reflection: what is known now in a scope, put together as its profile.

An owner has one profile of what is his own, and one for each agent that remembers something of him besides,
since no agent may read another's; what belongs to a run passes with it. A profile tells of the facts that
are trusted most in its scope, so that nothing of less trust crowds them out or contradicts them, and cites
them as sources. It is written anew, as its next version, when these are not what they were, and removed when
they are too few. Words that somebody else has put in its place are left alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import Any, Final, NamedTuple

import msgspec

from ..config import MAX_NAMES, Reflection
from ..errors import InputError, ModelError, NotFound
from ..memory.paid import Paid
from ..memory.serving import Serving
from ..memory.vectors import background
from ..memory.writer import Defaults
from ..ops.clock import to_datetime, to_micros
from ..ops.digest import digest16
from ..ops.ids import is_id, origins, parse_id
from ..policy.reconcile import is_current
from ..protocols import Transaction
from ..records import Record
from ..types import MemoryItem, NewItem, Scope
from .summaries import lines_of
from .told import PROFILE, tell
from .tools import Job, Tools, Turn, store_instead

MADE: Final = "reflected"
"""The key of a profile's metadata that tells that this job made it."""
_KIND: Final = "profile"
CHANGED: Final = "reflected: its facts are not what they were"
"""Why this job has made a version of a profile."""
_FEW: Final = "reflected: too few facts are left"
_TWICE: Final = "reflected: there is another"
_LONGEST_TEXT: Final = 1 << 16


class Reflect(Job):
    """The job "reflect"."""

    name = "reflect"

    def __init__(self, options: Reflection) -> None:
        self._options = options
        self._kinds = frozenset(options.kinds)

    def of_owner(self, tools: Tools, owner: int, turn: Turn, counts: Counter[str]) -> None:
        """See tools.Job."""
        facts: dict[Scope, list[Record]] = {}
        profiles: dict[Scope, list[Record]] = {}
        revoked = tools.revoked()
        for _, record in tools.log.records(owner, order="recorded", reverse=False, after=None):
            if is_profile(record.item):
                profiles.setdefault(record.item.scope, []).append(record)
            elif self._tells(tools, record.item, revoked):
                facts.setdefault(record.item.scope, []).append(record)
        for scope in {**facts, **profiles}:
            known = profiles.get(scope, [])
            if not all(is_own(tools, profile) for profile in known):
                continue
            chosen = self._chosen(tools, facts.get(scope, []))
            reason = _TWICE if chosen else _FEW
            for profile in known[1:] if chosen else known:
                counts["removed"] += _remove(tools, profile, reason)
                turn.check()
            if chosen:
                self._reflect(tools, chosen, known[0] if known else None, turn, counts)

    def _tells(self, tools: Tools, item: MemoryItem, revoked: frozenset[str]) -> bool:
        """Whether a profile may tell of an item: it holds, it is believed, and nothing says that it will
        end."""
        return (
            item.kind in self._kinds
            and 0 < len(item.text) <= _LONGEST_TEXT
            and item.valid_to is None
            and item.expires_at is None
            and not item.quarantined
            and revoked.isdisjoint((item.id, *item.sources))
            and (item.scope.run_id is None or item.scope.owner.type == "run")
            and is_current(item, tools.log.now())
        )

    def _chosen(self, tools: Tools, facts: Sequence[Record]) -> list[Record]:
        """The facts of a profile, in the order of their worth; none where they are too few."""
        facts = _most_trusted(facts)
        if len(facts) < self._options.min_facts:
            return []
        chosen: list[Record] = []
        names: frozenset[str] = frozenset()
        tokens = 0
        for record in sorted(facts, key=_worth)[: self._options.max_facts]:
            more = names | origins(record.item.sources)
            (line,) = lines_of([record.item])
            cost = tools.counter.count(line.text) + 1
            if tokens + cost <= self._options.max_tokens and len(chosen) + 1 + len(more) <= MAX_NAMES:
                chosen.append(record)
                tokens, names = tokens + cost, more
        return chosen

    def _reflect(
        self, tools: Tools, facts: Sequence[Record], known: Record | None, turn: Turn, counts: Counter[str]
    ) -> None:
        """Store the profile of some facts, unless that is what it is already."""
        versions = "\n".join(sorted(f"{fact.item.id} {fact.item.version}" for fact in facts))
        digest = digest16(tools.log.identity.salt, b"reflected", versions.encode()).hex()
        if known is not None and _made(known.item).get("digest") == digest:
            return
        items = [fact.item for fact in facts]
        text, by = self._worded(tools, items, turn, counts)
        new = _profile(items, text, by, digest)
        try:
            with tools.exchanging:
                tools.current.write(_Exchange(tools, new, facts, known).run, own_vectors=False)
        except NotFound:
            return  # something of it was changed or went meanwhile: the next run looks again
        counts["profiles" if known is None else "rewritten"] += 1
        turn.check()

    def _worded(
        self, tools: Tools, items: Sequence[MemoryItem], turn: Turn, counts: Counter[str]
    ) -> tuple[str, str]:
        """(text, who worded it)."""
        text = "\n".join(line.text for line in lines_of(items))
        if self._options.by == "extract":
            return text, "extract"
        try:
            model = tools.language_model()
        except InputError:
            if self._options.by == "model":
                raise
            return text, "extract"
        turn.check_closing()
        owner = items[0].scope.owner
        paid = Paid(model, tools.current.now.costs, owner, "background", "reflect")
        try:
            return tell(paid, text, self._options.max_tokens, PROFILE), model.model_id
        except ModelError:
            counts["without the model"] += 1
            return text, "extract"

    def rebuild(self, tools: Tools, profile: MemoryItem, without: Set[str]) -> None:
        """Store a profile of what is left of its facts when some are erased, worded without a model. The old
        one is the caller's to remove."""
        keys = [parse_id(source) for source in profile.sources if is_id(source) and source not in without]
        revoked = tools.revoked()
        left = [
            record
            for record in tools.log.get_many(keys)
            if record is not None
            and record.item.scope == profile.scope
            and self._tells(tools, record.item, revoked)
        ]
        if left:
            items = [record.item for record in _most_trusted(left)]
            text = "\n".join(line.text for line in lines_of(items))
            # Without a digest: the next run is to word it again.
            store_instead(tools, profile, _profile(items, text, "extract", None))


def is_profile(item: MemoryItem) -> bool:
    """Whether an item is one that this job made."""
    return item.kind == _KIND and MADE in item.metadata


def is_own(tools: Tools, profile: Record) -> bool:
    """Whether a profile is what this job made it, and not what somebody has made of it since. A rule may have
    added versions to either: one for a source that is revoked, for example."""
    if profile.item.version == 1:
        return True
    for past in reversed(tools.log.history(profile.key)):
        if past.record is None:
            continue
        if past.reason == CHANGED or past.record.item.version == 1:
            return _words(past.record.item) == _words(profile.item)
        if past.reason is None:
            return False
    return False


def _made(profile: MemoryItem) -> Mapping[str, Any]:
    made = profile.metadata.get(MADE)
    return made if isinstance(made, dict) else {}


def _words(profile: MemoryItem) -> tuple[str, Mapping[str, Any], float, tuple[str, ...]]:
    return profile.text, profile.metadata, profile.priority, profile.entities


def _most_trusted(facts: Sequence[Record]) -> list[Record]:
    best = max((fact.item.trust for fact in facts), default=0.0)
    return [fact for fact in facts if fact.item.trust == best]


def _worth(record: Record) -> tuple[float, int, str]:
    item = record.item
    return -item.priority, -to_micros(item.valid_from, "valid_from"), item.id


def _profile(items: Sequence[MemoryItem], text: str, by: str, digest: str | None) -> NewItem:
    made: dict[str, Any] = {"by": by, "facts": len(items)}
    if digest is not None:
        made["digest"] = digest
    places = sorted({name for item in items for name in origins(item.sources)})
    return NewItem(
        text=text,
        scope=items[0].scope,
        kind=_KIND,
        metadata={MADE: made},
        priority=max(item.priority for item in items),
        entities=tuple(dict.fromkeys(name for item in items for name in item.entities))[:MAX_NAMES],
        sources=(*(item.id for item in items), *places),
        trust=items[0].trust,
    )


def _remove(tools: Tools, profile: Record, reason: str) -> int:
    """How many were removed: none where it is not what it was."""
    editor = tools.current.now.editor

    def change(transaction: Transaction) -> int:
        now = transaction.get(profile.key)
        if now is None or now.item.version != profile.item.version:
            return 0
        editor.remove(transaction, profile.key, None, reason)
        return 1

    return tools.log.transact(change)


class _Exchange(NamedTuple):
    """Stores a profile, in the place of the one that is known."""

    tools: Tools
    new: NewItem
    facts: Sequence[Record]
    known: Record | None

    def run(self, serving: Serving) -> None:
        """Raises NotFound, and nothing is changed, when a fact or the profile is not what it was."""
        with background("reflect"):  # what a model was paid for is not given up for want of a vector
            (prepared,) = serving.writer.prepare([self.new], Defaults(scope=None), "auto")
        seen = [*self.facts, *([] if self.known is None else [self.known])]

        def change(transaction: Transaction) -> None:
            serving.writer.confirm(transaction)
            for record in seen:
                now = transaction.get(record.key)
                if now is None or now.item.version != record.item.version:
                    raise NotFound("a fact was changed while it was being reflected on")
            if self.known is None:
                serving.writer.put(transaction, prepared)
                return
            made = serving.writer.checked(transaction, prepared).item
            item = msgspec.structs.replace(
                self.known.item,
                text=made.text,
                metadata=made.metadata,
                priority=made.priority,
                entities=made.entities,
                sources=made.sources,
                trust=made.trust,
                model_id=made.model_id,
                valid_from=to_datetime(transaction.now),  # it tells of now
            )
            vector = prepared.vector
            serving.editor.revise(
                transaction, self.known, item, vector, operation="update", reason=CHANGED,
                later=vector is None,
            )  # fmt: skip

        self.tools.log.transact(change)
