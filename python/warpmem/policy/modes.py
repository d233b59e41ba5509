"""What the modes of a search are: presets of weights, and how a ranking joins them.

Tuned on the turns and observations of five LoCoMo conversations (`warpmem eval locomo`) with two embedders,
which the same weights serve. recall@10 of turns: wordllama .391 dense, .639 lexical, .744 hybrid;
all-MiniLM-L6-v2 .458, .639, .781.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ..errors import InputError
from ..types import Ranking

PRESETS: Final = {
    "dense": Ranking(),
    "lexical": Ranking(similarity=0.0, lexical=1.0),
    "hybrid": Ranking(lexical=3.2, adjacent=1.8),
}
_OWN: Final = ("similarity", "lexical", "adjacent")


def weights(mode: Any, ranking: Any) -> Ranking:
    """The weights of a search. A mode sets similarity, lexical and adjacent; a ranking beside it the rest.
    Raises InputError when it sets them too, or when either is not one."""
    if ranking is not None and not isinstance(ranking, Ranking):
        raise InputError(f"ranking must be a warpmem.Ranking, not {type(ranking).__name__}")
    if mode is None:
        return ranking or PRESETS["dense"]
    if not isinstance(mode, str) or mode not in PRESETS:
        raise InputError(f"mode must be one of {', '.join(map(repr, PRESETS))}")
    preset = PRESETS[mode]
    if ranking is None:
        return preset
    plain = PRESETS["dense"]
    if any(getattr(ranking, name) != getattr(plain, name) for name in _OWN):
        raise InputError(f"mode {mode!r} sets the weights {', '.join(_OWN)}; leave them out of the ranking")
    for of_kind in ranking.by_kind.values():
        weights(mode, of_kind)
    return replaced(ranking, **{name: getattr(preset, name) for name in _OWN})


def replaced(ranking: Ranking, **own: float) -> Ranking:
    """With some weights in place of its own, and of those of kinds."""
    by_kind = {kind: replaced(of_kind, **own) for kind, of_kind in ranking.by_kind.items()}
    return msgspec.structs.replace(ranking, by_kind=by_kind, **own)


def chosen(mode: Any, ranking: Any, texts: Any, vectors: Any, default: str) -> Any:
    """The mode of a search: the one it names; `default` where it gives a text and nothing else to go by."""
    plain = mode is None and ranking is None and vectors is None and texts is not None
    return default if plain else mode
