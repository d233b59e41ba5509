"""What becomes of a claim: something that a language model says was said. Runs inside a transaction.

The model says whether the claim is new, the same as a known item, what became of it, or its correction. That
is advice. It holds only where the item is still what the model was shown, is of the same scope and is near
the claim; a claim in quarantine touches nothing outside of it, and what lies there is not reworded, for it
may be believed again; and keys that the application gave are not the model's. Where advice does not hold, the
claim is new.

    same         the item gets the claim's sources; a claim that is trusted more comes in its place
    updates      the world changed: the claim is added, the item ends where the claim begins
    contradicts  the item was wrong: the claim is its next version. An item that is trusted more stands, and
                 the claim is kept with an end where it begins, so that no search meets it

What happened at another time is not the same, and a correction brings its own time along.

An item that has no room for the claim's sources is not changed: then the claim is new, or updates it. What
was said before the item began ends where that begins, whatever it says about it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from ..ops.clock import open_end, to_datetime, to_micros
from ..ops.event_time import EVENT_TIME, days_of, with_days
from ..ops.ids import format_id
from ..protocols import Transaction
from ..records import Record
from ..types import AddResult, MemoryItem
from . import reconcile
from .claimed_time import disjoint
from .similar import same_names_and_numbers, shared_words, sources_of_both

KEYS: Final = "said:"
"""How keys begin that a model gave."""

SIMILAR: Final = 0.35
"""The cosine from which a claim may be about an item."""
SHARED: Final = 0.4
"""The share of all words of both that both have, from which it may be, too: "lives in Lisbon" and "lives in
Utrecht" can be far apart."""
SAME: Final = 0.9
"""The cosine from which two texts may say the same although they write names and numbers differently."""


class Claim(msgspec.Struct, frozen=True):
    """prepared: the claim as an item. verdict and the item it is about: key, version shown, cosine."""

    prepared: reconcile.Prepared
    verdict: Literal["new", "same", "updates", "contradicts"] = "new"
    key: bytes = b""
    version: int = 0
    similarity: float = 0.0


class Hands(msgspec.Struct, frozen=True):
    """What settle() needs of others. put: stores what was prepared. both: an item's digests. fits: whether an
    item of a kind may have this metadata."""

    put: Callable[[Transaction, reconcile.Prepared], AddResult]
    checked: Callable[[Transaction, reconcile.Prepared], reconcile.Prepared]
    both: Callable[[MemoryItem], reconcile.Digests]
    earlier: reconcile.Earlier
    fits: Callable[[str, dict[str, Any]], bool]


def settle(transaction: Transaction, claim: Claim, hands: Hands) -> AddResult:
    """Store one claim, by the model's advice as far as the rules let it be followed."""
    prepared = hands.checked(transaction, claim.prepared)
    record = _about(transaction, claim, prepared.item)
    if record is None or claim.verdict == "new":
        return hands.put(transaction, prepared)
    if claim.verdict == "same":
        return _same(transaction, claim, record, prepared, hands)
    if claim.verdict == "updates" or prepared.item.valid_from < record.item.valid_from:
        return _update(transaction, record, prepared, hands)
    return _correct(transaction, record, prepared, hands)


def _about(transaction: Transaction, claim: Claim, item: MemoryItem) -> Record | None:
    """The item that a claim is about, if it may be about it."""
    record = transaction.get(claim.key) if claim.key else None
    if record is None or record.item.version != claim.version:
        return None
    known = record.item
    related = (
        claim.similarity >= SIMILAR
        or shared_words(known.text, item.text) >= SHARED
        or (known.key is not None and known.key == item.key)
    )
    if (
        not related
        or known.scope != item.scope
        or (item.quarantined and not known.quarantined)
        or (known.quarantined and claim.verdict != "same")
        or (known.key is not None and not known.key.startswith(KEYS))
        or not reconcile.is_current(known, transaction.now)
    ):
        return None
    return record


def _same(
    transaction: Transaction, claim: Claim, record: Record, prepared: reconcile.Prepared, hands: Hands
) -> AddResult:
    item, known = prepared.item, record.item
    if not same_names_and_numbers(known.text, item.text) and claim.similarity < SAME:
        return hands.put(transaction, prepared)
    if disjoint(days_of(known.metadata), days_of(item.metadata)):
        return hands.put(transaction, prepared)
    if item.trust > known.trust and not known.quarantined:
        return _reworded(transaction, record, prepared, hands, "a more trusted claim says it, by the model")
    sources = sources_of_both(known, item)
    if sources == known.sources or known.quarantined:  # it may be believed again, as its own sources say it
        transaction.touch(record)
    elif sources is None:
        return hands.put(transaction, prepared)
    else:
        more = msgspec.structs.replace(known, sources=sources)
        transaction.revise(record, more, None, operation="merge", reason="it was said again, by the model")
    return AddResult(format_id(record.key), "touched")


def _update(
    transaction: Transaction, record: Record, prepared: reconcile.Prepared, hands: Hands
) -> AddResult:
    item, known = prepared.item, record.item
    if known.key is not None and known.key != item.key:  # the slot of the item decides
        item = msgspec.structs.replace(item, key=known.key)
    begins, began = to_micros(item.valid_from, "valid_from"), to_micros(known.valid_from, "valid_from")
    if begins < began and open_end(item.valid_to, "valid_to") > began:
        item = msgspec.structs.replace(item, valid_to=known.valid_from)  # it was said earlier: history
    result = hands.put(transaction, _with(prepared, item, hands))
    old = transaction.get(record.key)
    if begins < began or old is None or format_id(old.key) == result.id:
        return result
    if open_end(old.item.valid_to, "valid_to") > begins:
        ended = msgspec.structs.replace(old.item, valid_to=item.valid_from)
        transaction.revise(
            old, ended, None, operation="close", reason="a later claim updates it, by the model"
        )
    return AddResult(result.id, "superseded", format_id(old.key))


def _correct(
    transaction: Transaction, record: Record, prepared: reconcile.Prepared, hands: Hands
) -> AddResult:
    item, known = prepared.item, record.item
    if item.trust < known.trust:
        if not prepared.valid_from_given:
            item = msgspec.structs.replace(item, valid_from=to_datetime(transaction.now))
        ended = msgspec.structs.replace(item, valid_to=item.valid_from, key=None)
        return hands.put(transaction, _with(prepared, ended, hands))
    return _reworded(transaction, record, prepared, hands, "a later claim corrects it, by the model")


def _reworded(
    transaction: Transaction, record: Record, prepared: reconcile.Prepared, hands: Hands, reason: str
) -> AddResult:
    """The claim as the item's next version; an item of its own where that would have too many sources."""
    item, known = prepared.item, record.item
    sources = sources_of_both(known, item)
    if sources is None:
        return _update(transaction, record, prepared, hands)
    corrected = msgspec.structs.replace(
        known,
        text=item.text,
        metadata=_metadata(known, item, hands),
        entities=item.entities,
        sources=sources,
        trust=item.trust,
        model_id=item.model_id,
    )
    reconcile.update(
        transaction, record, corrected, prepared.vector, based_on=known.version,
        digests=(hands.both(known), hands.both(corrected)), earlier=hands.earlier,
        reason=reason if prepared.reason is None else f"{reason}; {prepared.reason}",
    )  # fmt: skip
    return AddResult(format_id(record.key), "merged")


def _metadata(known: MemoryItem, item: MemoryItem, hands: Hands) -> dict[str, Any]:
    """That of the known item, with the time of the claim, or without any, where its kind has room for that:
    the time of what is corrected is not the correction's."""
    if EVENT_TIME in known.metadata and days_of(known.metadata) is None:
        return known.metadata  # something else of the application's
    ways = (with_days(known.metadata, days) for days in (days_of(item.metadata), None))
    return next((way for way in ways if hands.fits(known.kind, way)), known.metadata)


def _with(prepared: reconcile.Prepared, item: MemoryItem, hands: Hands) -> reconcile.Prepared:
    duplicate, slot = hands.both(item)
    fields: dict[str, Any] = {"item": item, "duplicate": duplicate, "slot": slot}
    return msgspec.structs.replace(prepared, **fields)
