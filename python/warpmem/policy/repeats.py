"""Which of several stored items that say the same stays, and what becomes of it and of the others.

The one that is trusted most stays; of these one that stands by itself (it names no sources), then the one
that is true for longest, then the one that was stored first. Another goes into it only where nobody loses by
that:

- same scope, kind, metadata, modality and blob, and no value of a key: which of those holds, their slot says;
- trusted at most as much, and neither in quarantine;
- true no earlier, and to the same end: what `as_of` tells stays what it was. A less trusted one may not live
  longer, for it moves nobody's expiry;
- an item that stands by itself stays when a source is erased or revoked, so it goes only into one like it;
  and items that name other places where they came from stay apart, so that either can be revoked by itself.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from ..config import MAX_NAMES
from ..ops.clock import open_end, to_micros
from ..ops.ids import origins
from ..types import MemoryItem
from .reconcile import NEVER_DUPLICATE
from .similar import united


def rank(item: MemoryItem) -> tuple[float, bool, int, int, str]:
    """Sorts items so that of those that say the same the first stays."""
    begins, made = to_micros(item.valid_from, "valid_from"), to_micros(item.created_at, "created_at")
    return -item.trust, bool(item.sources), begins, made, item.id


def may_repeat(item: MemoryItem) -> bool:
    """Whether an item may be a repetition at all."""
    return item.key is None and item.kind not in NEVER_DUPLICATE and not item.quarantined


def stands_for(kept: MemoryItem, other: MemoryItem) -> bool:
    """Whether `other`, which says the same as `kept`, may go into it."""
    begins, ends = to_micros(kept.valid_from, "valid_from"), open_end(kept.valid_to, "valid_to")
    return (
        may_repeat(kept)
        and may_repeat(other)
        and (kept.scope, kept.kind, kept.metadata, kept.modality, kept.blob)
        == (other.scope, other.kind, other.metadata, other.modality, other.blob)
        and begins <= to_micros(other.valid_from, "valid_from") < ends == open_end(other.valid_to, "valid_to")
        and (kept.trust == other.trust or (kept.trust > other.trust and not _outlives(other, kept)))
        and (not kept.sources or (bool(other.sources) and origins(kept.sources) == origins(other.sources)))
        and len({*kept.entities, *other.entities}) <= MAX_NAMES
        and (not kept.sources or len({*kept.sources, *other.sources}) <= MAX_NAMES)
    )


def joined(kept: MemoryItem, other: MemoryItem) -> MemoryItem:
    """`kept` once `other` has gone into it: its words, and what both name. What is less trusted adds its
    sources alone."""
    sources = united(kept.sources, other.sources) if kept.sources else ()
    if other.trust < kept.trust:
        return msgspec.structs.replace(kept, sources=sources)
    return msgspec.structs.replace(
        kept,
        sources=sources,
        priority=max(kept.priority, other.priority),
        entities=united(kept.entities, other.entities),
        expires_at=other.expires_at if _outlives(other, kept) else kept.expires_at,
    )


def superseded(item: MemoryItem, now: datetime) -> MemoryItem:
    """What went into another: true at no time, and expired, so that "forget" removes it in the end."""
    return msgspec.structs.replace(item, valid_to=item.valid_from, expires_at=now)


def _outlives(one: MemoryItem, other: MemoryItem) -> bool:
    return open_end(one.expires_at, "expires_at") > open_end(other.expires_at, "expires_at")
