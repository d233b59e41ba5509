"""What belongs to a document: the items that its chunks are and were."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ..config import MAX_BATCH
from ..ops.ids import format_id, owner_of
from ..protocols import Transaction
from ..records import Record
from ..types import MemoryItem
from .digests import Digests


def slots_of(digests: Digests, whole: MemoryItem, key: str) -> list[bytes]:
    """Where the values of a chunk's key are found: it may have gone into quarantine since the whole was
    stored, or come out of it."""
    trusts = (whole.trust, 0.0 if not whole.quarantined else 1.0)
    likes = (msgspec.structs.replace(whole, key=key, trust=trust) for trust in trusts)
    return [slot for like in likes if (slot := digests.slot(like)) is not None]


def chunks_of(transaction: Transaction, digests: Digests, whole: Record) -> Iterator[Record]:
    """Every value of the keys of a document's chunks that names the whole; none where it is no document."""
    said = whole.item.metadata.get("document")
    given = said.get("numbers") if isinstance(said, dict) else None
    if whole.item.key is None or not isinstance(given, int):
        return
    own = format_id(whole.key)
    for number in range(min(given, MAX_BATCH)):
        for slot in slots_of(digests, whole.item, f"{whole.item.key}#{number}"):
            for _, key in transaction.key_chain(owner_of(whole.key), slot):
                record = transaction.get(key)
                if record is not None and own in record.item.sources:
                    yield record
