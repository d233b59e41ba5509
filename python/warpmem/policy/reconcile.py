"""What an addition or a correction does to what is already known. Runs inside a transaction.

- A duplicate repeats an item of the same scope, kind, normalised text, metadata, key, modality and blob, at a
  time when that item is valid and before it has expired. It is touched; if the repetition would live longer,
  the item's expiry moves out (an update). Priority, entities and sources of a repetition are dropped; but an
  entity's record, a relation or what was made of a message gets those of its repetition besides, if it has
  sources, as near-duplicates do: what two messages say stays when one of them is erased.
  Where it has no room for them the repetition is stored apart.
  Messages and events are history, where repetition counts: they are never duplicates.
- A key names a slot of its full scope. Its items form a chain by `valid_from`; each is valid until the next
  begins, or ends before that by itself. A new item closes the one before it; one that arrives late begins
  and ends between its neighbours.
- A near-duplicate (policy/similar.py) becomes the next version of the item that it words anew, so both
  wordings are in history and `revert` brings the first one back. What both name as entities is put together,
  as sources too where both are trusted alike (else those of the more trusted one hold), and the item lives as
  long as either would.
- An update corrects what we knew: same item, next version.
- An item in quarantine repeats and supersedes only others like it: duplicates and slots of its kind are apart
  (memory/digests.py). One whose sources took its trust away repeats only what has it back when they do. One
  that leaves quarantine, or comes into it, changes its slot: it ends what was before it in the new slot, what
  it had ended in the old one goes on, and it has back the end that a value of the old one took.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..errors import IdempotencyConflict, InputError, InvalidTime, NotFound, VersionConflict
from ..ops.clock import open_end, to_datetime, to_micros
from ..ops.ids import owner_of
from ..protocols import Transaction
from ..records import NEVER, Record
from ..types import AddResult, MemoryItem, Operation, Scope
from ..types.graph import ENTITY, RELATION
from .similar import Near, comes_from, says_the_same, sources_of_both, united

Digests = tuple[bytes | None, bytes | None]
"""Where an item is found: as a duplicate, and among the values of its key."""

Earlier = Callable[[bytes, int], "Record | None"]
"""(key, version) -> what an item was in that version."""

REVOKED = "its source was revoked"
"""Why an item has no trust any more."""
UNTRUSTED = "its sources are trusted less"
"""Why an item is trusted less than it was given."""
GIVEN = "it was given this trust"
"""Why an item keeps the trust that its sources left it: `update(trust=)` says so."""

_NEWEST = b"\xff" * 20
"""In the place of the key of an item that has none yet: of those that begin at one time it is the last."""

NEVER_DUPLICATE = frozenset({"message", "event"})
_JOINS_SOURCES = frozenset({ENTITY, RELATION})


class Prepared(msgspec.Struct, frozen=True):
    """An item ready to be stored: checked, embedded (else `vector` is None and made later), its digests
    computed.

    `valid_from_given` tells a time that the caller named from one that defaulted to now. `near`: what is
    stored near it, nearest first. `given`: the trust it came with, where its sources took that away, and
    `why`. `space`: the number of the one that the vector lies in. `told`: it was made of a message. `reason`:
    what its history says of its first version.
    """

    item: MemoryItem
    vector: Any
    duplicate: bytes | None
    slot: bytes | None
    valid_from_given: bool
    near: Sequence[Near] = ()
    given: float | None = None
    why: str = REVOKED
    space: int = 0
    told: bool = False
    reason: str | None = None

    @property
    def joins_sources(self) -> bool:
        """Whether what it repeats gets its sources."""
        return self.told or self.item.kind in _JOINS_SOURCES


def is_current(item: MemoryItem, now: int) -> bool:
    """Whether an item is true and unexpired at `now`."""
    return (
        to_micros(item.valid_from, "valid_from") <= now < open_end(item.valid_to, "valid_to")
        and open_end(item.expires_at, "expires_at") > now
    )


def add(
    transaction: Transaction,
    prepared: Prepared,
    duplicate_of: Callable[[MemoryItem], bytes | None],
    alike: Callable[[Record, MemoryItem], bool],
) -> AddResult:
    """Store one prepared item, or touch the one it repeats. duplicate_of: an item's digest as a duplicate.
    alike: whether what is stored comes to be believed when an item does whose trust was taken away."""
    item = prepared.item
    if not prepared.valid_from_given:
        item = msgspec.structs.replace(item, valid_from=to_datetime(transaction.now))
    _check_interval(item)
    owner = transaction.owner(item.scope.owner)
    chain: list[tuple[int, bytes]] = []
    if prepared.slot is not None:
        chain = transaction.key_chain(owner, prepared.slot)
        item = _until_next(item, chain)
    if prepared.duplicate is not None:
        known = _repeated(transaction, owner, prepared, item, alike)
        if known is not None:
            return _touch(transaction, known, item, prepared.joins_sources)
    for near in prepared.near:
        known = transaction.get(near.key)
        if known is None or known.item.version != near.version:
            continue
        own = known.item.id
        if says_the_same(known, item, transaction.now) and not comes_from(item.sources, own, transaction.get):
            return _merge(transaction, known, prepared, near, duplicate_of(known.item))
    replaced = _close_previous(transaction, item, chain)
    record = _store(transaction, owner, item, prepared)
    if prepared.vector is None:
        return AddResult(record.item.id, "queued", replaced)
    return AddResult(record.item.id, "added" if replaced is None else "superseded", replaced)


def _store(transaction: Transaction, owner: int, item: MemoryItem, prepared: Prepared) -> Record:
    """A first version; and where the trust of the item was taken away, the one it came with before that."""
    duplicate, slot = prepared.duplicate, prepared.slot
    if prepared.given is None:
        return transaction.add(
            owner, item, prepared.vector, duplicate=duplicate, slot=slot, space=prepared.space,
            reason=prepared.reason,
        )  # fmt: skip
    given = msgspec.structs.replace(item, trust=prepared.given, valid_to=prepared.item.valid_to)
    first = transaction.add(
        owner, given, prepared.vector, duplicate=None, slot=None, space=prepared.space, reason=prepared.reason
    )
    distrusted = msgspec.structs.replace(first.item, trust=item.trust, valid_to=item.valid_to)
    return transaction.revise(
        first, distrusted, None, operation="update", reason=prepared.why, duplicate=(None, duplicate),
        slot=(None, slot),
    )  # fmt: skip


def _repeated(
    transaction: Transaction,
    owner: int,
    prepared: Prepared,
    item: MemoryItem,
    alike: Callable[[Record, MemoryItem], bool],
) -> Record | None:
    """The stored item that `item` repeats: it holds when `item` begins, ends no earlier, has not expired, and
    gives back what was said where its source is believed again."""
    assert prepared.duplicate is not None
    given = None
    if prepared.given is not None and item.quarantined:
        given = msgspec.structs.replace(item, trust=prepared.given)
    begins, ends = to_micros(item.valid_from, "valid_from"), open_end(item.valid_to, "valid_to")
    for key in transaction.find_duplicates(owner, prepared.duplicate):
        record = transaction.get(key)
        if record is None or (given is not None and not alike(record, given)):
            continue
        known = record.item
        if prepared.joins_sources and known.sources and sources_of_both(known, item) is None:
            continue
        if (
            to_micros(known.valid_from, "valid_from") <= begins < open_end(known.valid_to, "valid_to")
            and ends <= open_end(known.valid_to, "valid_to")
            and open_end(known.expires_at, "expires_at") > max(begins, transaction.now)
        ):
            return record
    return None


def _touch(transaction: Transaction, known: Record, item: MemoryItem, joins_sources: bool) -> AddResult:
    said: dict[str, Any] = {}
    if open_end(item.expires_at, "expires_at") > open_end(known.item.expires_at, "expires_at"):
        said["expires_at"] = item.expires_at
    own = known.item.id
    sources = sources_of_both(known.item, item)
    if (
        joins_sources
        and not item.quarantined  # what is stored there may be believed again, for what its own sources say
        and known.item.sources
        and sources not in (None, known.item.sources)
        and not comes_from(item.sources, own, transaction.get)
    ):
        said["sources"] = sources
    if said:
        reason = "a repetition has other sources" if "sources" in said else "a repetition expires later"
        more = msgspec.structs.replace(known.item, **said)
        transaction.revise(known, more, None, operation="update", reason=reason)
    else:
        transaction.touch(known)
    return AddResult(known.item.id, "touched")


def _merge(
    transaction: Transaction, known: Record, prepared: Prepared, near: Near, duplicate: bytes | None
) -> AddResult:
    old, item = known.item, prepared.item
    entities = united(old.entities, item.entities)
    sources = sources_of_both(old, item)
    assert entities is not None
    assert sources is not None  # else it would not say the same
    expires = max((old.expires_at, item.expires_at), key=lambda when: open_end(when, "expires_at"))
    merged = msgspec.structs.replace(
        old,
        text=item.text,
        priority=max(old.priority, item.priority),
        entities=entities,
        sources=sources,
        trust=item.trust,
        model_id=item.model_id,
        expires_at=expires,
    )
    transaction.revise(
        known, merged, prepared.vector, operation="merge",
        reason=f"another wording of version {old.version}: cosine {near.similarity:.4f}",
        duplicate=(duplicate, prepared.duplicate),
    )  # fmt: skip
    return AddResult(known.item.id, "merged")


def _until_next(item: MemoryItem, chain: list[tuple[int, bytes]], key: bytes = _NEWEST) -> MemoryItem:
    """`item`, ended where the next value of its key begins."""
    begins = to_micros(item.valid_from, "valid_from")
    following = [place[0] for place in chain if place > (begins, key)]
    if following and following[0] < open_end(item.valid_to, "valid_to"):
        return msgspec.structs.replace(item, valid_to=to_datetime(following[0]))
    return item


def _close_previous(
    transaction: Transaction, item: MemoryItem, chain: list[tuple[int, bytes]], key: bytes = _NEWEST
) -> str | None:
    """End the value before `item` where `item` begins; its id if that changed it."""
    if not chain:
        return None
    begins = to_micros(item.valid_from, "valid_from")
    before = [place[1] for place in chain if place < (begins, key)]
    old = transaction.get(before[-1]) if before else None
    if old is None or open_end(old.item.valid_to, "valid_to") <= begins:
        return None
    closed = msgspec.structs.replace(old.item, valid_to=item.valid_from)
    transaction.revise(old, closed, None, operation="close", reason="its key has a newer value")
    return old.item.id


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
    based_on: int,
    digests: tuple[Digests, Digests],
    earlier: Earlier,
    operation: Operation = "update",
    reason: str | None = None,
    later: bool = False,
) -> Record:
    """Store `item`, made from version `based_on` of `record`, as its next version. Raises VersionConflict.

    digests: (of the item as it is, as it will be)."""
    if based_on != record.item.version:
        raise VersionConflict(based_on, record.item.version)
    _check_interval(item)
    (forget, leave), (remember, enter) = digests
    if leave is not None:
        _check_begin(record, item)
    if leave is not None and leave == enter:
        _check_end(transaction, record, item, leave)
    elif enter is not None:
        if leave is not None:
            item = _with_own_end(transaction, record, item, leave, earlier)
        chain = transaction.key_chain(owner_of(record.key), enter)
        item = _until_next(item, chain, record.key)
        _close_previous(transaction, item, chain, record.key)
    revised = transaction.revise(
        record, item, vector, operation=operation, reason=reason,
        duplicate=(forget, remember), slot=(leave, enter), later=later,
    )  # fmt: skip
    if leave is not None and leave != enter:
        _reopen_previous(transaction, record, leave, earlier)
    return revised


def _reopen_previous(transaction: Transaction, record: Record, slot: bytes, earlier: Earlier) -> None:
    """Let the value go on that ended where `record`, which has left the slot, began."""
    chain = transaction.key_chain(owner_of(record.key), slot)
    begins = to_micros(record.item.valid_from, "valid_from")
    before = [place[1] for place in chain if place < (begins, record.key)]
    old = transaction.get(before[-1]) if before else None
    if old is None or transaction.made_by(old.key) != "close" or old.item.valid_to != record.item.valid_from:
        return
    known = earlier(old.key, old.item.version - 1)
    if known is None:
        return
    item = _until_next(msgspec.structs.replace(old.item, valid_to=known.item.valid_to), chain, old.key)
    transaction.revise(old, item, None, operation="revert", reason="what followed it is no value of its key")


def _with_own_end(
    transaction: Transaction, record: Record, item: MemoryItem, slot: bytes, earlier: Earlier
) -> MemoryItem:
    """`item`, the next version of `record`, with the end that it had before others in the slot that it leaves
    ended it there; a new end of its own stays."""
    if item.valid_to != record.item.valid_to:
        return item
    place = to_micros(record.item.valid_from, "valid_from"), record.key
    following = {other[0] for other in transaction.key_chain(owner_of(record.key), slot) if other > place}
    then, version = record.item, record.item.version
    while open_end(then.valid_to, "valid_to") in following:
        version -= 1
        if not version:  # it came in between two values
            return item
        known = earlier(record.key, version)
        if known is not None:
            then = known.item
            if then.quarantined == item.quarantined:
                break
    return msgspec.structs.replace(item, valid_to=then.valid_to)


def _check_begin(record: Record, item: MemoryItem) -> None:
    if item.valid_from != record.item.valid_from:
        raise InputError("valid_from is a keyed item's place in its key: delete the item and add it anew")


def _check_end(transaction: Transaction, record: Record, item: MemoryItem, slot: bytes) -> None:
    """A keyed item may end earlier or later, up to where the next value of its key begins."""
    begins, ends = to_micros(item.valid_from, "valid_from"), open_end(item.valid_to, "valid_to")
    chain = transaction.key_chain(owner_of(record.key), slot)
    following = chain[chain.index((begins, record.key)) + 1 :]
    if following and ends > following[0][0]:
        raise InvalidTime("valid_to lies after the next value of this key begins")


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
    if item.valid_to is not None and to_micros(item.valid_to, "valid_to") < begins:
        raise InvalidTime("valid_to lies before valid_from")
    if item.expires_at is not None and open_end(item.expires_at, "expires_at") == NEVER:
        raise InvalidTime("expires_at is out of range; use None for never")
