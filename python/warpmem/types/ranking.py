"""Weights of scores."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, get_args

import msgspec

from ..errors import InputError, InvalidScope
from .items import Modality, Scope
from .scalars import float_of, int_of

_MAX_HALF_LIFE = timedelta(days=365_250)


MODAL = ("similarity", "lexical", "adjacent")
"""Weights that a mode has."""

_set = msgspec.structs.force_setattr

_WEIGHTS = (*MODAL, "entities", "recency", "priority")


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """Weights of the final score, a plain weighted sum that is not renormalised.

    similarity, lexical and adjacent are those of the search's mode (of the store's, "hybrid" unless it is
    configured otherwise, where a search names none), unless the ranking names one of the three, for any kind:
    then those that it does not name are 1, 0 and 0, and the search names no mode.

    similarity: cosine in [-1, 1]. lexical: BM25 of the query's words in the text, as a share of the best that
    they could have, in [0, 1). adjacent: lexical of the items just before and after in the same run (of one
    kind, agent and run), whatever filters say, and half of that of the next but one. entities: the share of
    the entities whose names stand in the query (the first 16) that the item names too, in [0, 1]; one counts
    by half where the item names only another that it has a relation with (of the newest 64). priority: the
    item's own, in [0, 1]. recency: ``2 ** (-max(0, now - valid_from) / half_life)`` in (0, 1].

    by_kind: rankings of their own for items of these kinds; all weights are theirs. The k best are those of
    all kinds together, so the weights of one should give scores like the others'.

    diversity: from 0 to 1. Above 0, hits are chosen one after the other from the max(4 k, 50) best, 1,024 at
    most (so k <= 1,024): each has the largest (1 - diversity) * score - diversity * its largest cosine with a
    hit before it (maximal marginal relevance, Carbonell and Goldstein, 1998). Scores stay as they are. Of one
    space alone; fewer candidates over many scopes.

    spaces: by modality ("text" included), what similarity counts in its space, as a factor of its weight; 1
    where it is not named, 0 leaves the space out. Models differ in what their cosines mean.
    """

    similarity: float | None = None
    lexical: float | None = None
    adjacent: float | None = None
    entities: float = 0.0
    recency: float = 0.0
    priority: float = 0.0
    half_life: timedelta = timedelta(days=30)
    diversity: float = 0.0
    by_kind: dict[str, Ranking] = {}
    spaces: dict[str, float] = {}

    def __post_init__(self) -> None:
        for name in _WEIGHTS:
            value = getattr(self, name)
            if value is None and name in MODAL:
                continue
            _set(self, name, _weight(value, f"ranking weight {name}"))
        _set(self, "spaces", _check_spaces(self.spaces))
        if not isinstance(self.half_life, timedelta) or self.half_life < timedelta(microseconds=1):
            raise InputError("ranking half_life must be a timedelta of at least a microsecond")
        diversity = float_of(self.diversity)
        if diversity is None or not 0 <= diversity <= 1:
            raise InputError("ranking diversity must be a number from 0 to 1")
        _set(self, "diversity", diversity)
        if not isinstance(self.by_kind, dict):
            raise InputError(f"ranking by_kind must be a dict, not {type(self.by_kind).__name__}")
        for kind, ranking in self.by_kind.items():
            if not isinstance(kind, str) or not isinstance(ranking, Ranking):
                raise InputError("ranking by_kind must hold a warpmem.Ranking for each kind")
            if ranking.by_kind or ranking.diversity or ranking.spaces:
                raise InputError("a ranking inside by_kind has no by_kind, diversity or spaces of its own")


class ScopeWeight(msgspec.Struct, frozen=True):
    """One of the scopes of a search: what it counts beside the others, and how many of the hits it may give.

    Scores of its items are multiplied by `weight`, above 0. Hits are taken best first; an item that several
    of the scopes cover counts once, for the one in which it scores most and whose `quota` is not used up."""

    scope: Scope
    weight: float = 1.0
    quota: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.scope, Scope):
            raise InvalidScope(f"scopes must hold warpmem.Scope, not {type(self.scope).__name__}")
        weight = float_of(self.weight)
        if weight is None or not 0.0 < weight <= 1e6:
            raise InputError("the weight of a scope must be a number above 0, up to 1e6")
        _set(self, "weight", weight)
        if self.quota is not None:
            quota = int_of(self.quota)
            if quota is None or quota < 1:
                raise InputError("the quota of a scope must be an integer from 1, or None")
            _set(self, "quota", quota)


def _weight(value: Any, what: str) -> float:
    number = float_of(value)
    if number is None or not 0.0 <= number <= 1e6:
        raise InputError(f"{what} must be a number from 0 to 1e6")
    return number


def _check_spaces(spaces: Any) -> dict[str, float]:
    if not isinstance(spaces, dict) or not spaces.keys() <= set(get_args(Modality)):
        raise InputError(f"ranking spaces must be a dict of {', '.join(get_args(Modality))} to factors")
    return {name: _weight(factor, f"ranking spaces: the factor of {name}") for name, factor in spaces.items()}


class RankBy(msgspec.Struct, frozen=True, kw_only=True):
    """Weights of the final score of a `VectorIndex` search, a plain weighted sum that is not renormalised.

    similarity: as the metric has it. recency: ``2 ** (-max(0, now - t) / half_life)`` in (0, 1], where t is
    the row's value in `recency_column`, a "time" column; a row without one gets 0. priority: the row's value
    in `priority_column`, a "float64" column; a row without one gets 0. now: an aware datetime; None is the
    time of the search."""

    similarity: float = 1.0
    recency: float = 0.0
    recency_column: str | None = None
    half_life: timedelta = timedelta(days=30)
    priority: float = 0.0
    priority_column: str | None = None
    now: datetime | None = None

    def __post_init__(self) -> None:
        for name in ("similarity", "recency", "priority"):
            _set(self, name, _weight(getattr(self, name), f"ranking weight {name}"))
        for name in ("recency", "priority"):
            column = getattr(self, f"{name}_column")
            if column is not None and not isinstance(column, str):
                raise InputError(f"ranking {name}_column must be a string, not {type(column).__name__}")
            if column is None and getattr(self, name):
                raise InputError(f"ranking by {name} needs {name}_column, the column that holds it")
        if (
            not isinstance(self.half_life, timedelta)
            or not timedelta(microseconds=1) <= self.half_life <= _MAX_HALF_LIFE
        ):
            raise InputError("ranking half_life must be a timedelta from a microsecond to 1,000 years")
        if self.now is not None and not isinstance(self.now, datetime):
            raise InputError(f"ranking now must be a datetime, not {type(self.now).__name__}")
