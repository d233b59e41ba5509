"""What deduplication must make of some items, in plain words that share no code with the package."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

THRESHOLD = 0.95


@dataclass(frozen=True)
class Told:
    """An item. Times are days; None is never."""

    id: str
    text: str
    vector: tuple[float, ...]
    kind: str
    agent: str | None
    tag: int
    key: str | None
    trust: float
    sources: tuple[str, ...]
    entities: tuple[str, ...]
    priority: float
    begins: int
    ends: int | None
    expires: int | None


def ended(items: list[Told], now: int) -> set[str]:
    """The ids of those that end for others. items: in the order of being added."""
    gone: set[str] = set()
    order = sorted(
        items, key=lambda item: (-item.trust, bool(item.sources), item.begins, -_late(item.expires), item.id)
    )
    for place, kept in enumerate(order):
        if kept.id not in gone:
            gone |= {other.id for other in order[place + 1 :] if _ends_for(kept, other, now)}
    return gone


def _ends_for(kept: Told, other: Told, now: int) -> bool:
    if any(one.kind in ("message", "event") or one.key or one.trust < 0.5 for one in (kept, other)):
        return False
    if any(one.begins > now or _late(one.ends) <= now or _late(one.expires) <= now for one in (kept, other)):
        return False
    if (kept.kind, kept.agent, kept.tag) != (other.kind, other.agent, other.tag):
        return False
    if other.begins < kept.begins or other.ends != kept.ends or other.trust > kept.trust:
        return False
    if _late(other.expires) > _late(kept.expires):
        return False
    if kept.sources and set(kept.sources) != set(other.sources):
        return False
    if " ".join(kept.text.lower().split()) == " ".join(other.text.lower().split()):
        return True
    cosine = math.fsum(a * b for a, b in zip(kept.vector, other.vector, strict=True)) / (
        math.hypot(*kept.vector) * math.hypot(*other.vector)
    )
    assert abs(cosine - THRESHOLD) > 1e-5, "too near to the threshold to be decided by rounding"
    return cosine > THRESHOLD and _marked(kept.text) == _marked(other.text)


def _late(day: Any) -> float:
    return math.inf if day is None else float(day)


def _marked(text: str) -> Counter[str]:
    words = re.findall(r"[A-Za-z0-9]+", text)
    return Counter(word.lower() for word in words if word[0].isupper() or re.search("[0-9]", word))
