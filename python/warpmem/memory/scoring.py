"""What the score of a hit is made of."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from ..errors import InputError
from ..ops.clock import to_micros
from ..policy.modes import Weights
from ..records import Match, ScoreParams
from ..types import MemoryItem
from ..types.scalars import float_of

_MICROSECOND: Final = timedelta(microseconds=1)
_PARTS: Final = ("similarity", "lexical", "adjacent", "entities", "recency", "priority")


def least_similarity(value: float | None) -> float:
    """What `min_similarity` asks for; -inf for nothing. Raises InputError."""
    if value is None:
        return float("-inf")
    least = float_of(value)
    if least is None:
        raise InputError(f"min_similarity must be a number, not {type(value).__name__}")
    if not -2.0 <= least <= 2.0:
        raise InputError("min_similarity is a cosine: from -1 to 1")
    return least


def params_of(ranking: Weights, least: float, now: int) -> ScoreParams:
    """A ranking as the index takes it."""
    return ScoreParams(
        float(ranking.similarity),
        float(ranking.recency),
        float(ranking.priority),
        float(ranking.half_life // _MICROSECOND),
        now,
        least,
        float(ranking.lexical),
        float(ranking.adjacent),
        float(ranking.entities),
    )


def parts_of(
    item: MemoryItem, match: Match, ranking: Weights, now: int, explain: bool, blind: bool
) -> dict[str, float]:
    """The terms of a score, with `explain` all of them and their weights; the similarity only where the query
    was embedded."""
    parts = {} if blind else {"similarity": match[1]}
    if ranking.lexical:
        parts["lexical"] = match[4]
    if ranking.adjacent:
        parts["adjacent"] = match[5]
    if ranking.entities:
        parts["entities"] = match[6]
    if ranking.recency or explain:
        age = max(0, now - to_micros(item.valid_from, "valid_from"))
        parts["recency"] = 2.0 ** -(age / float(ranking.half_life // _MICROSECOND))
    if ranking.priority or explain:
        parts["priority"] = item.priority
    if explain:
        for name in _PARTS:
            parts[f"weight_{name}"] = float(getattr(ranking, name))
    return parts
