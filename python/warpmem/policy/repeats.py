"""Which of several stored items that say the same stays, and what becomes of the others.

The one that is trusted most stays; of these one that stands by itself (it names no sources), then the one
that is true for longest, then the one that lives longest, then the one that was stored first. Nothing about
it changes. Another ends for it only where nobody loses by that:

- same scope, kind, metadata, modality, blob and end of truth, and no value of a key: which of those holds,
  their slot says;
- trusted at most as much, and neither in quarantine;
- true no earlier: what `as_of` tells stays what it was; and it would live no longer;
- the one that stays names no sources, or both name the same: else erasing or revoking a source would take
  what another one still tells.
"""

from __future__ import annotations

from collections.abc import Hashable
from datetime import datetime
from typing import NamedTuple

import msgspec

from ..ops.clock import open_end, to_micros
from ..records import Record
from ..types import MemoryItem
from .reconcile import NEVER_DUPLICATE

_json = msgspec.json.Encoder(order="deterministic").encode


class Rank(NamedTuple):
    """Sorts items so that of those that say the same the first stays. Times in microseconds;
    `expires_before` is the negative of the expiry, since what lives longer stays."""

    distrust: float
    sourced: bool
    begins: int
    expires_before: int
    ordinal: int


def rank(record: Record) -> Rank:
    """Where an item stands among all of its owner."""
    item = record.item
    begins, expires = to_micros(item.valid_from, "valid_from"), open_end(item.expires_at, "expires_at")
    return Rank(-item.trust, bool(item.sources), begins, -expires, record.ordinal)


def may_repeat(item: MemoryItem) -> bool:
    """Whether an item may be a repetition at all."""
    return item.key is None and item.kind not in NEVER_DUPLICATE and not item.quarantined


def in_common(item: MemoryItem) -> Hashable:
    """What two items have in common if one of them may end for the other."""
    ends = open_end(item.valid_to, "valid_to")
    return item.scope, item.kind, _json(item.metadata), item.modality, item.blob, ends


def stands_for(kept: Rank, other: Rank) -> bool:
    """Whether an item may end for one that says the same, by their ranks alone: besides, both are true now,
    `may_repeat` allows both, they have `in_common` the same, and `kept` names no sources or those of the
    other."""
    return kept < other and kept.begins <= other.begins and kept.expires_before <= other.expires_before


def superseded(item: MemoryItem, now: datetime) -> MemoryItem:
    """What ends for another: true at no time, and expired, so that "forget" removes it in the end."""
    return msgspec.structs.replace(item, valid_to=item.valid_from, expires_at=now)


def is_superseded(item: MemoryItem, now: int) -> bool:
    """Whether an item has ended for another."""
    return item.valid_to == item.valid_from and open_end(item.expires_at, "expires_at") <= now
