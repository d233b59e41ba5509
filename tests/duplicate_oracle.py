"""What deduplication must make of some items, in plain words that share no code with the package."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

THRESHOLD = 0.95


@dataclass(frozen=True)
class Told:
    """An item. Times are days; None is never. into: what it has gone into."""

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
    into: str | None = None


def deduplicated(items: list[Told], now: int, ids: set[str]) -> list[Told]:
    """The items afterwards. ids: which sources are items, in the order of being added."""
    state = {item.id: item for item in items}
    order = sorted(items, key=lambda item: (-item.trust, bool(item.sources), item.begins, item.id))
    for place, first in enumerate(order):
        for other in order[place + 1 :]:
            kept, going = state[first.id], state[other.id]
            if kept.into is None and going.into is None and _goes_into(kept, going, now, ids):
                state[first.id] = _with(kept, going)
                state[other.id] = replace(going, into=first.id)
    return [state[item.id] for item in items]


def _goes_into(kept: Told, other: Told, now: int, ids: set[str]) -> bool:
    if any(one.kind in ("message", "event") or one.key or one.trust < 0.5 for one in (kept, other)):
        return False
    if any(one.begins > now or _late(one.ends) <= now or _late(one.expires) <= now for one in (kept, other)):
        return False
    if (kept.kind, kept.agent, kept.tag) != (other.kind, other.agent, other.tag):
        return False
    if other.begins < kept.begins or other.ends != kept.ends or other.trust > kept.trust:
        return False
    if other.trust < kept.trust and _late(other.expires) > _late(kept.expires):
        return False
    if kept.sources:
        names = [{source for source in one.sources if source not in ids} for one in (kept, other)]
        if not other.sources or names[0] != names[1]:
            return False
    if " ".join(kept.text.lower().split()) == " ".join(other.text.lower().split()):
        return True
    cosine = math.fsum(a * b for a, b in zip(kept.vector, other.vector, strict=True)) / (
        math.hypot(*kept.vector) * math.hypot(*other.vector)
    )
    assert abs(cosine - THRESHOLD) > 1e-5, "too near to the threshold to be decided by rounding"
    return cosine > THRESHOLD and _marked(kept.text) == _marked(other.text)


def _with(kept: Told, other: Told) -> Told:
    if kept.sources:
        kept = replace(kept, sources=tuple(dict.fromkeys(kept.sources + other.sources)))
    if other.trust < kept.trust:
        return kept
    later = max(_late(kept.expires), _late(other.expires))
    return replace(
        kept,
        priority=max(kept.priority, other.priority),
        entities=tuple(dict.fromkeys(kept.entities + other.entities)),
        expires=None if later == math.inf else int(later),
    )


def _late(day: Any) -> float:
    return math.inf if day is None else float(day)


def _marked(text: str) -> Counter[str]:
    words = re.findall(r"[A-Za-z0-9]+", text)
    return Counter(word.lower() for word in words if word[0].isupper() or re.search("[0-9]", word))
