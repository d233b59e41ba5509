"""What an addition or a correction does to what is already known. Runs inside a transaction.

- A duplicate (same scope, kind, normalised text, metadata, key) of an item that is current is touched.
Messages
  and events are history, where repetition counts: they are never duplicates.
- A key names a slot of its full scope. Its items form a chain by `valid_from`; each is valid until the next
  begins. A new item closes the one before it; one that arrives late begins and ends between its neighbours.
- An update corrects what we knew: same item, next version.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..errors import IdempotencyConflict, InputError, InvalidTime, NotFound, VersionConflict
from ..ops.clock import open_end, to_datetime, to_micros
from ..ops.ids import format_id
from ..protocols import Transaction
from ..records import NEVER, Record
from ..types import AddResult, MemoryItem, Scope

NEVER_DUPLICATE = frozenset({"message", "event"})


class Prepared(msgspec.Struct, frozen=True):
    """An item ready to be stored: checked, embedded, its digests computed.

    `valid_from_given` tells a time that the caller named from one that defaulted to now.
    """

    item: MemoryItem
    vector: Any
    duplicate: bytes | None
    slot: bytes | None
    valid_from_given: bool


def is_current(item: MemoryItem, now: int) -> bool:
    """Whether an item is true and unexpired at `now`."""
    return (
        to_micros(item.valid_from, "valid_from") <= now < open_end(item.valid_to, "valid_to")
        and open_end(item.expires_at, "expires_at") > now
    )


def add(transaction: Transaction, prepared: Prepared) -> AddResult:
    """Store one prepared item, or touch the one it repeats."""
    now = transaction.now
    item = prepared.item
    if not prepared.valid_from_given:
        item = msgspec.structs.replace(item, valid_from=to_datetime(now))
    _check_interval(item)
    owner = transaction.owner(item.scope.owner)
    if prepared.duplicate is not None:
        known = _current_duplicate(transaction, owner, prepared.duplicate, now)
        if known is not None and (not prepared.valid_from_given or item.valid_from >= known.item.valid_from):
            transaction.touch(known)
            return AddResult(format_id(known.key), "touched")
    if prepared.slot is None:
        record = transaction.add(owner, item, prepared.vector, duplicate=prepared.duplicate, slot=None)
        return AddResult(format_id(record.key), "added")
    return _add_to_slot(transaction, owner, item, prepared, prepared.slot)


def _current_duplicate(transaction: Transaction, owner: int, digest: bytes, now: int) -> Record | None:
    key = transaction.find_duplicate(owner, digest)
    record = None if key is None else transaction.get(key)
    return record if record is not None and is_current(record.item, now) else None


def _add_to_slot(
    transaction: Transaction, owner: int, item: MemoryItem, prepared: Prepared, slot: bytes
) -> AddResult:
    begins = to_micros(item.valid_from, "valid_from")
    before: bytes | None = None
    after: int | None = None
    for valid_from, key in transaction.key_chain(owner, slot):
        if valid_from <= begins:
            before = key
        else:
            after = valid_from
            break
    if after is not None:
        item = msgspec.structs.replace(item, valid_to=to_datetime(after))
    old = None if before is None else transaction.get(before)
    replaced = None
    if old is not None and open_end(old.item.valid_to, "valid_to") > begins:
        closed = msgspec.structs.replace(old.item, valid_to=item.valid_from)
        transaction.revise(old, closed, None, operation="close")
        replaced = format_id(old.key)
    record = transaction.add(owner, item, prepared.vector, duplicate=prepared.duplicate, slot=slot)
    return AddResult(format_id(record.key), "superseded" if replaced else "added", replaced)


def find(transaction: Transaction, key: bytes, scope: Scope | None) -> Record:
    """The current version of an item, if `scope` may see it. Raises NotFound."""
    record = transaction.get(key)
    if record is None or (scope is not None and not scope.covers(record.item.scope)):
        raise NotFound("no such item in this scope")
    return record


def update(
    transaction: Transaction,
    record: Record,
    item: MemoryItem,
    vector: NDArray[np.float32] | None,
    *,
    expected_version: int | None,
    based_on: int,
    digests: tuple[bytes | None, bytes | None],
) -> Record:
    """Store `item`, made from version `based_on` of `record`, as its next version."""
    if expected_version is not None and expected_version != record.item.version:
        raise VersionConflict(expected_version, record.item.version)
    if based_on != record.item.version:
        raise VersionConflict(based_on, record.item.version)
    _check_interval(item)
    if item.key is not None and (item.valid_from, item.valid_to) != (
        record.item.valid_from,
        record.item.valid_to,
    ):
        raise InputError(
            "the validity of a keyed item follows from its key; add the key again or delete the item"
        )
    return transaction.revise(record, item, vector, operation="update", duplicate=digests)


def idempotent_result(
    transaction: Transaction, owner: int, digest: bytes, payload: bytes, window: int
) -> Any | None:
    """The remembered result of an earlier identical call, or None. Raises IdempotencyConflict."""
    known = transaction.idempotent(owner, digest)
    if known is None or transaction.now - known[0] > window:
        return None
    if known[1] != payload:
        raise IdempotencyConflict(
            "this idempotency_key was used with another payload; use a new key for new content"
        )
    return known[2]


def _check_interval(item: MemoryItem) -> None:
    begins = to_micros(item.valid_from, "valid_from")
    if open_end(item.valid_to, "valid_to") < begins:
        raise InvalidTime("valid_to lies before valid_from")
    if item.expires_at is not None and open_end(item.expires_at, "expires_at") == NEVER:
        raise InvalidTime("expires_at is out of range; use None for never")
