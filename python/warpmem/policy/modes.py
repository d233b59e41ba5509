"""What the modes of a search are: presets of weights, and how a ranking joins them.

Tuned on the turns and observations of five LoCoMo conversations (`warpmem eval locomo`) with two embedders,
which the same weights serve. recall@10 of turns: wordllama .391 dense, .639 lexical, .744 hybrid;
all-MiniLM-L6-v2 .458, .639, .781.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import msgspec

from ..errors import InputError
from ..types import Ranking
from ..types.ranking import MODAL


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """What a search weighs: a Ranking in which nothing is left to a mode."""

    similarity: float = 1.0
    lexical: float = 0.0
    adjacent: float = 0.0
    entities: float = 0.0
    recency: float = 0.0
    priority: float = 0.0
    half_life: timedelta = timedelta(days=30)
    diversity: float = 0.0
    by_kind: dict[str, Weights] = {}
    spaces: dict[str, float] = {}


PRESETS: Final = {
    "dense": Weights(),
    "lexical": Weights(similarity=0.0, lexical=1.0),
    "hybrid": Weights(lexical=3.2, adjacent=1.8),
}


def weights(mode: Any, ranking: Any, default: str = "dense") -> Weights:
    """Those of a search. A mode sets similarity, lexical and adjacent; a ranking beside it the rest. Without
    a mode a ranking may set them too, and where it sets none of them `default` does.
    Raises InputError when both set them, or when either is not one."""
    if ranking is not None and not isinstance(ranking, Ranking):
        raise InputError(f"ranking must be a warpmem.Ranking, not {type(ranking).__name__}")
    names_own = _names_own(ranking)
    if mode is None:
        mode = "dense" if names_own else default
    elif not isinstance(mode, str) or mode not in PRESETS:
        raise InputError(f"mode must be one of {', '.join(map(repr, PRESETS))}")
    elif names_own:
        raise InputError(f"mode {mode!r} sets the weights {', '.join(MODAL)}; leave them out of the ranking")
    return PRESETS[mode] if ranking is None else _joined(PRESETS[mode], ranking)


def replaced(weights: Weights, **own: float) -> Weights:
    """With some in place of its own, and of those of kinds."""
    by_kind = {kind: replaced(of_kind, **own) for kind, of_kind in weights.by_kind.items()}
    return msgspec.structs.replace(weights, by_kind=by_kind, **own)


def _joined(preset: Weights, ranking: Ranking) -> Weights:
    given = {name: getattr(ranking, name) for name in ranking.__struct_fields__}
    own = {name: getattr(preset, name) if given[name] is None else given[name] for name in MODAL}
    by_kind = {kind: _joined(preset, of_kind) for kind, of_kind in ranking.by_kind.items()}
    return Weights(**{**given, **own, "by_kind": by_kind})


def _names_own(ranking: Ranking | None) -> bool:
    """Whether it sets a weight that modes set, for any kind."""
    return ranking is not None and (
        any(getattr(ranking, name) is not None for name in MODAL)
        or any(map(_names_own, ranking.by_kind.values()))
    )
