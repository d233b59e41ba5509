"""What may be forgotten, and by which rule: each removal names its own.

    expired   its time ran out more than `grace` ago
    faded     its retention has fallen below `min_retention`
    crowded   its owner has more than `max_items` that no other rule keeps; those in quarantine and those
              that have expired go first, then those of the least retention

What has ended for an item that says the same (policy/repeats.py) is not counted and goes only as expired, so
that it can be reverted until then; and where something cites it, it stays.

retention = priority * 2 ** (-(now - touched_at) / half_life): what matters more, and what was lately added,
repeated or changed, stays longer. What current items, of other owners too, name as a source stays, whatever
its retention, and so do values of keys and kinds that are to be kept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

from ..ops.clock import open_end, to_micros
from ..types import MemoryItem
from .repeats import is_superseded

EXPIRED: Final = "expired"


class Rules(NamedTuple):
    """Times in microseconds. None: this rule removes nothing."""

    grace: int
    min_retention: float | None
    half_life: int
    max_items: int | None
    keep_kinds: Collection[str]


def retention(item: MemoryItem, now: int, half_life: int) -> float:
    """From 0 to the item's priority."""
    age = max(0, now - to_micros(item.touched_at, "touched_at"))
    return float(item.priority * 2.0 ** -(age / half_life))


def to_forget(
    items: Sequence[MemoryItem], cited: Collection[str], now: int, rules: Rules
) -> list[tuple[MemoryItem, str]]:
    """(item, the rule that allows it), of one owner's items. cited: ids that items name as sources."""
    found: list[tuple[MemoryItem, str]] = []
    fading: list[tuple[bool, float, MemoryItem]] = []
    for item in items:
        superseded = is_superseded(item, now)
        if open_end(item.expires_at, "expires_at") + rules.grace <= now:
            if not superseded or item.id not in cited:
                found.append((item, EXPIRED))
        elif superseded:
            continue
        elif item.id not in cited and item.key is None and item.kind not in rules.keep_kinds:
            first = item.quarantined or open_end(item.expires_at, "expires_at") <= now
            fading.append((not first, retention(item, now, rules.half_life), item))
    fading.sort(key=lambda entry: (entry[0], entry[1], entry[2].recorded_at, entry[2].id))
    left = len(fading)
    for last, worth, item in fading:
        if rules.min_retention is not None and worth < rules.min_retention:
            found.append((item, f"faded: retention {worth:.4f} below {rules.min_retention:g}"))
        elif rules.max_items is not None and left > rules.max_items:
            found.append((item, f"crowded: {left} items, {rules.max_items} are kept"))
        elif last:
            break  # the others are worth more
        else:
            continue
        left -= 1
    return found


def cited_by(items: Iterable[MemoryItem]) -> set[str]:
    """All that items name as sources."""
    return {source for item in items for source in item.sources}
