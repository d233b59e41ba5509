"""What is said, made into memories: facts by rules, in the change that stores the message, or by a language
model, which reads windows of stored messages and is shown what is known already."""

from __future__ import annotations

import calendar
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Final

import msgspec

from ..config import MAX_NAMES
from ..errors import InputError, InvalidText, ModelError, StoreReadOnly
from ..ingest.graph import relation_facts
from ..ingest.normalize import normalize_text
from ..ops.event_time import Days, days_of, with_days
from ..ops.ids import parse_id
from ..policy import reconcile
from ..policy.claimed_time import event_days
from ..policy.similar import derived_from
from ..policy.verdicts import KEYS, Claim, Hands, settle
from ..protocols import LanguageModel, Log, TokenCounter, Transaction
from ..reason.extraction import KINDS, Extracted, Said, extract
from ..reason.extraction import Memory as Told
from ..records import Record
from ..types import AddResult, Extraction, MemoryItem, NewItem
from ..types.graph import RELATION
from . import arguments
from .costs import CostLedger
from .digests import Digests
from .paid import Paid
from .reader import Reader
from .revocation import Revocations
from .searches import Searches
from .turns import Turns
from .vectors import in_background
from .writer import Defaults, Writer

_WINDOW_MESSAGES: Final = 32
_WINDOW_TOKENS: Final = 4000
_MESSAGE_CHARACTERS: Final = 8000
_NEAREST: Final = 10
"""Known items that are shown for each message."""
_SHOWN: Final = 48
"""Known items that are shown at all."""
_OTHERS: Final = frozenset(("assistant", "system", "tool", "developer", "function"))
"""Roles whose messages state nothing about the owner by rule."""


def stated(item: MemoryItem) -> Sequence[tuple[str, Days | None]]:
    """What a message states, by rule, and when each happened."""
    from ..ingest.statements import statements  # patterns that nothing else needs

    if item.metadata.get("role") in _OTHERS:
        return ()
    return [(one, _happened(one, item.valid_from)) for one in statements(item.text)]


def _happened(sentence: str, said: datetime) -> Days | None:
    from ..ingest.happened import happened

    return happened(sentence, said)


class Inferring:
    """Extracts memories by a language model. Thread-safe: one window of an owner at a time."""

    def __init__(
        self,
        log: Log,
        reader: Reader,
        writer: Writer,
        digests: Digests,
        revocations: Revocations,
        costs: CostLedger,
        wanted: Extraction,
    ) -> None:
        self._wanted = wanted
        self._log = log
        self._reader = reader
        self._writer = writer
        self._digests = digests
        self._costs = costs
        self._hands = Hands(writer.put, revocations.checked, digests.both, log.get_version, writer.fits)
        self._turns = Turns()

    def extract(
        self,
        keys: Sequence[bytes],
        model: LanguageModel,
        counter: TokenCounter,
        reading: Callable[[], AbstractContextManager[None]],
        pausing: Callable[[], AbstractContextManager[None]],
        *,
        waiting: bool = False,
        wanted: Extraction | None = None,
    ) -> list[AddResult]:
        """What became of the claims of these items, window by window; each window is one change, after which
        nothing of it waits. pausing: keeps erasures from it meanwhile. waiting: those of the items alone that
        still wait. wanted: in the place of the store's own.

        One whose sources leave no room for itself goes on waiting, or raises InputError. Raises ModelError
        where the model's answer is none, and as the model; what was done before stays."""
        if self._log.read_only:
            raise StoreReadOnly("the store was opened read-only: open it without to make memories")
        found = [record for record in self._log.get_many(keys) if record is not None]
        for record in found if not waiting else ():
            arguments.check_names(record.item.sources, "sources", MAX_NAMES - 1)
        found = [record for record in found if len(record.item.sources) < MAX_NAMES]
        results: list[AddResult] = []
        for window in _windows(found, counter):
            with self._turns.of(window[0].item.scope.owner):
                left = [one for one in window if not waiting or self._log.work.has("extract", one.key, 1)]
                if left:
                    results += self._window(left, model, reading, pausing, wanted or self._wanted)
        return results

    def _window(
        self,
        window: Sequence[Record],
        model: LanguageModel,
        reading: Callable[[], AbstractContextManager[None]],
        pausing: Callable[[], AbstractContextManager[None]],
        wanted: Extraction,
    ) -> list[AddResult]:
        with reading():
            known = self._known(window, wanted)
        lane = "background" if in_background() else "ingest"
        model = Paid(model, self._costs, window[0].item.scope.owner, lane, "infer")
        extracted = extract(model, [_said(record.item) for record in window], known, wanted)
        claims = self._claims(window, known, extracted)

        def change(transaction: Transaction) -> list[AddResult]:
            self._writer.confirm(transaction)
            there = [_as_read(transaction.get(record.key), record) for record in window]
            for record, same in zip(window, there, strict=True):
                if same or transaction.get(record.key) is None:
                    transaction.done("extract", record.key, 1)  # else it is read again, as it is now
            return [settle(transaction, claim, self._hands) for number, claim in claims if there[number]]

        size = sum(len(claim.prepared.item.text) + claim.prepared.vector.nbytes for _, claim in claims)
        with pausing():  # an erasure has found what was derived before it removes what that is derived from
            return self._log.transact(change, None, size)

    def _known(self, window: Sequence[Record], wanted: Extraction) -> list[MemoryItem]:
        """What is known about what the messages say, nearest first."""
        scope = window[0].item.scope
        texts = [record.item.text for record in window if record.item.text]
        if not texts:
            return []
        hidden = any(record.item.quarantined for record in window)
        scopes = [(scope,)] * len(texts)
        kinds = tuple(dict.fromkeys((*KINDS, *wanted.kinds)))
        asked = Searches(scopes=scopes, queries=texts, k=_NEAREST, kinds=kinds, quarantined=hidden)
        try:
            found = self._reader.search(asked)
        except InvalidText:  # a message without a token: nothing is near to it
            return []
        nearest: dict[str, tuple[float, MemoryItem]] = {}
        for hit in (hit for result in found for hit in result):
            best = nearest.get(hit.item.id)
            if hit.item.scope == scope and (best is None or hit.score > best[0]):
                nearest[hit.item.id] = hit.score, hit.item
        ranked = sorted(nearest.values(), key=lambda entry: -entry[0])
        return [item for _, item in ranked[:_SHOWN]]

    def _claims(
        self, window: Sequence[Record], known: Sequence[MemoryItem], extracted: Extracted
    ) -> list[tuple[int, Claim]]:
        """(number of its message, claim) of each. Raises ModelError for texts that cannot be stored."""
        advice: list[tuple[int, NewItem, str, int | None]] = []
        reasons: list[str | None] = []
        for memory in extracted.memories:
            key = None if memory.key is None else f"{KEYS}{memory.key}"
            message = window[memory.message - 1]
            at = message.item.valid_from
            days, why = event_days(memory.since, memory.until, _happened(memory.text, at), at)
            alike = [
                item for item in known if item.key == key and item.quarantined == message.item.quarantined
            ]
            days = _as_known(memory, days, alike)
            timed = with_days({}, days)
            if days is not None and not self._writer.fits(memory.kind, timed):
                timed, why = {}, "its time was left out: the schema of its kind has no place for it"
            item = _item(message, memory.text, memory.kind, memory.entities, key=key, metadata=timed)
            advice.append((memory.message - 1, item, memory.verdict, memory.item))
            reasons.append(why)
        for relation in extracted.relations:
            text = f"{relation.subject} {relation.relation} {relation.object}"
            said = relation_facts(relation.subject, relation.relation, relation.object)
            item = _item(window[relation.message - 1], text, RELATION, (), metadata=said)
            advice.append((relation.message - 1, item, "new", None))
            reasons.append(None)
        if not advice:
            return []
        try:
            prepared = self._writer.prepare(
                [item for _, item, _, _ in advice], Defaults(scope=window[0].item.scope)
            )
        except InputError as error:
            raise ModelError(
                f"the model gave a memory that cannot be stored: {type(error).__name__}"
            ) from None
        return [
            (number, self._claim(_told(one, why), verdict, None if shown is None else known[shown - 1]))
            for (number, _, verdict, shown), one, why in zip(advice, prepared, reasons, strict=True)
        ]

    def _claim(self, prepared: reconcile.Prepared, verdict: Any, about: MemoryItem | None) -> Claim:
        if about is None or verdict == "new":
            return Claim(prepared)
        key = parse_id(about.id)
        vector = self._log.vector(key, about.version, self._log.identity)
        near = 0.0 if vector is None else float(vector @ prepared.vector)
        return Claim(prepared, verdict, key, about.version, near)


def _as_read(now: Record | None, read: Record) -> bool:
    """Whether a message is still what the model has read, and as much is thought of it."""
    if now is None:
        return False
    one, other = now.item, read.item
    return (one.text, one.trust, one.sources) == (other.text, other.trust, other.sources)


def _as_known(memory: Told, days: Days | None, alike: Sequence[MemoryItem]) -> Days | None:
    """The days of a memory; where something known says the same in the same words, and no less exactly when,
    those that it has: else the memory would be stored beside it. alike: what it can be a repetition of, for
    of anything else it must have no day, which would outlive the erasure of that."""
    text = normalize_text(memory.text)
    for item in alike:
        had = days_of(item.metadata)
        if had is None or item.kind != memory.kind or normalize_text(item.text) != text:
            continue
        if days is None or days[0] <= had[0] <= had[1] <= days[1]:
            return had
    return days


def _windows(found: Sequence[Record], counter: TokenCounter) -> Iterator[list[Record]]:
    """The messages of each scope in order, as many together as a window holds. What is trusted differently,
    or comes from elsewhere, is not read together: it could speak through the others."""
    alike: dict[Any, list[Record]] = {}
    for record in found:
        item = record.item
        alike.setdefault((item.scope, item.trust, item.sources), []).append(record)
    for records in alike.values():
        window: list[Record] = []
        used = 0
        for record in records:
            cost = counter.count(record.item.text[:_MESSAGE_CHARACTERS])
            if window and (len(window) == _WINDOW_MESSAGES or used + cost > _WINDOW_TOKENS):
                yield window
                window, used = [], 0
            window.append(record)
            used += cost
        yield window


def _said(item: MemoryItem) -> Said:
    name, role = item.metadata.get("name"), item.metadata.get("role")
    speaker = name if isinstance(name, str) else role if isinstance(role, str) else item.kind
    at = item.valid_from
    return Said(speaker, at.isoformat(), calendar.day_name[at.weekday()], item.text[:_MESSAGE_CHARACTERS])


def _told(prepared: reconcile.Prepared, reason: str | None) -> reconcile.Prepared:
    return msgspec.structs.replace(prepared, told=True, reason=reason)


def _item(message: Record, text: str, kind: str, entities: Sequence[str], **fields: Any) -> NewItem:
    """A claim as an item: scope, trust, time and sources are the message's."""
    said = message.item
    return NewItem(
        text=text, kind=kind, scope=said.scope, entities=tuple(dict.fromkeys(entities)),
        sources=derived_from(said.id, said.sources), trust=said.trust, valid_from=said.valid_from, **fields,
    )  # fmt: skip
